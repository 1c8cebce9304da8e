"""Where this machine's package managers fetch from, as files for the one container that installs an image's packages.

Above: `install`, which puts them on a volume of that container; the image never holds them. Below: the configuration
of apt, pip and npm and the proxy variables, read when they are needed. A mirror of a company works unchanged, and so do
the credentials for it. What only this machine has (folders as indexes, certificates by path) is left out, but for the
bundle of certificate authorities, which goes along. It knows no engine and no image.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from shlex import quote
from urllib.parse import urlsplit

from sandbox.docker.base import codename, sources

FOLDER = "/run/skiff-build"
"""Where `sandbox/image/packages.sh` finds these files."""

_AUTHORITIES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
_BUNDLES = ("etc/ssl/certs/ca-certificates.crt", "etc/pki/tls/certs/ca-bundle.crt", "etc/ssl/cert.pem")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_APT = re.compile(
    r"Acquire::(?:https?::(?:Proxy(?:::[^ ]+)?|Timeout|Pipeline-Depth|No-Cache|Verify-Peer|Verify-Host)"
    r'|Retries|Check-Valid-Until|Check-Date|ForceIPv[46]) ".*";'
)
_PIP_INDEXES = ("index-url", "extra-index-url", "find-links")
_PIP = (*_PIP_INDEXES, "trusted-host", "proxy", "timeout", "default-timeout", "retries")
_NPM = re.compile(r"(?:registry|@[^:]+:registry|//.+|proxy|https-proxy|noproxy|strict-ssl|always-auth|fetch-[a-z-]+)")
_ASK_SECONDS = 20.0
"""For a package manager to say its configuration: milliseconds, for npm a good half second."""


def gather(environ: Mapping[str, str], home: Path, root: Path = Path("/")) -> dict[str, bytes]:
    """File name -> content. A configuration that this process may not read is one that is not there."""
    authorities = _authorities(environ, root)
    found = {
        "proxy.sh": _proxies(environ),
        "codename": codename(root / "etc/os-release"),
        "sources.list": apt_sources(root / "etc/apt", codename(root / "etc/os-release")),
        "apt.conf": apt_conf(_said("apt-config", "dump"), bool(authorities)),
        "auth.conf": "\n".join(map(_text, [root / "etc/apt/auth.conf", *_below(root / "etc/apt/auth.conf.d")])),
        "pip.conf": pip_conf([_text(path) for path in _pip_files(environ, home, root)], environ, bool(authorities)),
    }
    npm = npm_settings([_text(path) for path in _npm_files(home, root)], environ)
    registry = (npm.get("registry") or _said("npm", "config", "get", "registry").strip()).rstrip("/")
    found["registry"] = registry
    found["npmrc"] = _lines(npm, "=") + (f"cafile={FOLDER}/ca.crt\n" if authorities else "")
    found["curl.conf"] = _curl(npm, registry, bool(authorities))
    files = {name: text.encode() for name, text in found.items()}
    return {**files, "ca.crt": authorities} if authorities else files


def apt_sources(apt: Path, release: str) -> str:
    """The sources of this machine's own release, with its updates, in the one-line form; "" where it has none.

    Keyrings are left out: an image of the same release has the archive's own.
    """
    lines = [
        f"deb {address} {suite} {' '.join(source.components)}\n"
        for source in (sources(apt) if release else ())
        for address in source.addresses
        for suite in source.suites
        if suite == release or suite.startswith(f"{release}-")
    ]
    return "".join(dict.fromkeys(lines))


def apt_conf(dump: str, authorities: bool) -> str:
    """What of `apt-config dump` is about fetching, and where the credentials are."""
    lines = [line for line in dump.splitlines() if _APT.fullmatch(line)]
    lines.append(f'Dir::Etc::netrc "{FOLDER}/auth.conf";')
    if authorities:
        lines.append(f'Acquire::https::CaInfo "{FOLDER}/ca.crt";')
    return "\n".join([*lines, ""])


def pip_conf(files: Sequence[str], environ: Mapping[str, str], authorities: bool) -> str:
    """The indexes that pip uses here, without folders. Later files win, variables win over files."""
    found: dict[str, str] = {}
    for text in files:
        parser = configparser.RawConfigParser()
        try:
            parser.read_string(text)
        except configparser.Error:
            continue  # pip itself would complain; an installation without this file may yet succeed
        for section in ("global", "install"):
            if parser.has_section(section):
                found |= {key.replace("_", "-"): value for key, value in parser.items(section)}
    found |= {key: environ[name] for key in _PIP if (name := f"PIP_{key.upper().replace('-', '_')}") in environ}
    for key in _PIP_INDEXES:
        distant = [word for word in found.get(key, "").split() if word.startswith(("http://", "https://"))]
        found[key] = "\n    ".join(distant)
    kept = {key: found[key] for key in _PIP if found.get(key)}
    return "[global]\n" + _lines(kept, " = ") + (f"cert = {FOLDER}/ca.crt\n" if authorities else "")


def npm_settings(files: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """What of npm's files is about fetching, `${VARIABLES}` put in; later files win, variables win over files."""
    found: dict[str, str] = {}
    for line in (line.strip() for text in files for line in text.splitlines()):
        key, equals, value = (part.strip() for part in line.partition("="))
        if equals and _NPM.fullmatch(key):
            found[key] = re.sub(r"\$\{(\w+)\}", lambda match: environ.get(match[1], ""), value).strip("\"'")
    variables = {name.lower(): value for name, value in environ.items()}
    for key in ("registry", "proxy", "https-proxy", "noproxy"):
        if given := variables.get(f"npm_config_{key.replace('-', '_')}"):
            found[key] = given
    return found


