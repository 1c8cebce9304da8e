"""The checks before the handlers, with handlers of the test's own: their order, their words, and what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from server.doors.observe import Observed, Seen
from server.doors.rest.app import RestDoor
from server.doors.rest.endpoint import MANAGED_AGENTS, Call, Endpoint
from server.errors import Conflict, NotFound, SkiffError, StoreBlocked, StoreError, TryAgain, coded
from server.store.answers import AnswerStore
from server.store.sqlite import SqliteDatabase
from server.store.store import Store

GOOD = {"authorization": "Bearer good", "anthropic-beta": f"other, {MANAGED_AGENTS}", "anthropic-version": "2023-06-01"}


class Shop:
    """Handlers that say what they got."""

    def __init__(self) -> None:
        self.made = 0
        self.waiting = asyncio.Event()
        self.go_on = asyncio.Event()

    async def make(self, call: Call) -> Mapping[str, Any]:
        self.made += 1
        return {"id": f"thing_{self.made}", "got": call.body, "key": list(call.key or ())}

    async def slow(self, call: Call) -> Mapping[str, Any]:
        self.waiting.set()
        await self.go_on.wait()
        return await self.make(call)

    async def fail(self, call: Call) -> Mapping[str, Any]:
        self.made += 1
        raise {
            "conflict": Conflict("stale"),
            "moving": TryAgain("in a moment"),
            "coded": coded(NotFound("no such environment"), "environment_not_found"),
            "store": StoreError("/secret/path is damaged"),
            "blocked": StoreBlocked("/secret/path is full"),
            "bug": RuntimeError("secret detail"),
        }[call.path["how"]]

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        return (
            Endpoint("GET", "/v1/things", self.make, "", query={"limit": {"type": "integer"}}),
            Endpoint("POST", "/v1/things", self.make, "", takes="dict"),
            Endpoint("POST", "/v1/things/slow", self.slow, "", takes="dict"),
            Endpoint("POST", "/v1/things/own", self.make, "", keeps_key=True, takes="dict"),
            Endpoint("POST", "/v1/things/{thing_id}", self.make, ""),
            Endpoint("GET", "/v1/open", self.make, "", beta=None),
            Endpoint("POST", "/v1/fails/{how}", self.fail, ""),
        )


async def verify(key: str) -> str | None:
    return "tester" if key == "good" else None


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[httpx2.AsyncClient, Shop, list[Seen]]]:
    database = SqliteDatabase(folder / "skiff.db")
    await database.open()
    await Store(database).open()
    shop, seen = Shop(), []  # type: ignore[var-annotated]
    door = Observed(RestDoor(None, shop.endpoints, verify, AnswerStore(database)), seen.append)  # type: ignore[arg-type]
    transport = httpx2.ASGITransport(app=door)
    try:
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=GOOD) as client:
            yield client, shop, seen
    finally:
        await database.close()


Story = Callable[[httpx2.AsyncClient, Shop, list[Seen]], Awaitable[None]]


def play(folder: Path, story: Story) -> None:
    async def run() -> None:
        async with asyncio.timeout(30), opened(folder) as (client, shop, seen):
            await story(client, shop, seen)

    asyncio.run(run())


def refused(answer: httpx2.Response, status: int, kind: str, message: str | None = None) -> str:
    """That the answer is the envelope of such an error; gives its words."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"type", "error", "request_id"} and body["type"] == "error"
    assert body["error"]["type"] == kind
    assert body["request_id"] == answer.headers["request-id"] and body["request_id"].startswith("req_")
    if message is not None:
        assert body["error"]["message"] == message
    return str(body["error"]["message"])


def without(*names: str, **more: str) -> dict[str, str]:
    """Headers that say nothing under these names."""
    return {**dict.fromkeys(names, ""), **more}


def test_the_checks_come_in_the_order_of_the_hosted_service(tmp_path: Path) -> None:
    async def story(client: httpx2.AsyncClient, shop: Shop, seen: list[Seen]) -> None:
        nothing = without(*GOOD)
        refused(await client.get("/v1/nowhere", headers=nothing), 404, "not_found_error", "Not found")
        refused(await client.delete("/v1/things", headers=nothing), 405, "invalid_request_error")
        refused(
            await client.get("/v1/things?x=1", headers=nothing), 401, "authentication_error", "Authentication failed"
        )
        keyed = without("anthropic-beta", "anthropic-version")
        refused(await client.get("/v1/things?x=1", headers=keyed), 404, "not_found_error", "not found")
        words = "anthropic-version: header is required"
        refused(
            await client.get("/v1/things?x=1", headers=without("anthropic-version")),
            400,
            "invalid_request_error",
            words,
        )
        assert "x: unknown query parameter" in refused(await client.get("/v1/things?x=1"), 400, "invalid_request_error")
        assert shop.made == 0
        assert (await client.get("/v1/things?limit=1&beta=true")).status_code == 200

    play(tmp_path, story)


