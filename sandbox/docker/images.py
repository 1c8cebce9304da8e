"""Sandbox images: the toolbox is built once, and any image gets the runner as one thin layer of its own.

Above: `backend` (`ensure`, before each new container) and the command line (`build`). Below: `engine`, `base` where no
registry is reachable, `install` for packages, `shelf` for what is there already. It knows nothing of sandboxes.

    base (public or debootstrap) ──Dockerfile──► toolbox ───────┐
                                                    │ packages  │
                                                    ▼           │
                                               ready-made ──────┼── packages of the environment, where it has some
    an image of the operator's list ────────────────────────────┘                     │
                                                                                      ▼ runner.Dockerfile
                                                                            skiff-sandbox:<key>
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import itertools
import logging
import re
import tarfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sandbox import wire
from sandbox.docker import base, packages, shelf
from sandbox.docker.engine import Engine
from sandbox.docker.install import install
from sandbox.docker.shelf import DERIVED, TOOLBOX, Built, Current
from sandbox.errors import ImageMissing, SandboxUnavailable, SpecRefused
from sandbox.packages import check
from sandbox.protocol import Packages
from sandbox.readymade import RECIPES

Progress = Callable[[str], None]

PUBLIC_BASE = "debian:bookworm-slim"
LOCAL_BASE = "skiff-base:local"

PACKAGE_SECONDS = 900.0
"""For installing one list of packages: the largest ready-made one takes a minute here, on a slow line ten."""
AT_ONCE = 2
"""Installations beside each other: they wait for the network half the time, and unpack on two cores the other half."""
FAILED_SECONDS = 60.0
"""For which a failed installation is not tried again: the agent's next command would only wait for the same."""

log = logging.getLogger("skiff.sandbox.docker")

_PACKAGE = Path(wire.__file__).parent
_NO_PYTHON = re.compile(r"python3.*(not found|no such file)", re.IGNORECASE | re.DOTALL)
_REFUSED = "skiff-refused: "


def runner_files() -> dict[str, bytes]:
    """What goes to /opt/skiff in an image: path below it -> content."""
    modules = [_PACKAGE / "__init__.py", _PACKAGE / "wire.py", *sorted((_PACKAGE / "runner").glob("*.py"))]
    files = {f"sandbox/{module.relative_to(_PACKAGE)}": module.read_bytes() for module in modules}
    return {**files, "prepare.py": _recipe("prepare.py")}


