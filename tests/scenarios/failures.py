"""What a model's failures lead to: the table that the documents show and the tests play.

`python -m tests.scenarios.failures` writes `docs/model-failures.md`; `test_failures.py` plays every row over real HTTP
and checks that the document is current.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).parents[2] / "docs" / "model-failures.md"
FOR_EVER = 99

OVERLOADED, RATE_LIMITED, FAILED, BILLING, COMPACTION = (
    "model_overloaded_error",
    "model_rate_limited_error",
    "model_request_failed_error",
    "billing_error",
    "compaction_limit_reached_error",
)
LATER = "tries again"
PUT_RIGHT = "Once that is put right"


@dataclass(frozen=True)
class Cause:
    """One row.

    how     as the provider shows it
    step    what makes the scripted model do it
    error   the type of the `session.error`, "" where there is none
    waits   seconds before each further try, with two tries allowed; () = the turn ends at once
    stop    the stop reason of the turn that never got an answer
    next    words of what the caller of the MCP door is told to do then
    """

    name: str
    how: str
    step: Mapping[str, Any]
    error: str
    waits: tuple[float, ...]
    stop: str
    next: str
    shorter: bool = False
    """It is tried again at once with less of the conversation, where there is something that can give way."""


def _fails(status: int, **more: Any) -> dict[str, Any]:
    return {"fail": {"status": status, "times": FOR_EVER, **more}}


def _retried(name: str, how: str, step: Mapping[str, Any], error: str, waits: tuple[float, ...] = (1, 2)) -> Cause:
    return Cause(name, how, step, error, waits, "retries_exhausted", LATER)


def _final(name: str, how: str, step: Mapping[str, Any], error: str = FAILED) -> Cause:
    return Cause(name, how, step, error, (), "retries_exhausted", PUT_RIGHT)


def _too_long(name: str, how: str, step: Mapping[str, Any]) -> Cause:
    return Cause(name, how, step, COMPACTION, (), "retries_exhausted", LATER, shorter=True)


_LONG = "prompt is too long: 210000 tokens > 200000 maximum"
_POOR = "Your credit balance is too low to access the Anthropic API."
_ASKED = {"retry_after": 30}

CAUSES = (
    _retried("overloaded", "529 `overloaded_error`", _fails(529), OVERLOADED),
    _retried("no capacity", "503", _fails(503), OVERLOADED),
    _retried("overloaded in mid-answer", "an error event in the stream", _fails(529, after=4), OVERLOADED),
    _retried("rate limit", "429", _fails(429), RATE_LIMITED),
    _retried("rate limit, with a wait", "429, `retry-after`", _fails(429, **_ASKED), RATE_LIMITED, (30, 30)),
    Cause(
        "rate limit, with a long wait",
        "429, `retry-after` over `retry_patience`",
        _fails(429, retry_after=7_200),
        RATE_LIMITED,
        (),
        "retries_exhausted",
        LATER,
    ),
    _retried("broken down", "500 `api_error`", _fails(500), FAILED),
    _retried("a gateway's time is over", "502, 504", _fails(504), FAILED),
    _retried("conflict, time is over", "409, 408", _fails(409), FAILED),
    _retried("cut stream", "the connection ends before `message_stop`", {"cut": 5}, FAILED, (1,)),
    _retried(
        "silent stream", "no byte for `silence_seconds`, or only pings for 15 times as long", {"hang": True}, FAILED
    ),
    _final("bad request", "400 `invalid_request_error`", _fails(400)),
    _final("bad key", "401 `authentication_error`", _fails(401)),
    _final("not allowed", "403 `permission_error`", _fails(403)),
    _final("unknown model", "404 `not_found_error`", _fails(404)),
    _final("no credit", "402 `billing_error`", _fails(402), BILLING),
    _final("no credit, told as a bad request", "400, by its words", _fails(400, message=_POOR), BILLING),
    _too_long("context too long", "400, by its words", _fails(400, message=_LONG)),
    _too_long("request too large", "413 `request_too_large`", _fails(413)),
    Cause("refusal", "`stop_reason: refusal`", {"say": "No.", "stop": "refusal"}, "", (), "refusal", LATER),
    Cause(
        "answer too long",
        "`stop_reason: max_tokens`",
        {"say": "It is so, because", "stop": "max_tokens"},
        "",
        (),
        "end_turn",
        "lets the agent finish",
    ),
    Cause(
        "window full in mid-answer",
        "`stop_reason: model_context_window_exceeded`",
        {"say": "It is so, because", "stop": "model_context_window_exceeded"},
        "",
        (),
        "end_turn",
        "The turn is over",
        shorter=True,
    ),
    Cause(
        "malformed tool input",
        "a `tool_use` whose input is no JSON object",
        {"garbled": '{"command": '},
        "",
        (),
        "end_turn",
        "The turn is over",
    ),
)

_HEAD = """\
# What a model's failures lead to

