"""The score card in the documents is what a server says today."""

from __future__ import annotations

from tests.support.served import Site
from tests.wire.scorecard import CARD, MISSING, card, lines


def test_the_score_card_is_current_and_nothing_is_missing(site: Site) -> None:
    now = card(site)
    assert f"| {MISSING} |" not in now
    assert now == CARD.read_text("utf-8"), "run: python -m tests.wire.scorecard"


def test_the_walk_finds_the_endpoints_of_the_sdk() -> None:
    found = {(line.verb, line.path) for line in lines()}
    assert ("POST", "/v1/agents") in found
    assert ("GET", "/v1/sessions/{session_id}/events/stream") in found
    assert ("GET", "/v1/environments/{environment_id}/work/poll") in found
    assert len(found) > 80
