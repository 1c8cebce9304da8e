"""What bubblewrap is told: pure functions from what is wanted to a list of arguments.

Above: `process`. Below: the runner's word for its proxy. It starts nothing and looks
at nothing but whether a folder exists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from sandbox.protocol import SandboxSpec
from sandbox.runner.net import PROXY_ENV
from sandbox.wire import OUTPUTS, UPLOADS

AGENT = 1000
"""uid and gid inside, as in the container images."""
RUNNER = "/opt/skiff"
WORKSPACE = "/workspace"
PATH = "/usr/local/bin:/usr/bin:/bin"
RUN_BYTES = 16 << 20
"""/run: pid files and sockets of what an agent starts."""
SHM_BYTES = 64 << 20
"""/dev/shm: the engine's own default."""
MAX_TMP = 512 << 20
"""/tmp is memory. Half of the sandbox's own, at most this much: build trees belong into the workspace."""

ETC = (
    "alternatives",
    "ca-certificates",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "pki/tls/certs",
    "pki/ca-trust/extracted",
    "protocols",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
)
"""What programs in /usr need of /etc, and nothing that tells of this machine or its users."""
OWN_ETC = {
    "passwd": f"root:x:0:0::/:/bin/sh\nagent:x:{AGENT}:{AGENT}::/workspace:/bin/bash\n",
    "group": f"root:x:0:\nagent:x:{AGENT}:\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
"""Files of our own: name in /etc -> text."""
LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


def runner_argv(python: Path, network: bool) -> list[str]:
    """The command that is PID 1 inside. -I -S: no site, no environment, 12 ms instead of 40."""
    return [str(python), "-I", "-S", f"{RUNNER}/sandbox/runner", "--exit-on-eof", *(["--net"] if network else [])]


def packing_argv(python: Path, verb: Literal["pack", "unpack"]) -> list[str]:
    """The command that packs what is inside to its stdout, or unpacks it from its stdin."""
    return [str(python), "-I", "-S", f"{RUNNER}/sandbox/runner", f"--{verb}"]


def limited_argv(argv: Sequence[str], bounds: Mapping[str, int]) -> list[str]:
    """`argv` started by a bash that first lowers its limits and then becomes it (1 ms; PID 1 stays PID 1).

    From outside it would take a capability that even root may lack. A limit that is lower already stays.
    """
    lower = "; ".join(f"ulimit -{letter} {bound} 2>/dev/null" for letter, bound in bounds.items())
    return ["/bin/bash", "--norc", "-c", f'{lower}; exec "$@"', "skiff", *argv]


class Folders(NamedTuple):
    """Folders of the host that a sandbox is given as its own."""

    workspace: Path
    uploads: Path | None = None
    outputs: Path | None = None
    only_read: bool = False
    """For packing: nothing can be written, and everything read; an agent can make files that it cannot read itself."""


def bwrap_argv(
    folders: Folders, parts: Path, prefix: Path | None, spec: SandboxSpec, descriptors: Sequence[str]
) -> list[str]:
    """bubblewrap's options, without the binary and the command.

    folders      the workspace and the outputs are the only places that can be written besides memory
    parts        folder with `runner/` (for /opt/skiff) and `etc/` (OWN_ETC as files)
    prefix       a Python outside /usr, bound at its own path
    spec         its memory bounds /tmp, its network policy decides whether programs are told of the proxy
    descriptors  options that name open files: seccomp, info, block
    """
    bind = "--ro-bind" if folders.only_read else "--bind"
    return [
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net", "--unshare-cgroup-try"),
        *("--disable-userns", "--as-pid-1", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
        *(("--cap-add", "CAP_DAC_OVERRIDE") if folders.only_read else ()),
        *("--uid", str(AGENT), "--gid", str(AGENT), "--hostname", "sandbox"),
        *_environment(opened=spec.network.mode != "none"),
        *_system(parts, prefix),
        *("--proc", "/proc"),
        *("--dev", "/dev", "--perms", "1777", "--size", str(SHM_BYTES), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"),
        *("--perms", "1777", "--size", str(min(MAX_TMP, spec.memory_mb << 19)), "--tmpfs", "/tmp"),
        *("--size", str(RUN_BYTES), "--tmpfs", "/run"),
        *(bind, str(folders.workspace), WORKSPACE, "--chdir", WORKSPACE),
        *(("--ro-bind", str(folders.uploads), UPLOADS) if folders.uploads else ()),
        *((bind, str(folders.outputs), OUTPUTS) if folders.outputs else ()),
        *("--remount-ro", "/"),
        *descriptors,
    ]


def _environment(opened: bool) -> list[str]:
    values = {"PATH": PATH, "HOME": WORKSPACE, "LANG": "C.UTF-8", "TMPDIR": "/tmp", "USER": "agent"}
    values |= PROXY_ENV if opened else {}
    return ["--clearenv", *(word for name, value in values.items() for word in ("--setenv", name, value))]


def _system(parts: Path, prefix: Path | None) -> list[str]:
    """Read-only: the host's /usr, the few files of /etc, the runner."""
    words = ["--ro-bind", "/usr", "/usr"]
    for name in LINKS:
        if (Path("/usr") / name).exists():
            words += ["--symlink", f"usr/{name}", f"/{name}"]
    for name in ETC:
        words += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    for name in OWN_ETC:
        words += ["--ro-bind", str(parts / "etc" / name), f"/etc/{name}"]
    if prefix is not None:
        words += ["--ro-bind", str(prefix), str(prefix)]
    return [*words, "--ro-bind", str(parts / "runner"), RUNNER]
