"""`skiff sessions`: look at the sessions of a data folder, and delete them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from server.app import running
from server.events import StoredEvent
from server.ids import now
from server.sessions.money.usage import session_usage
from server.settings import Settings

console = Console()
PAGE = 500
"""Events that are read at a time."""
REQUESTS = 20
"""Model requests that are shown with their cost: the newest of them."""


async def show_list(settings: Settings, limit: int) -> None:
    async with running(settings, lead=False) as app:
        whole = Column("session", no_wrap=True, min_width=29)  # to be copied, on however narrow a screen
        table = Table(whole, "status", "turns", "calls", "cost", "created", "title")
        for view in await app.service.list_sessions(limit=limit, archived=True):
            state = view.state
            cost = _dollars(state.usage.cost_usd)
            status = "archived" if view.row.archived_at else state.status
            created = view.row.created_at[:19].replace("T", " ")
            title = view.row.title or ""
            table.add_row(view.id, status, str(state.turns), str(state.tool_calls), cost, created, title)
        console.print(table)
        usd, tokens = await app.service.spent_on(now()[:10])
        caps = [f"${settings.max_usd_per_day:g}"] if settings.max_usd_per_day else []
        caps += [f"{settings.max_tokens_per_day:,} tokens"] if settings.max_tokens_per_day else []
        console.print(f"today    ${usd:.4f}, {tokens:,} tokens; cap: {' and '.join(caps) or 'none'}", highlight=False)


async def show_one(settings: Settings, session_id: str) -> None:
    async with running(settings, lead=False) as app:
        view = await app.service.view(session_id)
        state = view.state
        console.print(f"[bold]{view.id}[/] {view.row.title or ''}", highlight=False)
        console.print(f"status   {state.status}, {state.activity}")
        console.print(f"agent    {view.spec.agent_name}, model {view.spec.model}")
        console.print(f"turns    {state.turns}, {state.tool_calls} tool calls, {state.requests} model requests")
        console.print(f"usage    {json.dumps(session_usage(state))}", highlight=False)
        ratio = state.context.cache_hit_ratio
        cached = "" if ratio is None else f"; {ratio:.0%} of the latest turn's prompts came from the cache"
        console.print(f"context  about {state.context.tokens:,} tokens{cached}", highlight=False)
        console.print(f"cost     {_dollars(state.usage.cost_usd)}, {_dollars(state.turn_cost_usd)} in the last turn")
        for name, bound in view.budget_left.items():
            console.print(f"budget   {bound['left']:.10g} of {bound['limit']:.10g} {name} left", highlight=False)
        if state.last_error:
            console.print(f"error    {state.last_error}", markup=False)
        _show_requests(await app.service.requests(view, REQUESTS))
        console.print(f"\n{state.reply or '(no reply yet)'}", markup=False)


async def tail(settings: Settings, session_id: str, follow: bool) -> None:
    async with running(settings, lead=False) as app:
        last = 0
        while page := await app.service.transcript(session_id, last, PAGE, costs=True):
            for seq, body in page:
                _print(seq, body)
                last = max(last, seq)
        if not follow:
            return
        async for event in app.service.follow(session_id, last):
            if isinstance(event, StoredEvent) and event.public is not None:
                _print(event.seq, event.public)


async def remove(settings: Settings, session_id: str) -> None:
    async with running(settings) as app:
        await app.service.delete_session(session_id, if_running="interrupt")
        console.print(f"deleted {session_id}", highlight=False)


def _show_requests(ended: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
    """Model requests, each with its tokens and its cost."""
    table = Table("event", "input", "cache read", "written", "output", "cost", "model")
    for seq, body in ended:
        usage = body["model_usage"]
        names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
        counts = [f"{usage[name]:,}" for name in names]
        cost = "failed" if body["is_error"] else _dollars(body.get("cost_usd"))
        table.add_row(str(seq), *counts, cost, body.get("model"))
    if ended:
        console.print(table)


def _dollars(exact: str | None) -> str:
    return "?" if exact is None else f"${float(exact):.4f}"


def _print(seq: int, body: Mapping[str, Any]) -> None:
    rest = {key: value for key, value in body.items() if key not in ("id", "type", "processed_at")}
    line = f"{seq:5} {str(body.get('processed_at') or 'queued')[11:23]:12} {body['type']:32} {json.dumps(rest)[:400]}"
    console.print(line, markup=False, highlight=False, soft_wrap=True)
