"""Environments in the wire's own form: partial updates, packages, Skiff's own additions, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from server.catalog import environments
from server.catalog.environments import Bounds
from server.errors import InvalidRequest, NotSupported, Refused

BOUNDS = Bounds(images=("python:3",), max_cpus=2, max_memory_mb=4096, cpus=1, memory_mb=1024, disk_mb=2048, pids=512)
OPEN = replace(BOUNDS, package_hosts=("index.example.org",), packages_from_mcp=True)


def create(bounds: Bounds = BOUNDS, **asked: Any) -> dict[str, Any]:
    return environments.create({"name": "e", **asked}, bounds)


def cloud(**config: Any) -> dict[str, Any]:
    return {"type": "cloud", **config}


def limited(**networking: Any) -> dict[str, Any]:
    return cloud(networking={"type": "limited", **networking})


def update(environment: dict[str, Any], bounds: Bounds = BOUNDS, **patch: Any) -> dict[str, Any] | None:
    return environments.update(environment, patch, bounds)


def test_without_a_word_an_environment_is_open_and_plain() -> None:
    environment = create()
    assert environment["config"]["networking"] == {"type": "unrestricted"}
    assert set(environment["config"]["packages"]) == {"type", "apt", "cargo", "gem", "go", "npm", "pip"}
    spec = environments.sandbox_spec(environment)
    assert (spec.network.mode, spec.packages, spec.image) == ("unrestricted", (), "")


def test_a_limited_network_reads_back_resolved_and_reaches_the_listed_hosts_alone() -> None:
    environment = create(config=limited(allowed_hosts=["API.example.org"]))
    assert environment["config"]["networking"] == {
        "type": "limited",
        "allowed_hosts": ["API.example.org"],
        "allow_mcp_servers": False,
        "allow_package_managers": False,
    }
    assert environments.sandbox_spec(environment).network.allowed_hosts == ("API.example.org",)


def test_packages_go_to_the_sandbox_sorted_by_manager() -> None:
    environment = create(config=cloud(packages={"pip": ["numpy==2.4.6"], "apt": ["tree"], "cargo": []}))
    assert environments.sandbox_spec(environment).packages == (("apt", ("tree",)), ("pip", ("numpy==2.4.6",)))


def test_package_managers_are_opened_to_the_hosts_that_the_operator_names() -> None:
    environment = create(OPEN, config=limited(allow_package_managers=True))
    assert environments.sandbox_spec(environment).network.allowed_hosts == ("index.example.org",)
    closed = update(environment, OPEN, config=limited(allow_package_managers=False))
    assert closed is not None
    assert environments.sandbox_spec(closed).network.allowed_hosts == ()


def test_a_ready_made_image_and_the_operators_are_chosen_by_name() -> None:
    for image in ("data", "python:3"):
        assert environments.sandbox_spec(create(skiff={"image": image})).image == image
    with pytest.raises(InvalidRequest, match="standard, data, databases, ci, python:3"):
        create(skiff={"image": "evil"})


def test_skiffs_own_additions_read_back_as_they_can_be_sent() -> None:
    given = {"image": "data", "cpu": 0.5, "memory_mb": 512}
    shown = environments.wire(create(skiff=given))["skiff"]
    assert shown == given
    assert environments.wire(create(skiff=shown))["skiff"] == shown
    assert environments.wire(create())["skiff"] == {"image": None, "cpu": 1, "memory_mb": 1024}


def test_an_update_keeps_what_it_does_not_name_also_within_the_configuration() -> None:
    environment = create(
        OPEN,
        config=cloud(
            networking={"type": "limited", "allowed_hosts": ["a.org"], "allow_package_managers": True},
            packages={"pip": ["numpy"], "apt": ["tree"]},
        ),
        skiff={"cpu": 2, "memory_mb": 512},
    )
    changed = update(
        environment,
        OPEN,
        config=cloud(networking={"type": "limited", "allow_mcp_servers": True}, packages={"apt": []}),
        skiff={"cpu": None},
    )
    assert changed is not None
    assert changed["config"]["networking"]["allowed_hosts"] == ["a.org"]
    assert changed["config"]["networking"]["allow_mcp_servers"] is True
    assert environments.sandbox_spec(changed).packages == (("pip", ("numpy",)),)
    assert (changed["skiff"]["cpus"], changed["skiff"]["memory_mb"]) == (1, 512)


@pytest.mark.parametrize(
    "patch", [{}, {"name": None}, {"config": None}, {"config": {"type": "cloud"}}, {"metadata": {"absent": ""}}]
)
def test_an_update_that_changes_nothing_changes_nothing(patch: dict[str, Any]) -> None:
    assert update(create(metadata={"k": "v"}), **patch) is None


def test_an_environment_without_network_stays_so_until_its_network_is_named() -> None:
    environment = environments.resolve({}, BOUNDS)
    renamed = update(environment, name="b", config=cloud())
    assert renamed is not None
    assert environments.sandbox_spec(renamed).network.mode == "none"
    opened = update(environment, config=limited(allowed_hosts=["a.org"]))
    assert opened is not None
    assert environments.sandbox_spec(opened).network.mode == "limited"


def test_metadata_goes_by_null_and_by_emptiness_and_a_description_can_be_empty() -> None:
    changed = update(create(metadata={"a": "1", "b": "2", "c": "3"}), metadata={"a": None, "b": ""}, description="")
    assert changed is not None
    assert (changed["metadata"], changed["description"]) == ({"c": "3"}, "")


def test_an_archived_environment_takes_no_update() -> None:
    with pytest.raises(Refused, match="is archived") as caught:
        update({**create(), "archived_at": "2026-01-01T00:00:00Z"}, name="b")
    assert caught.value.code == "environment_archived"


def test_bad_metadata_has_the_wires_code_and_every_problem_in_its_words() -> None:
    with pytest.raises(InvalidRequest, match=r"key ''.*value of 'k'") as caught:
        create(metadata={"": "v", "k": "x" * 513})
    assert caught.value.code == "invalid_metadata"


def test_the_mcp_door_gets_packages_only_where_the_operator_lets_it() -> None:
    asked = {"packages": {"pip": ["numpy"]}}
    with pytest.raises(NotSupported, match="packages_from_mcp"):
        environments.resolve(asked, BOUNDS)
    spec = environments.sandbox_spec(environments.resolve(asked, OPEN))
    assert (spec.packages, spec.network.mode) == ((("pip", ("numpy",)),), "none")


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"config": {"type": "self_hosted"}}, "self_hosted"),
        ({"config": cloud(packages={"cargo": ["ripgrep"]})}, "packages.cargo"),
        ({"config": cloud(packages={"gem": ["rails"]})}, "packages.gem"),
        ({"config": cloud(packages={"go": ["x"]})}, "packages.go"),
        ({"config": limited(allow_package_managers=True)}, "package_hosts"),
        ({"scope": "account"}, "scope"),
        ({"skiff": {"idle_seconds": 5}}, "skiff.idle_seconds"),
    ],
)
def test_what_is_not_there_yet_is_refused_by_name(asked: dict[str, Any], named: str) -> None:
    with pytest.raises(NotSupported, match=named):
        create(**asked)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"name": None}, "name is required"),
        ({"name": ""}, "^name"),
        ({"surprise": 1}, "^surprise is unknown"),
        ({"scope": "world"}, "scope"),
        ({"config": {}}, "config.type"),
        ({"config": cloud(surprise=1)}, "config.surprise"),
        ({"config": cloud(networking={"type": "wide"})}, "config.networking.type"),
        ({"config": cloud(networking={"type": "unrestricted", "allowed_hosts": []})}, "networking.allowed_hosts"),
        ({"config": limited(allowed_hosts=["https://a.org"])}, "allowed_hosts"),
        ({"config": limited(allowed_hosts="a.org")}, "allowed_hosts"),
        ({"config": limited(allow_mcp_servers="yes")}, "allow_mcp_servers"),
        ({"config": {**limited(), "packages": {"pip": ["x"]}}}, "allow_package_managers"),
        ({"config": cloud(packages={"pip": "x"})}, "packages.pip"),
        ({"config": cloud(packages={"pip": [5]})}, "packages.pip"),
        ({"config": cloud(packages={"pip": ["--index-url=http://x"]})}, "not a name and version"),
        ({"config": cloud(packages={"pip": ["git+https://x/y"]})}, "not a name and version"),
        ({"config": cloud(packages={"npm": ["../x"]})}, "not a name and version"),
        ({"config": cloud(packages={"apt": ["./x.deb"]})}, "not a name and version"),
        ({"config": cloud(packages={"brew": ["x"]})}, "packages.brew"),
        ({"skiff": {"cpu": 3}}, "skiff.cpu must be a number of at least 0.1 and at most 2"),
        ({"skiff": {"disk_mb": 3}}, "skiff.disk_mb is unknown"),
    ],
)
def test_what_is_wrong_is_refused_where_it_stands(asked: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        create(**asked)
