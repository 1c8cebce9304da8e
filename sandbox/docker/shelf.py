"""What Skiff has built on an engine: the images with packages, the sandbox images, and which of them are of no use.

Above: `images`, `backend` (the commands). Below: `engine`. What is stale is decided in pure functions on what the
engine lists; nothing that a container was made from is ever among it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.docker.engine import Engine
from sandbox.docker.packages import REPOSITORY
from sandbox.errors import ImageMissing, SandboxError

DERIVED = "skiff-sandbox"
TOOLBOX = "skiff-toolbox"

FROM = "dev.skiff.from"
"""On a sandbox image: the image that the runner was put on."""
BASE = "dev.skiff.base"
PACKAGES = "dev.skiff.packages"
READY = "dev.skiff.ready"
RECIPE = "dev.skiff.recipe"
SECONDS = "dev.skiff.seconds"
"""On an image with packages: the id of the image below it, the packages in words, the name of a ready-made one, the
version of what installed them, and how long that took."""

KEPT = 16
"""Images with packages that no container was made from, the ready-made ones aside. Each is some 100 MB on top of its
base; the oldest go when a new one is built, and come back when they are needed."""


@dataclass(frozen=True)
class Built:
    """One image with packages, ready-made (`name`) or an environment's (name "")."""

    tag: str
    name: str
    packages: str
    size: int
    """Bytes, with everything below it."""
    seconds: int
    """That the installation took."""


@dataclass(frozen=True)
class Current:
    """What is up to date: everything else was left by another version of Skiff."""

    runner: str
    toolbox: str
    recipe: str


Listed = Mapping[str, Any]
"""An image as the engine lists it."""


def built(images: Sequence[Listed]) -> list[Built]:
    """The images with packages: the ready-made first, then the newest."""
    found = [(one, tag) for one in images for tag in _tags(one) if tag.startswith(f"{REPOSITORY}:")]
    found.sort(key=lambda pair: (not _label(pair[0], READY), -int(pair[0]["Created"])))
    return [
        Built(tag, _label(one, READY), _label(one, PACKAGES), int(one["Size"]), int(_label(one, SECONDS) or 0))
        for one, tag in found
    ]


def stale(images: Sequence[Listed], used: Collection[str], current: Current) -> list[str]:
    """The tags that a collection removes: sandbox images of other runners, images with packages whose base or recipe is
    not the current one, and what was derived from those. `used` are the ids of images that containers were made from.
    """
    bases = {one["Id"] for one in images if any(_is_base(tag, current) for tag in _tags(one))}
    old = {
        tag
        for one in images
        for tag in _tags(one)
        if tag.startswith(f"{REPOSITORY}:")
        and (_label(one, BASE) not in bases or _label(one, RECIPE) != current.recipe)
        and not _in_use(tag, one, images, used)
    }
    derived = [
        tag
        for one in images
        for tag in _tags(one)
        if tag.startswith(f"{DERIVED}:")
        and one["Id"] not in used
        and (not tag.endswith(f"-{current.runner}") or _label(one, FROM) in old)
    ]
    return [*sorted(derived), *sorted(old)]


def surplus(images: Sequence[Listed], used: Collection[str], keep: int = KEPT) -> list[str]:
    """The tags of environments' images beyond the newest `keep` that nobody uses, and of what was derived from them."""
    unused = [
        (int(one["Created"]), tag)
        for one in images
        for tag in _tags(one)
        if tag.startswith(f"{REPOSITORY}:") and not _label(one, READY) and not _in_use(tag, one, images, used)
    ]
    going = {tag for _, tag in sorted(unused, reverse=True)[keep:]}
    derived = [
        tag for one in images for tag in _tags(one) if tag.startswith(f"{DERIVED}:") and _label(one, FROM) in going
    ]
    return [*sorted(derived), *sorted(going)]


async def survey(engine: Engine) -> tuple[list[Listed], set[str]]:
    """All images of the engine, and the ids of those that containers were made from."""
    images: list[Listed] = await engine.call("list images", lambda client: client.images())
    containers = await engine.call("list containers", lambda client: client.containers(all=True))
    return images, {str(container["ImageID"]) for container in containers}


async def remove(engine: Engine, tag: str) -> None:
    """Remove a tag; the engine removes what it stands for where nothing else needs it."""
    with contextlib.suppress(ImageMissing):
        await engine.call(f"remove {tag}", lambda client: client.remove_image(tag))


async def trim(engine: Engine) -> list[str]:
    """Remove the surplus; returns the tags that went. What the engine keeps is left to the next time."""
    gone = []
    for tag in surplus(*await survey(engine)):
        with contextlib.suppress(SandboxError):
            await remove(engine, tag)
            gone.append(tag)
    return gone


def _in_use(tag: str, image: Listed, images: Sequence[Listed], used: Collection[str]) -> bool:
    """Whether a container was made from this image, or from one that the runner was put on."""
    return image["Id"] in used or any(one["Id"] in used for one in images if _label(one, FROM) == tag)


def _is_base(tag: str, current: Current) -> bool:
    return not tag.startswith(f"{TOOLBOX}:") or tag == current.toolbox


def _tags(image: Listed) -> list[str]:
    return [tag for tag in image["RepoTags"] or () if tag != "<none>:<none>"]


def _label(image: Listed, name: str) -> str:
    return str((image.get("Labels") or {}).get(name, ""))
