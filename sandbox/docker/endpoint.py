"""Where the container engine listens, as the `docker` command on this machine would find it.

Above: `engine` (docker-py) and `attach` (raw streams), which both dial what is decided here. Below: environment
variables and the files of the docker command's configuration. It opens no connection.
"""

from __future__ import annotations

import hashlib
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from sandbox.errors import SandboxUnavailable

DEFAULT_SOCKET = "/var/run/docker.sock"


@dataclass(frozen=True)
class Tls:
    """Client certificate files of a TLS engine; `verify` False accepts any server, as the context said."""

    ca: str | None
    cert: str | None
    key: str | None
    verify: bool = True

    def context(self) -> ssl.SSLContext:
        """An SSL context that dials with these files. Raises OSError or ssl.SSLError for unreadable ones."""
        context = ssl.create_default_context(cafile=self.ca)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.cert:
            context.load_cert_chain(self.cert, self.key)
        return context


@dataclass(frozen=True)
class Endpoint:
    """One engine: a unix socket's path, or a host and port. `source` says in words where it was found."""

    socket: str = ""
    host: str = ""
    port: int = 0
    tls: Tls | None = None
    source: str = ""

    @property
    def url(self) -> str:
        """The address as docker-py takes it."""
        if self.socket:
            return f"unix://{self.socket}"
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"


def resolve(environ: Mapping[str, str], home: Path) -> Endpoint:
    """The engine that the `docker` command would use: DOCKER_HOST, else the named or current context, else the
    default socket (on a desktop without it, the one in the home folder).

    Raises SandboxUnavailable for an address that Skiff cannot dial (ssh://, npipe://) or a broken configuration.
    """
    if environ.get("DOCKER_HOST"):
        return _parse(environ["DOCKER_HOST"], _environment_tls(environ, home), "DOCKER_HOST")
    config = Path(environ.get("DOCKER_CONFIG") or home / ".docker")
    name = environ.get("DOCKER_CONTEXT") or _current_context(config)
    if name and name != "default":
        return _context(config, name)
    desktop = home / ".docker" / "run" / "docker.sock"
    path = str(desktop) if not Path(DEFAULT_SOCKET).exists() and desktop.exists() else DEFAULT_SOCKET
    return Endpoint(socket=path, source="default socket")


def _environment_tls(environ: Mapping[str, str], home: Path) -> Tls | None:
    verify = bool(environ.get("DOCKER_TLS_VERIFY"))
    if not verify and not environ.get("DOCKER_CERT_PATH"):
        return None
    return _tls_folder(Path(environ.get("DOCKER_CERT_PATH") or home / ".docker"), verify)


def _tls_folder(folder: Path, verify: bool) -> Tls:
    def file(name: str) -> str | None:
        return str(folder / name) if (folder / name).exists() else None

    return Tls(file("ca.pem"), file("cert.pem"), file("key.pem"), verify)


def _current_context(config: Path) -> str:
    try:
        data = json.loads((config / "config.json").read_text())
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise SandboxUnavailable(
            f"cannot read {config / 'config.json'}: {error}; repair it or set DOCKER_HOST"
        ) from None
    return str(data.get("currentContext", "")) if isinstance(data, dict) else ""


def _context(config: Path, name: str) -> Endpoint:
    digest = hashlib.sha256(name.encode()).hexdigest()
    try:
        meta = json.loads((config / "contexts" / "meta" / digest / "meta.json").read_text())
        docker = meta["Endpoints"]["docker"]
        host = str(docker["Host"])
    except (OSError, ValueError, KeyError, TypeError):
        raise SandboxUnavailable(
            f"docker context {name!r} cannot be read; choose another with `docker context use`, or set DOCKER_HOST"
        ) from None
    folder = config / "contexts" / "tls" / digest / "docker"
    tls = _tls_folder(folder, not docker.get("SkipTLSVerify")) if folder.is_dir() else None
    return _parse(host, tls, f"docker context {name!r}")


def _parse(address: str, tls: Tls | None, source: str) -> Endpoint:
    parts = urlsplit(address)
    if parts.scheme == "unix":
        return Endpoint(socket=parts.path or DEFAULT_SOCKET, source=source)
    if parts.scheme in ("tcp", "http", "https") and parts.hostname:
        if parts.scheme == "https" and tls is None:
            tls = Tls(None, None, None)
        return Endpoint(host=parts.hostname, port=parts.port or (2376 if tls else 2375), tls=tls, source=source)
    raise SandboxUnavailable(
        f"{source} names {address!r}, which Skiff cannot dial; use a unix:// or tcp:// address "
        "(for ssh, forward the engine's socket and set DOCKER_HOST to it)"
    )
