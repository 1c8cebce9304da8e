"""Which of the images that Skiff has built are out of date or too many. Pure: on what an engine would list."""

from __future__ import annotations

from typing import Any

from sandbox.docker.install import overdue
from sandbox.docker.shelf import Current, built, stale, surplus

CURRENT = Current(runner="r2", toolbox="skiff-toolbox:2", recipe="new")


def image(number: int, tag: str, **labels: str) -> dict[str, Any]:
    return {
        "Id": f"sha256:{number}",
        "RepoTags": [tag],
        "Created": number,
        "Size": 100 + number,
        "Labels": {f"dev.skiff.{name}": value for name, value in {"from": "", **labels}.items()},
    }


TOOLBOX = image(1, "skiff-toolbox:2")
THEIRS = image(2, "python:3.12")


def packages(number: int, *, base: int = 1, recipe: str = "new", ready: str = "") -> dict[str, Any]:
    return image(
        number, f"skiff-packages:{number}", base=f"sha256:{base}", recipe=recipe, ready=ready, packages="apt: tree",
        seconds="7",
    )  # fmt: skip


def derived(number: int, source: str, runner: str = "r2") -> dict[str, Any]:
    return image(number, f"skiff-sandbox:{number}-{runner}", **{"from": source})


def test_what_is_up_to_date_stays() -> None:
    images = [TOOLBOX, THEIRS, packages(3), packages(4, base=2), derived(5, "skiff-packages:3"), derived(6, "")]
    assert stale(images, set(), CURRENT) == []


def test_images_of_other_runners_recipes_and_vanished_bases_go_with_what_was_derived_from_them() -> None:
    old_toolbox = image(9, "skiff-toolbox:1")
    images = [
        TOOLBOX,
        old_toolbox,
        packages(3, recipe="old"),
        packages(4, base=77),
        packages(5, base=9),
        derived(6, "skiff-packages:3"),
        derived(7, "", "r1"),
        derived(8, ""),
    ]
    assert stale(images, set(), CURRENT) == [
        "skiff-sandbox:6-r2", "skiff-sandbox:7-r1", "skiff-packages:3", "skiff-packages:4", "skiff-packages:5",
    ]  # fmt: skip


def test_nothing_that_a_container_was_made_from_is_collected() -> None:
    images = [TOOLBOX, packages(3, recipe="old"), derived(6, "skiff-packages:3"), derived(7, "", "r1")]
    assert stale(images, {"sha256:6", "sha256:7"}, CURRENT) == []


def test_beyond_a_number_the_oldest_unused_images_of_environments_go_and_ready_made_ones_never() -> None:
    images = [
        packages(1, ready="data"), packages(2), packages(3), packages(4), packages(5),
        derived(6, "skiff-packages:2"), derived(7, "skiff-packages:3"),
    ]  # fmt: skip
    assert surplus(images, {"sha256:7"}, keep=1) == ["skiff-sandbox:6-r2", "skiff-packages:2", "skiff-packages:4"]
    assert surplus(images, set(), keep=4) == []


def test_what_is_built_says_its_size_and_the_time_it_took_ready_made_first() -> None:
    found = built([packages(3), packages(5), packages(4, ready="data"), TOOLBOX])
    assert [one.tag for one in found] == ["skiff-packages:4", "skiff-packages:5", "skiff-packages:3"]
    assert (found[0].name, found[0].size, found[0].seconds, found[0].packages) == ("data", 104, 7, "apt: tree")


def test_an_installation_is_forgotten_once_its_time_is_over() -> None:
    assert overdue("skiff-build-1000-abcd", now=1001)
    assert not overdue("skiff-build-1000-abcd", now=999)
    assert not overdue("somebody-build-1000", now=1001)
    assert not overdue("skiff-build-of-somebody", now=1001)
