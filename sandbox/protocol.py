"""The boundary between the server and whatever runs the tools.

Two protocols: a `SandboxBackend` makes and finds sandboxes, a `Sandbox` does operations. Above: `server.sessions`
and `server.tools`. Below: `sandbox.docker`, `sandbox.local`. Every backend passes the same contract suite
(`tests/contracts/test_sandbox.py`); what a backend cannot promise it declares in `promises`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Protocol, Self

from sandbox.wire import Call, Result

OnOutput = Callable[[bytes], None]
"""Called from the event loop with portions of live output; must not block."""
Packages = tuple[tuple[str, tuple[str, ...]], ...]
"""(manager, names in the manager's own version syntax), at most once a manager, sorted by manager."""


@dataclass(frozen=True)
class NetworkPolicy:
    """Which hosts a sandbox may reach, all through the policy proxy.

    none           nothing
    limited        `allowed_hosts` only: bare names, or `*.name` for every subdomain but not the apex
    unrestricted   any public address; never private, link-local or loopback ones
    """

    mode: Literal["none", "limited", "unrestricted"] = "none"
    allowed_hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class SandboxSpec:
    """What a session's sandbox must be. Frozen with the session; hashed into the labels of its container."""

    image: str = ""
    """Image reference; empty = the backend's own default image."""
    cpus: float = 1.0
    memory_mb: int = 1024
    disk_mb: int = 2048
    pids: int = 512
    network: NetworkPolicy = field(default_factory=NetworkPolicy)
    packages: Packages = ()
    """Put into an image, once for all sandboxes that ask for the same, before the first of them starts."""


@dataclass(frozen=True)
class SandboxRef:
    """Enough to find a sandbox again after a restart of the server. Stored with the session as JSON."""

    backend: str
    slot: str
    """Name of the workspace: the volume (docker) or folder (local) that the session owns."""
    container: str = ""
    """The engine's id of the container last seen; may be gone."""


@dataclass(frozen=True)
class Promises:
    """What a backend guarantees. The contract suite tests exactly the promised ones; `notes` tells people the rest."""

    survives_server_restart: bool
    memory_limit: bool
    pids_limit: bool
    own_image: bool
    pause: bool
    notes: tuple[str, ...] = ()


class Sandbox(Protocol):
    """One live sandbox, attached to by this process alone."""

    ref: SandboxRef
    incarnation: str
    """Random, made by the runner at its start: two different values are two different lives."""

    bare: bool
    """What was placed in it and what it handed out are gone, although its workspace is there: somebody took them away.
    Known of one that was made anew around its workspace, right after it was attached to."""

    @property
    def alive(self) -> bool:
        """Whether a call has a chance: False once the runner, or the connection to it, is known to be gone."""

    @property
    def left(self) -> Mapping[str, str]:
        """Operations that the owner before this one left unsettled, as of the attachment: id to `running` or `done`."""

    async def call(self, call: Call, on_output: OnOutput | None = None) -> Result:
        """Do an operation, at most once per `op_id` and incarnation.

        Calling again with the same `op_id` attaches to the running operation or returns its kept result.
        Cancelling the awaiting task does not stop the operation; `cancel` does.
        Raises SandboxGone when the sandbox dies first or stays silent for wire.SILENCE_SECONDS.
        """

    async def cancel(self, op_id: str) -> None:
        """Stop a running operation with all it started. `call` then returns, meta.cancelled true. No-op if done."""

    async def settle(self, op_ids: Sequence[str]) -> None:
        """The results of these operations are stored; the runner may forget them."""

    async def place(self, path: str, size: int, portions: AsyncIterator[bytes]) -> None:
        """Put a file of `size` bytes at `path` below wire.UPLOADS, parents made, replacing what is there.

        The agent can read it; it can neither write, delete nor rename it, nor anything above it. It survives `stop`, as
        the workspace does, and does not count towards the disk bound. A running program may see it grow. Streamed: it
        is never whole in memory. The caller answers for `path`: relative, without `..`, and never both a file and a
        folder. Raises SandboxUnavailable or SandboxGone; then a part of it may be there.
        """

    async def unplace(self, path: str) -> None:
        """Delete what was placed there. Idempotent. Raises as `place`."""

    async def pause(self) -> None:
        """Freeze all processes. A later `call` thaws by itself. No-op where promises.pause is False."""

    async def stop(self) -> None:
        """End all processes, keep the workspace; the attachment is closed. `backend.attach` starts it again."""

    async def close(self) -> None:
        """Let go of the attachment; the sandbox lives on where the backend promises that."""


class SandboxBackend(Protocol):
    """Makes, finds and removes sandboxes. An async context manager: leaving it closes every attachment."""

    name: str
    promises: Promises

    async def __aenter__(self) -> Self:
        """Ready for use."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None:
        """Let go of every attachment; sandboxes live on where `survives_server_restart` is promised."""

    async def check(self) -> None:
        """Raises SandboxUnavailable, saying what to do, when no sandbox could be made now."""

    async def create(self, spec: SandboxSpec, slot: str) -> Sandbox:
        """A fresh sandbox with an empty workspace. `slot` is a unique name chosen by the caller; a pooled sandbox may
        come back under another slot: use the returned `ref`. Raises SandboxUnavailable or SpecRefused."""

    async def attach(self, ref: SandboxRef, spec: SandboxSpec) -> Sandbox:
        """Take over an existing sandbox: attached if it runs, started if stopped, made anew around its workspace if
        only that is left. Compare `incarnation` to learn whether its processes survived. Raises WorkspaceGone when no
        workspace is left, another SandboxGone or SandboxUnavailable when it cannot be started now (its files stay)."""

    async def stop(self, ref: SandboxRef) -> None:
        """End all processes of a sandbox, keep its workspace. Idempotent; as good as done where nothing is left.

        For one that nobody is attached to; an attachment of this process ends. Raises SandboxUnavailable.
        """

    def pack(self, ref: SandboxRef, spec: SandboxSpec) -> AsyncGenerator[bytes]:
        """All that a sandbox's workspace and outputs hold, as one compressed archive, in portions; it is stopped first.

        With owners, modes, times, holes, links and names of any bytes; without what was placed. Neither the archive
        nor its entries are ever whole in memory, and no process of the sandbox's own takes part. Broken off at any
        moment it has changed nothing. Raises WorkspaceGone when there is none, SandboxUnavailable when it cannot be
        read to its end.
        """

    async def unpack(self, ref: SandboxRef, spec: SandboxSpec, portions: AsyncIterator[bytes]) -> None:
        """Make a workspace with what `pack` gave, under the slot of `ref`; `attach` then starts a sandbox around it.

        Whatever was left under that slot is removed first. The archive is the agent's word, so it is unpacked with no
        more rights than the agent has, inside. Raises SandboxUnavailable when it is no whole archive or does not fit,
        and whatever `portions` raise; nothing of it is there then.
        """

    async def list(self) -> list[SandboxRef]:
        """Every sandbox and workspace of this installation, running or not."""

    async def destroy(self, ref: SandboxRef) -> None:
        """Remove the sandbox and its workspace. Idempotent."""

    async def reap(self, known_slots: Collection[str]) -> Sequence[str]:
        """Remove sandboxes and workspaces of this installation whose slot is not among these, nor in the backend's
        own hands (a warm pool, one that is being made). Returns their slots. Called at start with every slot known."""
