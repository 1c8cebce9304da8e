"""The stream of a session's events: what comes, when, under which names, and how it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
import pytest
from anthropic import Anthropic, APIError, AsyncAnthropic, beta_tool
from anthropic.lib.sessions import accumulate_managed_agents_event
from anthropic.types.beta.sessions import BetaManagedAgentsStreamSessionEvents

from tests.support.cast import ENDS, TOOLSET, Cast, message, silent_reader, text_of, told
from tests.support.judged import judged, refused
from tests.support.scenario import bash, call
from tests.support.served import Site, served

LONG = "All that can be said of it, and more. " * 40
HANGS = {"hang": True, "say": "never"}


@pytest.fixture(scope="module")
def cast(site: Site) -> Iterator[Cast]:
    with site.client() as client:
        yield Cast(client, tools=[TOOLSET])


def frames(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """The frames of a stream as they stand on the wire, by the names of their lines."""
    frame: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            assert name not in frame, "a frame has one line of each kind"
            frame[name] = value
        elif frame:
            yield frame
            frame = {}


def until(lines: Iterator[str], *types: str) -> list[dict[str, str]]:
    """The frames up to the first of these events, without pings."""
    found = []
    for frame in frames(lines):
        if frame["event"] != "ping":
            found.append(frame)
        if frame["event"] in types:
            return found
    raise AssertionError(f"none of {types} in {[frame['event'] for frame in found]}")


def bodies(found: list[dict[str, str]]) -> list[Mapping[str, Any]]:
    return [json.loads(frame["data"]) for frame in found]


# --- what comes ------------------------------------------------------------------------------------------------------


def test_every_frame_has_its_events_name_and_is_as_the_sdk_has_it(site: Site, cast: Cast) -> None:
    made = cast.session()
    with site.http() as http, http.stream("GET", f"/v1/sessions/{made.id}/events/stream") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        cast.events.send(made.id, events=[told({"say": "I look.", **call(bash("echo there"))}, {"say": "done"})])
        found = until(stream.iter_lines(), "session.status_idle")
    for frame in found:
        assert judged(BetaManagedAgentsStreamSessionEvents, frame["data"]).type == frame["event"]
    types = [frame["event"] for frame in found]
    assert types[:2] == ["user.message", "session.status_running"]
    assert types[-3:] == ["session.thread_status_idle", "session.usage", "session.status_idle"]
    assert not [each for each in types if each.startswith("private")]


def test_an_input_comes_twice_under_one_id_and_everything_else_once(cast: Cast) -> None:
    made = cast.session()
    shown = cast.turn(made.id, message("hello"))
    twice = [event for event in shown if event.type == "user.message"]
    assert [event.processed_at is None for event in twice] == [True, False]
    assert twice[0].id == twice[1].id
    ids = [event.id for event in shown]
    assert len(set(ids)) == len(ids) - 1
    assert {event.id for event in cast.events.list(made.id)} == set(ids)


def test_a_stream_tells_only_what_comes_after_it_was_opened(cast: Cast) -> None:
    made = cast.rested()
    before = {event.id for event in cast.events.list(made.id)}
    shown = cast.turn(made.id, message("again"))
    assert not before & {event.id for event in shown}


def test_a_silent_stream_is_kept_open_by_pings(site: Site, cast: Cast) -> None:
    made = cast.session()
    with site.http() as http, http.stream("GET", f"/v1/sessions/{made.id}/events/stream", timeout=10) as stream:
        assert next(frames(stream.iter_lines())) == {"event": "ping", "data": '{"type": "ping"}'}


def test_a_stream_outlives_the_archiving_and_ends_with_the_deletion(cast: Cast) -> None:
    made = cast.rested()
    with cast.events.stream(made.id, timeout=60) as stream:
        cast.client.beta.sessions.archive(made.id)
        cast.client.beta.sessions.delete(made.id)
        types = [event.type for event in stream]
    assert types[-1] == "session.deleted"
    assert set(types) <= {"session.thread_status_terminated", "session.status_terminated", "session.deleted"}


def test_an_archived_session_still_has_a_stream(cast: Cast) -> None:
    made = cast.rested()
    cast.client.beta.sessions.archive(made.id)
    with cast.events.stream(made.id, timeout=60) as stream:
        cast.client.beta.sessions.delete(made.id)
        assert [event.type for event in stream] == ["session.deleted"]


def test_the_stream_of_an_unknown_session_is_not_found(cast: Cast) -> None:
    refused(404, lambda: cast.events.stream("sesn_none"), kind="not_found_error")


# --- resumed ---------------------------------------------------------------------------------------------------------


def test_resumed_by_the_last_event_id_nothing_is_missing(site: Site, cast: Cast) -> None:
    made = cast.rested({"say": "I look.", **call(bash("true"))}, {"say": "done"})
    path = f"/v1/sessions/{made.id}/events/stream"
    with site.http() as http:
        with http.stream("GET", path, params={"after": 0}) as stream:
            whole = until(stream.iter_lines(), "session.status_idle")
        for number, frame in enumerate(whole[:-1], 1):
            if "id" in frame:
                with http.stream("GET", path, headers={"last-event-id": frame["id"]}) as stream:
                    assert until(stream.iter_lines(), "session.status_idle") == whole[number:]


@pytest.mark.parametrize("place", ["1000000", "-1", "sevt_1", "1.5"])
def test_a_place_that_is_none_is_refused(site: Site, cast: Cast, place: str) -> None:
    made = cast.rested()
    with site.http(last_event_id=place) as http:
        answer = http.get(f"/v1/sessions/{made.id}/events/stream")
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


# --- while it is written ---------------------------------------------------------------------------------------------


def previewed(site: Site, cast: Cast, *deltas: str) -> list[Mapping[str, Any]]:
    """What a stream with these `event_deltas[]` tells of one answer that thinks and says a lot."""
    made = cast.session()
    path = f"/v1/sessions/{made.id}/events/stream"
    with site.http() as http, http.stream("GET", path, params={"event_deltas[]": list(deltas)}) as stream:
        cast.events.send(made.id, events=[told({"think": "Hm.", "say": LONG, "stream": 0.2})])
        return bodies(until(stream.iter_lines(), "session.status_idle"))


def test_text_comes_while_it_is_written_and_is_the_beginning_of_the_whole(site: Site, cast: Cast) -> None:
    shown = previewed(site, cast, "agent.message")
    (started,) = [n for n, event in enumerate(shown) if event["type"] == "event_start"]
    event_id = shown[started]["event"]["id"]
    pieces = [n for n, event in enumerate(shown) if event["type"] == "event_delta"]
    (whole,) = [n for n, event in enumerate(shown) if event["type"] == "agent.message"]
    assert len(pieces) > 1
    assert started < pieces[0] <= pieces[-1] < whole
    assert {shown[n]["event_id"] for n in pieces} == {event_id} == {shown[whole]["id"]}
    text = "".join(shown[n]["delta"]["content"]["text"] for n in pieces)
    assert text
    assert shown[whole]["content"][0]["text"].startswith(text)
    for event in shown:
        judged(BetaManagedAgentsStreamSessionEvents, event)


def test_of_thinking_only_the_start_is_told(site: Site, cast: Cast) -> None:
    shown = previewed(site, cast, "agent.thinking")
    (start,) = [event for event in shown if event["type"] == "event_start"]
    (thought,) = [event for event in shown if event["type"] == "agent.thinking"]
    assert start["event"] == {"type": "agent.thinking", "id": thought["id"]}
    assert not [event for event in shown if event["type"] == "event_delta"]


def test_who_asks_for_nothing_gets_whole_events_alone(site: Site, cast: Cast) -> None:
    assert not [event for event in previewed(site, cast) if event["type"].startswith("event_")]


def test_other_deltas_and_too_many_are_refused(cast: Cast) -> None:
    made = cast.session()
    stream: Any = cast.events.stream
    refused(400, lambda: stream(made.id, event_deltas=["agent.tool_use"]), "event_deltas")
    refused(400, lambda: stream(made.id, event_deltas=["agent.message"] * 101), "event_deltas")


# --- the SDK's own helpers -------------------------------------------------------------------------------------------


def test_the_sdk_puts_a_message_together_from_its_pieces(cast: Cast) -> None:
    made = cast.session()
    snapshots, whole = [], None
    with cast.events.stream(made.id, event_deltas=["agent.message"], timeout=60) as stream:
        cast.events.send(made.id, events=[told({"say": LONG, "stream": 0.2})])
        for event in stream:
            whole = accumulate_managed_agents_event(whole, event)
            if event.type == "event_delta":
                snapshots.append(text_of(whole))
            if event.type in ENDS:
                break
    assert whole is not None
    assert text_of(whole).strip() == LONG.strip()
    assert all(text_of(whole).startswith(snapshot) for snapshot in snapshots)
    assert snapshots == sorted(snapshots, key=len)


def test_the_sdks_tool_runner_answers_custom_tools(site: Site, cast: Cast) -> None:
    @beta_tool
    def weather(place: str) -> str:
        """The weather of a place."""
        return f"windy in {place}"

    schema: Any = weather.to_dict()
    tool = {"type": "custom", "name": "weather", **{key: schema[key] for key in ("description", "input_schema")}}
    own = Cast(cast.client, tools=[tool])
    made = own.session({"call": [{"tool": "weather", "input": {"place": "Kiel"}}]}, {"say": "It is $RESULT."})

    async def run() -> list[Any]:
        async with site.async_client() as client:
            runner = client.beta.sessions.events.tool_runner(made.id, tools=[weather], max_idle=0.5)
            return [dispatched async for dispatched in runner]

    (dispatched,) = asyncio.run(run())
    assert (dispatched.name, dispatched.is_error, dispatched.posted) == ("weather", False, True)
    (reply,) = [text_of(event) for event in own.events.list(made.id, types=["agent.message"])]
    assert reply == "It is windy in Kiel."


def test_the_asynchronous_client_follows_a_turn(site: Site, cast: Cast) -> None:
    made = cast.session()

    async def run(client: AsyncAnthropic) -> list[str]:
        async with await client.beta.sessions.events.stream(made.id, timeout=60) as stream:
            await client.beta.sessions.events.send(made.id, events=[message("hello")])
            found: list[str] = []
            async for event in stream:
                found.append(event.type)
                if event.type in ENDS:
                    return found
        raise AssertionError(found)

    async def whole() -> list[str]:
        async with site.async_client() as client:
            return await run(client)

    assert asyncio.run(whole())[-1] == "session.status_idle"


# --- readers that are slow, silent or gone ---------------------------------------------------------------------------


def test_a_reader_that_takes_nothing_is_dropped_and_told_so_when_it_reads_again() -> None:
    with served(stall_seconds=0.5) as site, site.client() as client:
        cast = Cast(client)
        made = cast.session()
        with silent_reader(site, made.id) as reader:
            for _ in range(12):
                cast.turn(made.id, message("x" * 400_000))
            reader.settimeout(30)
            tail = b""
            while piece := reader.recv(1 << 16):
                tail = (tail + piece)[-2000:]
        assert b"event: error\ndata: " in tail, tail
        assert b"nothing was read for 0.5 s" in tail
        assert tail.endswith(b"\r\n0\r\n\r\n"), "a clear end"
        cast.client.beta.sessions.delete(made.id)


def test_an_error_frame_is_an_error_of_the_sdk(cast: Cast) -> None:
    error = {"type": "error", "error": {"type": "api_error", "message": "dropped"}, "request_id": "req_1"}
    body = f"event: error\ndata: {json.dumps(error)}\n\n".encode()
    answer = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=body)
    with httpx2.Client(transport=httpx2.MockTransport(lambda _: answer)) as http:
        client = Anthropic(api_key="k", http_client=http, max_retries=0)
        with client.beta.sessions.events.stream("sesn_1") as stream, pytest.raises(APIError, match="dropped"):
            list(stream)


def test_a_client_that_goes_away_changes_nothing(site: Site, cast: Cast) -> None:
    made = cast.session()
    silent_reader(site, made.id).close()
    assert cast.turn(made.id, message("still there?"))[-1].stop_reason.type == "end_turn"
