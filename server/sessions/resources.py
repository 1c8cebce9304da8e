"""What a session is given at its creation, or later: the wire's `resources`, checked and resolved. Pure.

Above: `files.service`. Below: nothing. It does not know whether an upload exists, nor what lies in a sandbox; it knows
which requests make sense, and where in the sandbox things will lie.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.wire import UPLOADS
from server.errors import InvalidRequest, NotSupported

WORKSPACE = "/workspace"
OURS = ".skiff"
"""A folder of uploads that is not a client's: what is on its way elsewhere."""

MOST_FILES = 500
"""Files of one session, as the hosted service has it."""
MOST_REPOSITORIES = 20
"""Repositories of one session: each is fetched, one after the other, before the first command runs."""
MAX_PATH = 1024
"""Bytes of a mount path, with 255 in each part: what every file system takes."""

_REPOSITORY = re.compile(
    r"https://([A-Za-z0-9.-]{1,253}(?::\d{1,5})?)/([A-Za-z0-9_.-]{1,100})/([A-Za-z0-9_.-]{1,100})/?"
)
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_BRANCH = re.compile(r"(?!-|/|.*(?:\.\.|//|@\{|\.lock$|/$|\.$))[A-Za-z0-9._/+@#=-]{1,250}")
_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_TOKEN = re.compile(r"[\x21-\x7e]{1,2048}")


@dataclass(frozen=True)
class AskedFile:
    """An upload to be mounted."""

    file_id: str
    mount_path: str


@dataclass(frozen=True)
class AskedRepository:
    """A repository to be fetched."""

    url: str
    mount_path: str
    checkout: Mapping[str, str] | None
    token: str | None

    @property
    def body(self) -> dict[str, Any]:
        """What the API shows of it."""
        return {"url": self.url, "mount_path": self.mount_path, "checkout": self.checkout}


Asked = AskedFile | AskedRepository


def read(asked: Sequence[Any], hosts: Collection[str]) -> list[Asked]:
    """The resources of a request, in order; `hosts` are the git hosts that may be fetched from.

    Raises NotSupported for a memory store, InvalidRequest saying which of them is wrong and how.
    """
    found = [_read(item, f"resources[{place}]", hosts) for place, item in enumerate(asked)]
    files = [item for item in found if isinstance(item, AskedFile)]
    repositories = [item for item in found if isinstance(item, AskedRepository)]
    if len(files) > MOST_FILES:
        raise InvalidRequest(f"resources: a session can have at most {MOST_FILES} files.")
    if len(repositories) > MOST_REPOSITORIES:
        raise InvalidRequest(f"resources: a session can have at most {MOST_REPOSITORIES} repositories.")
    _refuse_overlaps([item.mount_path for item in found])
    return found


def read_file(asked: Mapping[str, Any]) -> AskedFile:
    """The file of a request that adds one to a session. Raises InvalidRequest, also for any other type."""
    if asked.get("type") == "github_repository":
        raise InvalidRequest("type: a github_repository can only be given when the session is created.")
    found = _read(asked, "", ())
    assert isinstance(found, AskedFile)
    return found


def read_token(asked: Mapping[str, Any], label: str = "authorization_token") -> str:
    """A credential for a repository. Raises InvalidRequest."""
    unknown = sorted(str(name) for name in asked if name != "authorization_token")
    if unknown and label == "authorization_token":
        raise InvalidRequest(f"{unknown[0]}: unknown field. Only authorization_token can be updated.")
    token = asked.get("authorization_token")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise InvalidRequest(f"{label}: must be a token of 1 to 2048 visible ASCII characters.")
    return token


def describe(found: Sequence[Asked]) -> list[str]:
    """A line for the agent about each of them."""
    return [
        f"{item.mount_path} (a read-only file)"
        if isinstance(item, AskedFile)
        else f"{item.mount_path} (a git repository, {item.url})"
        for item in found
    ]


def below_uploads(mount_path: str) -> str:
    """The path of a file within the folder of uploads."""
    return mount_path.removeprefix(UPLOADS + "/")


def _read(item: Any, label: str, hosts: Collection[str]) -> Asked:
    dot = f"{label}." if label else ""
    if not isinstance(item, Mapping):
        raise InvalidRequest(f"{label}: must be an object.")
    kind = item.get("type")
    if kind == "memory_store":
        raise NotSupported(f"{dot}type: memory_store is not supported by this server yet. Leave it out.")
    known = _FIELDS.get(kind) if isinstance(kind, str) else None
    if known is None:
        raise InvalidRequest(f"{dot}type: must be file or github_repository.")
    unknown = sorted(str(name) for name in item if name not in known)
    if unknown:
        raise InvalidRequest(f"{dot}{unknown[0]}: unknown field of a {kind} resource.")
    return _file(item, dot) if kind == "file" else _repository(item, dot, hosts)


