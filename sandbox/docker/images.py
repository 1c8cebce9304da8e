"""Sandbox images: the toolbox is built once, and any image gets the runner as one thin layer of its own.

Above: `backend` (`ensure`, before each new container) and the command line (`build`). Below: `engine`, and `base`
where no registry is reachable. It knows nothing of containers.

    base (public or debootstrap) ──Dockerfile──► toolbox ─┐
                                                          ├─runner.Dockerfile──► skiff-sandbox:<key>
    an image of the operator's list ──────────────────────┘
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sandbox import wire
from sandbox.docker import base
from sandbox.docker.engine import Engine
from sandbox.errors import ImageMissing, SandboxUnavailable, SpecRefused

Progress = Callable[[str], None]

PUBLIC_BASE = "debian:bookworm-slim"
LOCAL_BASE = "skiff-base:local"
TOOLBOX = "skiff-toolbox"
DERIVED = "skiff-sandbox"

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


def _recipe(name: str) -> bytes:
    return (_PACKAGE / "image" / name).read_bytes()


class Images:
    """The images of one engine. Its state is a cache: which derived image belongs to which reference."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ready: dict[str, str] = {}
        self._deriving = asyncio.Lock()
        self._version = runner_version()

    @property
    def version(self) -> str:
        """The runner's version when this process started."""
        return self._version

    async def ensure(self, image: str) -> str:
        """The sandbox image made from `image` ("" = the toolbox), deriving it first where needed (about a second).

        A reference once seen keeps its meaning until `forget`. Raises ImageMissing when the image is not on the
        engine (and cannot be pulled), SpecRefused when it can never be a sandbox.
        """
        if image not in self._ready:
            async with self._deriving:
                if image not in self._ready:
                    self._ready[image] = await self._derive(image)
        return self._ready[image]

    def forget(self, image: str) -> None:
        """The derived image was not there after all (pruned behind our back): look again next time."""
        self._ready.pop(image, None)

    async def build(self, progress: Progress, base_image: str = "", fresh: bool = False) -> str:
        """Build the toolbox where it is missing (or `fresh`), then its sandbox image; returns that image's tag.
        `fresh` also removes unused sandbox images of other runner versions.

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
        for stale in await self._stale() if fresh else ():  # they may be another checkout's: only when asked
            progress(f"removing {stale}, of another runner and unused")
            await self._remove(stale)
        progress(f"sandbox image ready: {tag}")
        return tag

    async def _remove(self, image: str) -> None:
        with contextlib.suppress(ImageMissing):
            await self._engine.call(f"remove {image}", lambda client: client.remove_image(image))

    async def _stale(self) -> list[str]:
        """Sandbox images of other runner versions that no container was made from."""
        images = await self._engine.call("list images", lambda client: client.images(DERIVED))
        containers = await self._engine.call("list containers", lambda client: client.containers(all=True))
        used = {container["ImageID"] for container in containers}
        tags = [tag for image in images if image["Id"] not in used for tag in image["RepoTags"] or ()]
        return sorted(tag for tag in tags if tag.startswith(f"{DERIVED}:") and not tag.endswith(f"-{self._version}"))

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

    async def _derive(self, image: str) -> str:
        source = image or toolbox_tag()
        found = await self._inspect(source)
        if found is None and image and await self._pull(image, lambda _: None):
            found = await self._inspect(image)
        if found is None:
            raise ImageMissing(
                f"the image {image!r} is not on the engine and cannot be pulled; run `docker pull {image}` or "
                "`docker load` there"
                if image
                else "the sandbox image has not been built; run `skiff sandbox build`"
            )
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
                labels={"dev.skiff.image": "1"},
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
