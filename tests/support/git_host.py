"""A host of git repositories over real HTTP: git's own `http-backend` behind a door that asks for credentials.

Above: tests of repositories. Below: git. `/<owner>/<name>` is a repository below a folder; those of the owner `private`
ask for a token, those of `closed` refuse everybody.
"""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TOKEN = "ghp_the_token_that_must_stay_outside"


@dataclass
class GitHost:
    """The host, and the paths that were asked of it."""

    folder: Path
    port: int = 0
    asked: list[str] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)
    """Repositories that have gone elsewhere, by name."""
    slow: bool = False
    """Let every request wait until its client has lost patience."""
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def repository(self, name: str, files: dict[str, str], branch: str = "main") -> str:
        """Make a repository `owner/name` with one commit; a second call adds a branch. Returns the commit's id."""
        bare = self.folder / name
        work = self.folder / f".work-{name.replace('/', '-')}"
        if not bare.exists():
            git("init", "-q", "--bare", "-b", branch, str(bare))
            git("init", "-q", "-b", branch, str(work))
            git("-C", str(work), "remote", "add", "origin", str(bare))
        else:
            git("-C", str(work), "checkout", "-q", "-b", branch)
        for path, text in files.items():
            (work / path).parent.mkdir(parents=True, exist_ok=True)
            (work / path).write_text(text)
        git("-C", str(work), "add", "-A")
        git("-C", str(work), "commit", "-q", "-m", "a commit")
        git("-C", str(work), "push", "-q", "origin", branch)
        return git("-C", str(work), "rev-parse", "HEAD")


def git(*arguments: str) -> str:
    """What git says; with an identity of its own and nobody's configuration."""
    who = {f"GIT_{role}_{what}": f"a@{role}" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", **who}
    return subprocess.run(
        ["git", *arguments], env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


@contextmanager
def git_host(folder: Path) -> Iterator[GitHost]:
    """Serve the repositories below a folder for the length of the block."""
    host = GitHost(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _serve(host, self)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    host.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield host
    finally:
        host.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _serve(host: GitHost, request: BaseHTTPRequestHandler) -> None:
    path, _, query = request.path.partition("?")
    owner = path.split("/")[1]
    host.asked.append(path)
    if host.slow:
        host.over.wait(3)
    name, _, rest = path[1:].partition("/info/")
    if name in host.moved:
        request.send_response(301)
        request.send_header("location", f"{host.moved[name]}/info/{rest}?{query}")
        request.send_header("content-length", "0")
        request.end_headers()
        return
    wanted = "Basic " + base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
    if owner == "closed":
        request.send_error(403)
    elif owner == "private" and request.headers.get("authorization") != wanted:
        request.send_response(401)
        request.send_header("www-authenticate", "Basic")
        request.send_header("content-length", "0")
        request.end_headers()
    else:
        _backend(host, request, path, query)


def _backend(host: GitHost, request: BaseHTTPRequestHandler, path: str, query: str) -> None:
    body = request.rfile.read(int(request.headers.get("content-length") or 0))
    environment = {
        "PATH": os.environ["PATH"],
        "GIT_PROJECT_ROOT": str(host.folder),
        "GIT_HTTP_EXPORT_ALL": "1",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "REQUEST_METHOD": request.command,
        "CONTENT_TYPE": request.headers.get("content-type", ""),
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_CONTENT_ENCODING": request.headers.get("content-encoding", ""),
        "GIT_PROTOCOL": request.headers.get("git-protocol", ""),
    }
    done = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True)
    head, _, answer = done.stdout.partition(b"\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
    request.send_response(int(fields.pop("Status", "200").split()[0]))
    for name, value in fields.items():
        request.send_header(name, value)
    request.send_header("content-length", str(len(answer)))
    request.end_headers()
    request.wfile.write(answer)
