"""Environments: the network in friendly words, bounds of the operator, what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.catalog import environments
from server.catalog.environments import Bounds
from server.errors import InvalidRequest, NotSupported

BOUNDS = Bounds(images=("python:3",), max_cpus=2, max_memory_mb=4096, cpus=1, memory_mb=1024, disk_mb=2048, pids=512)


def resolve(**asked: Any) -> dict[str, Any]:
    return environments.resolve(asked, BOUNDS)


@pytest.mark.parametrize(
    ("asked", "mode", "hosts"),
    [
        ({}, "none", ()),
        ({"type": "standard_sandbox", "network_access": True}, "unrestricted", ()),
        ({"type": "standard_sandbox", "network_access": False}, "none", ()),
        ({"network": "none"}, "none", ()),
        ({"network": "open"}, "unrestricted", ()),
        ({"network": "limited"}, "limited", ()),
        ({"network": "limited", "allowed_hosts": ["a.org", "*.b.org"]}, "limited", ("a.org", "*.b.org")),
        ({"allowed_hosts": ["a.org"]}, "limited", ("a.org",)),
        ({"allowed_hosts": ["a.org"], "network_access": True}, "limited", ("a.org",)),
        ({"network": {"type": "limited", "allowed_hosts": ["a.org"]}}, "limited", ("a.org",)),
        ({"network": {"mode": "unrestricted"}}, "unrestricted", ()),
    ],
)
def test_the_network_in_all_the_words_for_it(asked: dict[str, Any], mode: str, hosts: tuple[str, ...]) -> None:
    environment = resolve(**asked)
    network = environments.sandbox_spec(environment).network
    assert (network.mode, network.allowed_hosts) == (mode, hosts)
    assert environments.reaches_out(environment) == (mode == "unrestricted" or bool(hosts))


def test_what_a_sandbox_has_when_nothing_is_asked_and_when_something_is() -> None:
    spec = environments.sandbox_spec(resolve())
    assert (spec.image, spec.cpus, spec.memory_mb, spec.disk_mb, spec.pids) == ("", 1, 1024, 2048, 512)
    spec = environments.sandbox_spec(resolve(image="python:3", cpu=2, memory_mb=64))
    assert (spec.image, spec.cpus, spec.memory_mb) == ("python:3", 2, 64)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"packages": {"pip": ["x"]}}, "environment.packages"),
        ({"config": {"type": "cloud"}}, "environment.config"),
        ({"type": "self_hosted"}, "self_hosted"),
        ({"network": {"type": "limited", "allow_package_managers": True}}, "allow_package_managers"),
    ],
)
def test_what_is_not_there_yet_is_refused_by_name(asked: dict[str, Any], named: str) -> None:
    with pytest.raises(NotSupported, match=named):
        resolve(**asked)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"surprise": 1}, "environment.surprise is unknown. Known: name"),
        ({"name": 5}, "environment.name"),
        ({"network": "wide"}, "environment.network"),
        ({"network": ["open"]}, "environment.network"),
        ({"network": {"type": ["open"]}}, "environment.network"),
        ({"network_access": "yes"}, "network_access"),
        ({"network_access": False, "network": "open"}, "opens it"),
        ({"network_access": True, "network": "none"}, "closes it"),
        ({"network": "open", "allowed_hosts": ["a.org"]}, "goes with network `limited`"),
        ({"allowed_hosts": "a.org"}, "allowed_hosts"),
        ({"allowed_hosts": [5]}, "allowed_hosts"),
        ({"allowed_hosts": ["https://a.org"]}, "allowed_hosts"),
        ({"allowed_hosts": ["a.org:443"]}, "allowed_hosts"),
        ({"image": "evil"}, "neither ready-made nor on the operator"),
        ({"cpu": 3}, "environment.cpu must be a number of at least 0.1 and at most 2"),
        ({"cpu": 1e-9}, "environment.cpu"),
        ({"cpu": True}, "environment.cpu"),
        ({"cpu": float("nan")}, "environment.cpu"),
        ({"memory_mb": 0.5}, "environment.memory_mb"),
        ({"memory_mb": 5000}, "environment.memory_mb"),
        ({"memory_mb": "lots"}, "environment.memory_mb"),
    ],
)
def test_what_is_wrong_is_refused_with_words_that_help(asked: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        resolve(**asked)


def test_equal_environments_have_one_digest_and_others_do_not() -> None:
    assert environments.digest(resolve(cpu=1)) == environments.digest(resolve(cpu=1))
    assert environments.digest(resolve(cpu=1)) != environments.digest(resolve(cpu=2))


@pytest.mark.parametrize("asked", [{}, {"network": "open"}, {"allowed_hosts": ["a.org"]}])
def test_an_environment_reads_back_as_the_sdk_expects_it(asked: dict[str, Any]) -> None:
    from anthropic.types.beta.beta_environment import BetaEnvironment

    wire = {key: value for key, value in resolve(**asked).items() if key != "skiff"}
    read = BetaEnvironment.model_validate_json(json.dumps(wire), strict=True)
    assert not read.model_extra
    assert not read.config.model_extra
