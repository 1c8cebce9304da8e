"""Resolving and connecting: what was checked is what is connected to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from sandbox.egress.dial import Address, Dialer, Resolver
from sandbox.egress.refusal import Refused


def names(*addresses: Address) -> Resolver:
    async def resolve(host: str, port: int) -> list[Address]:
        return list(addresses)

    return resolve


def refusal(dialer: Dialer, host: str = "name.test") -> Refused:
    """Why a connection is refused."""

    async def main() -> None:
        _, writer = await dialer.connect(host, 80)
        writer.transport.abort()

    with pytest.raises(Refused) as caught:
        asyncio.run(main())
    dialer.close()
    return caught.value


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def test_the_system_resolver_and_the_strict_rule_keep_a_sandbox_from_this_machine() -> None:
    assert refusal(Dialer(), "localhost").status == 403


def test_one_private_address_spoils_the_name_and_nothing_is_connected() -> None:
    with listening() as server:
        port = server.getsockname()[1]
        allowed: Callable[[str], bool] = lambda ip: ip != "10.0.0.1"  # noqa: E731
        error = refusal(Dialer(names(("127.0.0.1", port), ("10.0.0.1", port)), allowed))
        assert error.status == 403 and "10.0.0.1" in str(error)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_name_is_resolved_once_so_a_second_answer_cannot_lead_elsewhere() -> None:
    asked: list[str] = []

    async def main() -> None:
        with listening() as server:

            async def rebinding(host: str, port: int) -> list[Address]:
                asked.append(host)
                return [("127.0.0.1" if len(asked) == 1 else "10.0.0.1", server.getsockname()[1])]

            dialer = Dialer(rebinding, lambda ip: ip == "127.0.0.1")
            _, writer = await dialer.connect("name.test", 80)
            assert writer.get_extra_info("peername")[0] == "127.0.0.1"
            writer.transport.abort()
            dialer.close()

    asyncio.run(main())
    assert asked == ["name.test"]


def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    async def main() -> None:
        with listening() as closed:
            dead = closed.getsockname()
        with listening() as server:
            dialer = Dialer(names(dead, server.getsockname()), lambda ip: True)
            _, writer = await dialer.connect("name.test", 80)
            assert writer.get_extra_info("peername") == server.getsockname()
            writer.transport.abort()
            dialer.close()

    asyncio.run(main())


def test_a_server_that_refuses_and_a_name_without_address_are_bad_gateways() -> None:
    with listening() as closed:
        dead = closed.getsockname()
    assert refusal(Dialer(names(dead), lambda ip: True)).status == 502
    assert refusal(Dialer(names(), lambda ip: True)).status == 502