def runner_version() -> str:
    """Twelve hex digits of everything that the thin layer is made of; in labels and tags."""
    digest = hashlib.sha256(_recipe("runner.Dockerfile"))
    for name, content in sorted(runner_files().items()):
        digest.update(f"\0{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def toolbox_tag() -> str:
    """Changes with its Dockerfile, so that a newer Skiff asks for a new build instead of using an old toolbox."""
    return f"{TOOLBOX}:{hashlib.sha256(_recipe('Dockerfile')).hexdigest()[:12]}"


def _digest(functions: str) -> str:
    return hashlib.sha256(functions.encode()).hexdigest()[:12]


def _recipe(name: str) -> bytes:
    return (_PACKAGE / "image" / name).read_bytes()


class Images:
    """The images of one engine. Its state is a cache: which sandbox image belongs to which image and packages.

    package_seconds bounds one installation of packages.
    """

    def __init__(self, engine: Engine, package_seconds: float = PACKAGE_SECONDS) -> None:
        self._engine = engine
        self._package_seconds = package_seconds
        self._ready: dict[tuple[str, Packages], str] = {}
        self._at_work: dict[object, asyncio.Task[str]] = {}
        self._failed: dict[str, tuple[float, str]] = {}
        self._places = asyncio.Semaphore(AT_ONCE)
        self._version = runner_version()
        self._functions = _recipe("packages.sh").decode()

    @property
    def version(self) -> str:
        """The runner's version when this process started."""
        return self._version

    async def ensure(self, image: str, wanted: Packages = ()) -> str:
        """The sandbox image made from `image` ("" = the toolbox, else a ready-made one's name or a reference) with the
        packages wanted, made first where needed: about a second, with new packages as long as they take.

        Whoever needs the same meanwhile waits for the same work, which goes on when one of them leaves. A reference
        once seen keeps its meaning until `forget`. Raises ImageMissing when the image is not on the engine (and cannot
        be pulled), SpecRefused when it can never be a sandbox, SandboxUnavailable when the packages cannot be had.
        """
        key = (image, wanted)
        if key not in self._ready:
            self._ready[key] = await self._once(key, lambda: self._derive(image, wanted))
        return self._ready[key]

    def forget(self, image: str, wanted: Packages = ()) -> None:
        """The derived image was not there after all (pruned behind our back): look again next time."""
        self._ready.pop((image, wanted), None)

    async def build(self, progress: Progress, base_image: str = "", fresh: bool = False) -> str:
        """Build the toolbox where it is missing (or `fresh`), then its sandbox image; returns that image's tag.
        `fresh` also removes what is `stale`.

        base_image is what the toolbox is built on; "" = the public slim image, else this machine's own packages.
        progress gets lines for people, from a thread. Raises SandboxUnavailable with the builder's last lines.
        """
        if fresh or await self._inspect(toolbox_tag()) is None:
            source = base_image or await self._base(progress)
            progress(f"building the toolbox on {source}")
            context = _tar({"Dockerfile": _recipe("Dockerfile")})
            await self._build_image(toolbox_tag(), context, {"BASE": source}, progress, "")
        self.forget("")
        tag = await self.ensure("")
        if fresh:  # they may be another checkout's: only when asked
            await self.collect(progress)
        progress(f"sandbox image ready: {tag}")
        return tag

    async def build_ready(self, name: str, progress: Progress, fresh: bool = False) -> Built:
        """Build a ready-made image where it is missing (or `fresh`), and its sandbox image.

        The toolbox must be there. Raises SpecRefused for a name that is none, ImageMissing, SandboxUnavailable.
        """
        if name not in RECIPES:
            raise SpecRefused(f"there is no ready-made image {name!r}; there are {', '.join(RECIPES)}")
        toolbox = await self._toolbox()
        tag = await self._with_packages(toolbox, RECIPES[name].packages, progress, fresh)
        self.forget(name)
        await self.ensure(name)
        images, _ = await shelf.survey(self._engine)
        return next(one for one in shelf.built(images) if one.tag == tag)

    async def built(self) -> list[Built]:
        """The images with packages that are on the engine."""
        images, _ = await shelf.survey(self._engine)
        return shelf.built(images)

    async def collect(self, progress: Progress) -> list[str]:
        """Remove what another version of Skiff left and no container was made from; returns the tags."""
        images, used = await shelf.survey(self._engine)
        current = Current(self._version, toolbox_tag(), _digest(self._functions))
        gone = shelf.stale(images, used, current)
        for tag in gone:
            progress(f"removing {tag}, out of date and unused")
            await shelf.remove(self._engine, tag)
        return gone

    async def close(self) -> None:
        """Break off what is at work."""
        tasks = tuple(self._at_work.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _once(self, key: object, work: Callable[[], Awaitable[str]]) -> str:
        """Do the work of this key, or wait for it where it is being done."""
        task = self._at_work.get(key)
        if task is None:

            async def do() -> str:
                try:
                    return await work()
                finally:
                    del self._at_work[key]

            self._at_work[key] = task = asyncio.create_task(do(), name=f"image {key}")
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # all waiters may have left
        return await asyncio.shield(task)

    async def _base(self, progress: Progress) -> str:
        if await self._inspect(PUBLIC_BASE) is not None or await self._pull(PUBLIC_BASE, progress):
            return PUBLIC_BASE
        if await self._inspect(LOCAL_BASE) is None:
            path = await asyncio.to_thread(base.base_tar, progress)
            progress("importing the base root")
            repository, tag = LOCAL_BASE.split(":")
            changes = ['CMD ["bash"]']
            await self._engine.call(
                "import the base root",
                lambda client: client.import_image_from_file(str(path), repository, tag, changes=changes),
            )
        return LOCAL_BASE

    async def _pull(self, image: str, progress: Progress) -> bool:
        try:
            await self._engine.call(f"pull {image}", lambda client: client.pull(image))
        except (SandboxUnavailable, ImageMissing) as error:
            progress(f"{image} cannot be pulled ({error})")
            return False
        return True

    async def _derive(self, image: str, wanted: Packages) -> str:
        check(wanted)
        source, found = await self._source(image)
        if any(names for _, names in wanted):
            source = await self._with_packages(found, wanted, _to_log())
            found = await self._inspect(source) or found
        if "/workspace" in (found["Config"].get("Volumes") or {}):
            raise SpecRefused(
                f"the image {source!r} cannot be a sandbox: it declares /workspace as a volume of its own"
            )
        tag = derived_tag(str(found["Id"]), self._version)
        if await self._inspect(tag) is None:
            context = _tar(
                {
                    "Dockerfile": _recipe("runner.Dockerfile"),
                    **{f"skiff/{name}": content for name, content in runner_files().items()},
                }
            )
            await self._build_image(tag, context, {"BASE": source}, lambda _: None, source)
        return tag

    async def _source(self, image: str) -> tuple[str, dict[str, Any]]:
        """The reference of the image that is meant, and what the engine knows of it."""
        if not image:
            return toolbox_tag(), await self._toolbox()
        if image in RECIPES:
            toolbox = await self._toolbox()
            tag = packages.tag(str(toolbox["Id"]), RECIPES[image].packages, self._functions)
            found = await self._inspect(tag)
            if found is None:
                raise ImageMissing(
                    f"the ready-made image {image!r} has not been built; run `skiff sandbox build {image}`"
                )
            return tag, found
        found = await self._inspect(image)
        if found is None and await self._pull(image, lambda _: None):
            found = await self._inspect(image)
        if found is None:
            raise ImageMissing(
                f"the image {image!r} is not on the engine and cannot be pulled; run `docker pull {image}` or "
                "`docker load` there"
            )
        return image, found

    async def _toolbox(self) -> dict[str, Any]:
        found = await self._inspect(toolbox_tag())
        if found is None:
            raise ImageMissing("the sandbox image has not been built; run `skiff sandbox build`")
        return found

    async def _with_packages(
        self, found: dict[str, Any], wanted: Packages, progress: Progress, fresh: bool = False
    ) -> str:
        """The tag of the image with these packages on top of the one found, installed first where it is missing."""
        tag = packages.tag(str(found["Id"]), wanted, self._functions)
        if fresh or await self._inspect(tag) is None:
            await self._once(tag, lambda: self._install(str(found["Id"]), wanted, tag, progress))
        return tag

    async def _ready_name(self, source: str, wanted: Packages) -> str:
        """The name of the ready-made image that this is, asked for by name or not; "" when it is none."""
        toolbox = await self._inspect(toolbox_tag())
        if toolbox is None or toolbox["Id"] != source:
            return ""
        return next((name for name, recipe in RECIPES.items() if recipe.packages == wanted), "")

    async def _install(self, source: str, wanted: Packages, tag: str, progress: Progress) -> str:
        words = packages.in_words(wanted)
        until, why = self._failed.get(tag, (0.0, ""))
        if time.monotonic() < until:
            raise SandboxUnavailable(f"{why}\n(not tried again within {FAILED_SECONDS:.0f} s of that)")
        labels = {
            "dev.skiff.image": "1",
            shelf.BASE: source,
            shelf.PACKAGES: words,
            shelf.READY: await self._ready_name(source, wanted),
            shelf.RECIPE: _digest(self._functions),
        }
        async with self._places:
            progress(f"installing {words} (at most {self._package_seconds:.0f} s)")
            try:
                script = packages.script(wanted, self._functions)
                await install(self._engine, source, script, tag, labels, self._package_seconds, progress)
            except SandboxUnavailable as error:
                now = time.monotonic()
                self._failed = {
                    key: kept for key, kept in self._failed.items() if kept[0] > now
                }  # or it grows for ever
                self._failed[tag] = (now + FAILED_SECONDS, str(error))
                raise
        self._failed.pop(tag, None)
        for gone in await shelf.trim(self._engine):
            progress(f"removed {gone}: more than {shelf.KEPT} images of environments that nobody uses")
        return tag

    async def _inspect(self, image: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self._engine.call(
                f"look for the image {image}", lambda client: client.inspect_image(image)
            )
        except ImageMissing:
            return None
        return found

    async def _build_image(
        self, tag: str, context: bytes, arguments: dict[str, str], progress: Progress, derived_from: str
    ) -> None:
        """One build by the classic builder. `derived_from` names the image that a refusal is about."""

        def work(client: Any) -> list[str]:
            stream = client.build(
                fileobj=io.BytesIO(context),
                custom_context=True,
                tag=tag,
                buildargs=arguments,
                labels={"dev.skiff.image": "1", shelf.FROM: derived_from},
                rm=True,
                forcerm=True,
                decode=True,
            )
            return _follow_build(stream, progress)

        lines = await self._engine.call(f"build {tag}", work)
        if not lines or not lines[-1].startswith("error: "):
            return
        output = "\n".join(lines[-12:])
        why = _why_refused(output)
        if derived_from and why:
            raise SpecRefused(f"the image {derived_from!r} cannot be a sandbox: {why}")
        raise SandboxUnavailable(f"building {tag} failed:\n{output}")


def _to_log() -> Progress:
    """The first line, that it begins, where an operator sees it, for a session waits; the others where he may look."""
    levels = itertools.chain([logging.WARNING], itertools.repeat(logging.INFO))
    return lambda line: log.log(next(levels), "packages of an environment: %s", line)


def derived_tag(image_id: str, version: str) -> str:
    """The tag of the sandbox image made from an image's digest and a runner's version."""
    digest = image_id.removeprefix("sha256:")
    return f"{DERIVED}:{digest[:16]}-{version}"


def _why_refused(output: str) -> str:
    """What a failed derivation said about the image, or "" when the failure was not the image's."""
    if _REFUSED in output:
        return output.split(_REFUSED, 1)[1].splitlines()[0]
    return "it has no python3 (3.8 or newer is needed)" if _NO_PYTHON.search(output) else ""


def _follow_build(stream: Any, progress: Progress) -> list[str]:
    """Lines of a build; the last one begins with "error: " when it failed."""
    lines: list[str] = []
    for message in stream:
        text = str(message.get("stream", ""))
        if "error" in message:
            text = f"error: {message['error']}"
        for line in text.splitlines():
            if line.strip():
                lines.append(line.rstrip())
                progress(line.rstrip())
    return lines


def _tar(files: dict[str, bytes]) -> bytes:
    """A build context. Fixed times and owners: the builder's cache goes by content alone."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o644
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