def test_a_key_is_taken_as_bearer_and_as_x_api_key(tmp_path: Path) -> None:
    async def story(client: httpx2.AsyncClient, shop: Shop, seen: list[Seen]) -> None:
        for headers in ({"authorization": "bearer good"}, without("authorization", **{"x-api-key": "good"})):
            assert (await client.get("/v1/things", headers=headers)).status_code == 200
        for headers in ({"authorization": "Bearer bad"}, {"authorization": "Basic good"}, {"authorization": "good"}):
            words = "Authentication failed"
            refused(await client.get("/v1/things", headers=headers), 401, "authentication_error", words)

    play(tmp_path, story)


def test_the_beta_is_one_of_a_list_and_some_endpoints_need_none(tmp_path: Path) -> None:
    async def story(client: httpx2.AsyncClient, shop: Shop, seen: list[Seen]) -> None:
        two = [*GOOD.items(), ("anthropic-beta", "another-2026-01-01")]
        assert (await client.request("GET", "/v1/things", headers=two)).status_code == 200
        wrong = {"anthropic-beta": f"{MANAGED_AGENTS}x"}
        refused(await client.get("/v1/things", headers=wrong), 404, "not_found_error", "not found")
        assert (await client.get("/v1/open", headers=without("anthropic-beta"))).status_code == 200
        refused(await client.get("/v1/things", headers={"anthropic-version": "newest"}), 400, "invalid_request_error")

    play(tmp_path, story)


def test_a_method_that_is_not_allowed_names_those_that_are(tmp_path: Path) -> None:
    async def story(client: httpx2.AsyncClient, shop: Shop, seen: list[Seen]) -> None:
        answer = await client.put("/v1/things", json={})
        assert "GET, POST" in refused(answer, 405, "invalid_request_error")
        assert answer.headers["allow"] == "GET, POST"

    play(tmp_path, story)


def test_what_skiff_does_not_have_is_refused_by_name_to_who_may_ask(tmp_path: Path) -> None:
    async def story(client: httpx2.AsyncClient, shop: Shop, seen: list[Seen]) -> None:
        for path, name in (
            ("/v1/vaults", "vaults"),
            ("/v1/memory_stores/m/memories", "memory stores"),
            ("/v1/environments/env_1/work/poll", "environment work items"),
        ):
            assert name in refused(await client.post(path), 400, "invalid_request_error")
            refused(await client.post(path, headers=without("authorization")), 401, "authentication_error")
        refused(await client.get("/v1/vaultsx"), 404, "not_found_error")

    play(tmp_path, story)


@pytest.mark.parametrize("path", ["/v1/things/", "/v1/things/x/y", "/v1", "/", "/v1/things/x%0A/", "/v1//things"])
def test_paths_that_are_almost_right_are_not_found(tmp_path: Path, path: str) -> None:
    async def story(client: httpx2.AsyncClient, shop: Shop, seen: list[Seen]) -> None:
        refused(await client.get(path), 404, "not_found_error", "Not found")

    play(tmp_path, story)


def test_an_endpoint_without_a_body_refuses_fields(tmp_path: Path) -> None:
    async def story(client: httpx2.AsyncClient, shop: Shop, seen: list[Seen]) -> None:
        for body in (b"", b"{}"):
            assert (await client.post("/v1/things/a", content=body)).status_code == 200
        words = refused(await client.post("/v1/things/a", json={"force": True}), 400, "invalid_request_error")
        assert words.startswith("force: unknown field")

    play(tmp_path, story)


def test_errors_have_the_wires_types_codes_and_retry_headers(tmp_path: Path) -> None:
    async def story(client: httpx2.AsyncClient, shop: Shop, seen: list[Seen]) -> None:
        conflict = await client.post("/v1/fails/conflict")
        refused(conflict, 409, "invalid_request_error", "stale")
        assert conflict.headers["x-should-retry"] == "false"
        moving = await client.post("/v1/fails/moving")
        refused(moving, 409, "invalid_request_error", "in a moment")
        assert moving.headers["x-should-retry"] == "true"
        missing = await client.post("/v1/fails/coded")
        refused(missing, 404, "not_found_error")
        assert missing.json()["error"]["details"] == {"error_code": "environment_not_found"}

    play(tmp_path, story)


def test_what_went_wrong_inside_is_in_the_log_under_the_requests_id_and_not_in_the_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(client: httpx2.AsyncClient, shop: Shop, seen: list[Seen]) -> None:
        for how in ("store", "bug"):
            answer = await client.post(f"/v1/fails/{how}")
            refused(answer, 500, "api_error")
            assert "secret" not in answer.text and "Traceback" not in answer.text
            (logged,) = [record for record in caplog.records if record.levelname == "ERROR"]
            assert answer.headers["request-id"] in logged.getMessage() and logged.exc_info
            caplog.clear()

    play(tmp_path, story)