_FIELDS = {
    "file": ("type", "file_id", "mount_path"),
    "github_repository": ("type", "url", "authorization_token", "mount_path", "checkout"),
}


def _file(item: Mapping[str, Any], dot: str) -> AskedFile:
    file_id, path = item.get("file_id"), item.get("mount_path")
    if not isinstance(file_id, str) or not _ID.fullmatch(file_id):
        raise InvalidRequest(f"{dot}file_id: must be the id of an uploaded file.")
    return AskedFile(file_id, _below(UPLOADS, file_id if path is None else path, f"{dot}mount_path", rooted=True))


def _repository(item: Mapping[str, Any], dot: str, hosts: Collection[str]) -> AskedRepository:
    url, path = item.get("url"), item.get("mount_path")
    match = _REPOSITORY.fullmatch(url) if isinstance(url, str) else None
    if match is None or match[3].endswith(".git") or not match[2].strip(".") or not match[3].strip("."):
        raise InvalidRequest(f"{dot}url: must be https://github.com/<owner>/<repository>, without .git at its end.")
    if match[1].lower() not in hosts:
        raise InvalidRequest(
            f"{dot}url: this server fetches repositories from {', '.join(sorted(hosts)) or 'nowhere'}, not from"
            f" {match[1]}."
        )
    token = None if item.get("authorization_token") is None else read_token(item, f"{dot}authorization_token")
    if path is None:
        path = f"{WORKSPACE}/{match[3]}"
    mount_path = _below(WORKSPACE, path, f"{dot}mount_path", rooted=False)
    return AskedRepository(str(url).rstrip("/"), mount_path, _checkout(item.get("checkout"), dot), token)


def _checkout(asked: Any, dot: str) -> dict[str, str] | None:
    if asked is None:
        return None
    kind = asked.get("type") if isinstance(asked, Mapping) else None
    if kind == "branch" and set(asked) == {"type", "name"}:
        if isinstance(asked["name"], str) and _BRANCH.fullmatch(asked["name"]):
            return {"type": "branch", "name": asked["name"]}
        raise InvalidRequest(f"{dot}checkout.name: is not the name of a branch.")
    if kind == "commit" and set(asked) == {"type", "sha"}:
        if isinstance(asked["sha"], str) and _SHA.fullmatch(asked["sha"]):
            return {"type": "commit", "sha": asked["sha"]}
        raise InvalidRequest(f"{dot}checkout.sha: must be the full id of a commit, 40 (or 64) lower-case hex digits.")
    raise InvalidRequest(f'{dot}checkout: must be {{"type": "branch", "name"}} or {{"type": "commit", "sha"}}.')


def _below(root: str, path: Any, label: str, *, rooted: bool) -> str:
    """The absolute path in the sandbox. `rooted`: any path is one below the root, as if that were `/`."""
    if not isinstance(path, str) or not path.strip("/") or not path.isprintable():
        raise InvalidRequest(f"{label}: must be a path such as {root}/name, of printable characters.")
    if any(part in (".", "..") for part in path.split("/")):
        raise InvalidRequest(f"{label}: must not hold . or .. as a part.")
    inside = posixpath.normpath("/" + path.lstrip("/"))
    if inside.startswith(root + "/"):
        inside = inside.removeprefix(root)
    elif not rooted:
        raise InvalidRequest(f"{label}: must be below {root}.")
    if rooted and inside.startswith(f"/{OURS}"):
        raise InvalidRequest(f"{label}: names that begin with {OURS} are taken.")
    if inside == root or len(inside.encode()) > MAX_PATH or any(len(p.encode()) > 255 for p in inside.split("/")):
        raise InvalidRequest(f"{label}: must name something below {root}, in at most {MAX_PATH} bytes, 255 a part.")
    return root + inside


def _refuse_overlaps(paths: Sequence[str]) -> None:
    """Two at one place, or one within another, would hide or break each other."""
    for before, path in zip(ordered := sorted(path + "/" for path in paths), ordered[1:], strict=False):
        if path.startswith(before):
            raise InvalidRequest(
                f"resources: the mount paths {before.rstrip('/')} and {path.rstrip('/')} are the same, or one lies in"
                " the other."
            )
