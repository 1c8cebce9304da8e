"""A base root file system made from this machine's own apt mirror, for where no image registry can be reached.

Above: `images`. Below: debootstrap, tar and gzip as programs, the machine's apt sources. It knows no engine: it
leaves a compressed tar that an engine can import.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox.errors import SandboxUnavailable

Progress = Callable[[str], None]

MINUTES = 15
"""Half a minute on a near mirror; a mirror thirty times slower than that is not worth waiting for."""

_DPKG_EXCLUDES = "".join(
    f"path-{verb} /usr/share/{path}\n"
    for verb, path in (
        ("exclude", "doc/*"),
        ("include", "doc/*/copyright"),
        ("exclude", "man/*"),
        ("exclude", "info/*"),
        ("exclude", "locale/*"),
        ("exclude", "lintian/*"),
    )
)
_BULK = (
    *(f"usr/share/{name}" for name in ("doc", "man", "info", "locale", "lintian")),
    *(f"var/{name}" for name in ("log", "lib/apt/lists", "cache/apt/archives")),
)
"""Two thirds of a minimal root is paper that no agent reads."""


@dataclass(frozen=True)
class Mirror:
    """Where this machine gets its packages: distribution's code name, address, components, keyring (may be empty)."""

    codename: str
    address: str
    components: tuple[str, ...]
    keyring: str = ""


def base_tar(progress: Progress) -> Path:
    """The cached compressed tar of a base root, made first where it is missing (about half a minute, needs root).

    Raises SandboxUnavailable that says what is missing: root, debootstrap, an apt source.
    """
    mirror = find_mirror(Path("/etc/apt"), Path("/etc/os-release"))
    path = cache_folder(os.environ, Path.home()) / f"base-{mirror.codename}-{os.uname().machine}.tar.gz"
    if path.exists():
        progress(f"using the base root cached at {path}")
        return path
    if os.geteuid() != 0:
        raise SandboxUnavailable(
            "no image registry can be reached, and a base root can only be made by root: run `sudo skiff sandbox build`"
        )
    if not shutil.which("debootstrap"):
        raise SandboxUnavailable("no image registry can be reached, and debootstrap is not installed: `make engine`")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="skiff-base-", dir=_roomy_folder()) as folder:
        root = Path(folder) / "root"
        _bootstrap(mirror, root, progress)
        _slim(root)
        _pack(root, path)
    progress(f"base root of {path.stat().st_size >> 20} MiB cached at {path}")
    return path


def cache_folder(environ: Mapping[str, str], home: Path) -> Path:
    """Skiff's cache, as the XDG rules place it."""
    return Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "skiff"


@dataclass(frozen=True)
class Source:
    """One entry of the apt sources: where binary packages are, of which suites."""

    addresses: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    keyring: str = ""


def find_mirror(apt: Path, os_release: Path) -> Mirror:
    """The first apt source that carries this machine's own release.

    apt is the folder with sources.list and sources.list.d. Raises SandboxUnavailable when there is none.
    """
    release = codename(os_release)
    for source in sources(apt):
        if release in source.suites:
            return Mirror(release, source.addresses[0], source.components, source.keyring)
    raise SandboxUnavailable(
        "no image registry can be reached, and this machine has no apt source for its own release to make a base from; "
        "load an image by hand (`docker load`) and name it with `skiff sandbox build --base`"
    )


def sources(apt: Path) -> Iterator[Source]:
    """The apt sources of binary packages that are switched on: deb822 stanzas first, then one-line entries."""
    yield from _deb822(sorted((apt / "sources.list.d").glob("*.sources")))
    yield from _one_line([apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.list"))])


def codename(os_release: Path) -> str:
    """The distribution's release as apt names it, "" where it is not said."""
    try:
        lines = os_release.read_text().splitlines()
    except OSError:
        return ""
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    return values.get("VERSION_CODENAME", "").strip('"')


def _deb822(files: list[Path]) -> Iterator[Source]:
    for stanza in (part for file in files for part in file.read_text().split("\n\n")):
        lines = [line for line in stanza.splitlines() if ":" in line and not line.startswith(("#", " "))]
        fields = {key.strip().lower(): value.split() for key, value in (line.split(":", 1) for line in lines)}
        if "deb" not in fields.get("types", []) or not fields.get("uris") or fields.get("enabled") == ["no"]:
            continue
        keyring = " ".join(fields.get("signed-by", []))
        yield Source(
            tuple(fields["uris"]),
            tuple(fields.get("suites", [])),
            tuple(fields.get("components", ["main"])),
            keyring if keyring.startswith("/") else "",
        )


def _one_line(files: list[Path]) -> Iterator[Source]:
    for line in (line for file in files if file.exists() for line in file.read_text().splitlines()):
        head, _, options_and_rest = line.strip().partition(" ")
        if head != "deb":
            continue
        options, rest = "", options_and_rest.strip()
        if rest.startswith("["):
            options, _, rest = rest[1:].partition("]")
        words = rest.split()
        if len(words) > 2:
            signed = [option[10:] for option in options.split() if option.startswith("signed-by=/")]
            yield Source((words[0],), (words[1],), tuple(words[2:]), signed[0] if signed else "")


def _roomy_folder() -> str | None:
    """Memory where there is plenty: a slow disk doubles the time."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > 2 << 30 else None


def _bootstrap(mirror: Mirror, root: Path, progress: Progress) -> None:
    progress(f"making a base root of {mirror.codename} with debootstrap (about half a minute)")
    command = ["debootstrap", "--variant=minbase", f"--components={','.join(mirror.components)}"]
    if mirror.keyring:
        command.append(f"--keyring={mirror.keyring}")
    done = _run([*command, mirror.codename, str(root), mirror.address])
    if done.returncode:
        log = root / "debootstrap" / "debootstrap.log"
        detail = log.read_text(errors="replace") if log.exists() else done.stdout.decode(errors="replace")
        raise SandboxUnavailable(f"debootstrap failed: {detail.strip()[-600:]}")
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    if mirror.address.startswith("https:") and bundle.exists():  # until ca-certificates is installed on top
        (root / "etc/ssl/certs").mkdir(parents=True, exist_ok=True)
        shutil.copy(bundle, root / "etc/ssl/certs/ca-certificates.crt")


def _slim(root: Path) -> None:
    """What official slim images leave out, left out; and the settings that keep it out of later layers."""
    for folder in _BULK:
        shutil.rmtree(root / folder, ignore_errors=True)
        (root / folder).mkdir(parents=True, exist_ok=True)
    for cache in (root / "var/cache/apt").glob("*.bin"):
        cache.unlink()
    (root / "etc/dpkg/dpkg.cfg.d/docker").write_text(_DPKG_EXCLUDES + "force-unsafe-io\n")
    (root / "etc/apt/apt.conf.d/docker").write_text(
        'Acquire::Languages "none";\nAcquire::GzipIndexes "true";\n'
        'APT::Keep-Downloaded-Packages "false";\nDir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n'
    )


def _pack(root: Path, path: Path) -> None:
    """Level 1: a third of the size in two seconds; more only costs time. Renamed into place when it is whole."""
    partial = path.with_suffix(f".{os.getpid()}.part")
    try:
        done = _run(
            ["tar", "-C", str(root), "--numeric-owner", "--use-compress-program=gzip -1", "-cf", str(partial), "."]
        )
        if done.returncode:
            raise SandboxUnavailable(f"could not pack the base root: {done.stdout.decode(errors='replace')[-600:]}")
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def _run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=MINUTES * 60
    )