def test_a_locked_database_or_a_full_disk_is_said_without_its_path(tmp_path: Path) -> None:
    async def story(client: httpx2.AsyncClient, shop: Shop, seen: list[Seen]) -> None:
        answer = await client.post("/v1/fails/blocked")
        assert "disk is full: nothing was done. Try again" in refused(answer, 500, "api_error")
        assert "secret" not in answer.text

    play(tmp_path, story)


def test_every_request_is_noted_with_its_route_and_holder_and_never_its_path(tmp_path: Path) -> None:
    async def story(client: httpx2.AsyncClient, shop: Shop, seen: list[Seen]) -> None:
        await client.post("/v1/things/secret-id")
        await client.get("/v1/strange")
        assert [(each.method, each.route, each.status, each.holder) for each in seen] == [
            ("POST", "/v1/things/{thing_id}", 200, "tester"),
            ("GET", "", 404, ""),
        ]

    play(tmp_path, story)


def test_the_same_key_and_request_give_the_same_answer_and_are_done_once(tmp_path: Path) -> None:
    async def story(client: httpx2.AsyncClient, shop: Shop, seen: list[Seen]) -> None:
        headers = {"idempotency-key": "k1"}
        first = await client.post("/v1/things", json={"a": 1, "b": 2}, headers=headers)
        again = await client.post("/v1/things", json={"b": 2, "a": 1}, headers=headers)
        assert first.json() == again.json() and shop.made == 1
        assert first.headers["request-id"] != again.headers["request-id"]
        other = await client.post("/v1/things", json={"a": 1, "b": 2}, headers={"idempotency-key": "k2"})
        assert other.json()["id"] == "thing_2"

    play(tmp_path, story)


def test_the_same_key_for_another_request_is_a_conflict(tmp_path: Path) -> None:
    async def story(client: httpx2.AsyncClient, shop: Shop, seen: list[Seen]) -> None:
        headers = {"idempotency-key": "k1"}
        await client.post("/v1/things", json={"a": 1}, headers=headers)
        for path, body in (("/v1/things", {"a": 2}), ("/v1/things/x", None)):
            answer = await client.post(path, json=body, headers=headers)
            assert "used before" in refused(answer, 409, "invalid_request_error")
            assert answer.headers["x-should-retry"] == "false"
        assert shop.made == 1

    play(tmp_path, story)


def test_the_same_key_at_the_same_time_is_asked_to_come_back(tmp_path: Path) -> None:
    async def story(client: httpx2.AsyncClient, shop: Shop, seen: list[Seen]) -> None:
        headers = {"idempotency-key": "k1"}
        first = asyncio.create_task(client.post("/v1/things/slow", json={"a": 1}, headers=headers))
        await shop.waiting.wait()
        meanwhile = await client.post("/v1/things/slow", json={"a": 1}, headers=headers)
        refused(meanwhile, 409, "invalid_request_error")
        assert meanwhile.headers["x-should-retry"] == "true"
        shop.go_on.set()
        answered = (await first).json()
        assert (await client.post("/v1/things/slow", json={"a": 1}, headers=headers)).json() == answered
        assert shop.made == 1

    play(tmp_path, story)


def test_a_failure_is_not_remembered(tmp_path: Path) -> None:
    async def story(client: httpx2.AsyncClient, shop: Shop, seen: list[Seen]) -> None:
        for _ in range(2):
            refused(
                await client.post("/v1/fails/conflict", headers={"idempotency-key": "k"}), 409, "invalid_request_error"
            )
        assert shop.made == 2

    play(tmp_path, story)


def test_an_endpoint_that_keeps_its_key_gets_it_with_the_requests_digest(tmp_path: Path) -> None:
    async def story(client: httpx2.AsyncClient, shop: Shop, seen: list[Seen]) -> None:
        headers = {"idempotency-key": "k1"}
        made = [(await client.post("/v1/things/own", json={"a": n}, headers=headers)).json() for n in (1, 1, 2)]
        (key, digest), again, other = (each["key"] for each in made)
        assert key == "k1" and again == [key, digest] and other[1] != digest
        assert shop.made == 3

    play(tmp_path, story)


def test_a_key_that_is_none_is_refused(tmp_path: Path) -> None:
    async def story(client: httpx2.AsyncClient, shop: Shop, seen: list[Seen]) -> None:
        for key in ("", "x" * 256, "two words"):
            answer = await client.post("/v1/things", json={}, headers={"idempotency-key": key})
            assert "idempotency-key" in refused(answer, 400, "invalid_request_error")

    play(tmp_path, story)


def test_every_error_of_the_tree_that_a_client_sees_has_a_status_of_the_wire() -> None:
    def below(kind: type[SkiffError]) -> list[type[SkiffError]]:
        return [kind, *(each for child in kind.__subclasses__() for each in below(child))]

    assert {kind.status for kind in below(SkiffError)} <= {400, 401, 403, 404, 405, 408, 409, 413, 421, 500, 507}
