"""Cost overshoot: what sessions of chance spend beyond their budget, and all together beyond the day's cap."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal
from typing import Any

from benchmarks.bench import Bench, say
from benchmarks.fake import Step, script
from benchmarks.row import Hold, Row, figure
from benchmarks.skiff import TURN_SECONDS, session, skiff
from server.app import App
from server.sessions.service import SessionView

SEED = 4
ROUNDS, LONGEST = 6, 8_000
"""Of a turn: rounds of tools, and bytes that an answer says, at most."""
LEAST, MOST = 5, 50
"""Cents of a budget: the dearest of these answers costs two to four."""
AT_ONCE = 20
CAP = 1.0
"""Dollars for so many sessions in one day: a third of what they would take."""
CALL = {"tool": "nothing", "input": {"command": "true"}, "force": True}
"""Of a tool that is not offered: a round that needs no sandbox."""
BESIDE = "the dearest answer among them"
ONE = Hold(1)
NOTE = "held by the largest overshoot, not by the median: the other samples are at most as large"


async def measure(bench: Bench) -> list[Row]:
    """Each session goes on until its budget is reached; then all of them at once, until the day's cap is."""
    chance = random.Random(SEED)
    say("money: budgets")
    async with skiff(bench) as app:
        alone = [await _until_held(app, chance) for _ in range(bench.samples(40, 3))]
    say("money: the day's cap")
    async with skiff(bench, max_usd_per_day=CAP) as app:
        together = await _at_once(app, chance)
    return [
        _row("cost overshoot: spent beyond a session's budget", [(over, dearest) for over, dearest, _ in alone]),
        _row(f"cost overshoot: {AT_ONCE} sessions beyond the cap of a day", [together]),
        Row(
            "of a session's budget, unspent when it is reached",
            "%",
            figure([unspent for _, _, unspent in alone]),
            None,
            "-",
            notes=("the rest does not buy the prompt, as if no cache held it, and a short answer",),
        ),
    ]


def _row(name: str, samples: list[tuple[float, float]]) -> Row:
    over, dearest = (figure([max(column)]) for column in zip(*samples, strict=True))
    return Row(name, "cents", over, dearest, BESIDE, ONE, (NOTE,))


async def _until_held(app: App, chance: random.Random) -> tuple[float, float, float]:
    """Cents beyond the budget, cents of the dearest answer, and the part of the budget that was left, in per cent."""
    bound = Decimal(chance.randint(LEAST, MOST))
    session_id = await session(app.service, agent={"tools": []}, budget={"usd": float(bound / 100)})
    view = await _turn(app, session_id, chance)
    while not view.state.held:
        view = await _turn(app, session_id, chance)
    spent = _cents(view.state.usage.cost_usd)
    left = bound - spent
    return float(max(-left, Decimal(0))), await _dearest(app, view), float(100 * max(left, Decimal(0)) / bound)


async def _at_once(app: App, chance: random.Random) -> tuple[float, float]:
    """Cents beyond the cap, and cents of the dearest answer."""

    async def work() -> SessionView:
        session_id = await session(app.service, agent={"tools": []})
        view = await _turn(app, session_id, chance)
        while view.state.ending != "day_cap_reached":
            view = await _turn(app, session_id, chance)
        return view

    views = await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    spent = sum((_cents(view.state.usage.cost_usd) for view in views), Decimal(0))
    answers = [await _dearest(app, view) for view in views]
    return float(max(spent - Decimal(str(CAP * 100)), Decimal(0))), max(answers)


async def _turn(app: App, session_id: str, chance: random.Random) -> SessionView:
    """A turn of some rounds, each with an answer of some length. Raises RuntimeError when it does not end."""
    steps: list[Step] = [{**_answer(chance), "call": [CALL]} for _ in range(chance.randint(0, ROUNDS))]
    await app.service.send_message(session_id, script([*steps, _answer(chance)]))
    (view,) = await app.service.wait([session_id], "all", TURN_SECONDS)
    if not view.settled:
        raise RuntimeError(f"a measured turn is {view.state.status}: {view.state.last_error}")
    return view


def _answer(chance: random.Random) -> dict[str, Any]:
    return {"say": "x" * chance.randint(1, LONGEST)}


async def _dearest(app: App, view: SessionView) -> float:
    ended = await app.service.requests(view, 1_000)
    return float(max((_cents(body.get("cost_usd")) for _, body in ended), default=Decimal(0)))


def _cents(usd: str | None) -> Decimal:
    return Decimal(usd or 0) * 100