Written by `python -m tests.scenarios.failures` from the table that the tests play over real HTTP; not by hand.

"""
_TAIL = """
None of them terminates the session: it is idle afterwards, with its history and files, and the next message works.
`error` over MCP and `message` of the `session.error` say what the provider said, without keys.

- **Tried again** means: `session.error` with `retry_status: retrying`, then `session.status_rescheduled`, then, once
  the wait is over, `session.status_running` and the same request. After `retries` tries in a row (default 6) the last
  error is `exhausted`, and the turn ends.
- **The wait** is 1, 2, 4 ... 30 seconds, each up to a quarter shorter by chance. Where the provider names one
  (`retry-after-ms`, or `retry-after` in seconds or as a date), it is that and up to a tenth, at most 5 s, more. One
  that asks for more than `retry_patience` (default 600 s) ends the turn at once, and the error says how long it asks
  for. A provider that says `x-should-retry: false` is believed.
- **An interrupt** during a wait ends the turn at once. **A message** does not shorten it: it goes with the next try.
  The turn after an interrupt, or after one that was given up, asks at once. While a session waits, its place among
  those at work is lent to others.
- **A restart** during a wait neither loses nor doubles it: the wait is stored with the error, and what is left of it is
  sat out by the next process, whatever the clock did meanwhile.
- **A half answer** leaves nothing: its events come only when it is whole, and the text that was shown as it came is
  closed by `span.model_request_end` with `is_error`. Its tokens count: what the provider had reported by then (the
  input at the start of a stream) stands in that span and in the session's usage and cost. Nobody knows what it went on
  to bill, nor what it had reported to a process that was killed.
- **Too long** is answered by making room: old tool results are cleared, then a summary stands for all but the newest
  messages (`agent.thread_context_compacted`), and the model is asked again; where nothing is left that could give way,
  the turn ends with that error. An answer that fills the window goes on after the summary.
- **Refused calls** of a refusal do not run. A call with malformed input, or cut off by the answer's length, is not run
  either: the model gets an error result, and goes on.
"""


def document() -> str:
    """The document as it must be."""
    rows = ["| cause | how it shows | `session.error` | tried again | the turn then ends with | `next` over MCP |"]
    rows.append("|---|---|---|---|---|---|")
    for cause in CAUSES:
        error = f"`{cause.error}`" if cause.error else "none"
        again = "yes, shorter" if cause.shorter else _again(cause.waits)
        rows.append(f"| {cause.name} | {cause.how} | {error} | {again} | `{cause.stop}` | … {cause.next} … |")
    return _HEAD + "\n".join(rows) + "\n" + _TAIL


def _again(waits: tuple[float, ...]) -> str:
    if not waits:
        return "no"
    return "yes, after that wait" if len(set(waits)) == 1 and waits[0] > 1 else "yes"


if __name__ == "__main__":
    DOCUMENT.write_text(document(), "utf-8")