def _authorities(environ: Mapping[str, str], root: Path) -> bytes:
    named = [Path(environ[name]) for name in _AUTHORITIES if environ.get(name)]
    for path in (*named, *(root / bundle for bundle in _BUNDLES)):
        try:
            return path.read_bytes()
        except OSError:
            continue
    return b""


def _proxies(environ: Mapping[str, str]) -> str:
    given = {name: environ.get(name) or environ.get(name.upper()) for name in _PROXIES}
    return "".join(
        f"export {name}={quote(value)} {name.upper()}={quote(value)}\n" for name, value in given.items() if value
    )


def _curl(npm: Mapping[str, str], registry: str, authorities: bool) -> str:
    """For the one file that is fetched before there is an npm: npm itself."""
    lines = [f'cacert = "{FOLDER}/ca.crt"'] if authorities else []
    place = urlsplit(registry)
    token = npm.get(f"//{place.netloc}{place.path}/:_authToken")
    if token:
        lines.append(f'header = "Authorization: Bearer {token}"')
    return "\n".join([*lines, ""])


def _said(program: str, *arguments: str) -> str:
    """What a package manager of this machine says; "" where it is not there, or does not know."""
    path = shutil.which(program)
    if path is None:
        return ""
    try:
        done = subprocess.run(
            [path, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=_ASK_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace")


def _pip_files(environ: Mapping[str, str], home: Path, root: Path) -> Iterator[Path]:
    yield from (root / "etc/xdg/pip/pip.conf", root / "etc/pip.conf")
    yield from (home / ".pip/pip.conf", Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip/pip.conf")
    yield home / "Library/Application Support/pip/pip.conf"
    if environ.get("PIP_CONFIG_FILE"):
        yield Path(environ["PIP_CONFIG_FILE"])


def _npm_files(home: Path, root: Path) -> Iterator[Path]:
    yield from (root / folder / "etc/npmrc" for folder in ("", "usr", "usr/local", "opt/homebrew"))
    yield home / ".npmrc"


def _below(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.conf")) if os.access(folder, os.R_OK) else []


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _lines(settings: Mapping[str, str], between: str) -> str:
    return "".join(f"{key}{between}{value}\n" for key, value in settings.items())
