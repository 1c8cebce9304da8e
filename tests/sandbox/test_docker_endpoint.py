"""Which engine is meant: the same that the `docker` command would use."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from sandbox.docker.endpoint import resolve
from sandbox.errors import SandboxUnavailable


def context(home: Path, name: str, host: str, tls: bool = False) -> None:
    digest = hashlib.sha256(name.encode()).hexdigest()
    meta = home / ".docker" / "contexts" / "meta" / digest
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host}}}))
    if tls:
        folder = home / ".docker" / "contexts" / "tls" / digest / "docker"
        folder.mkdir(parents=True)
        (folder / "ca.pem").write_text("")


def test_docker_host_comes_first(tmp_path: Path) -> None:
    context(tmp_path, "colima", "unix:///colima.sock")
    environ = {"DOCKER_HOST": "unix:///run/other.sock", "DOCKER_CONTEXT": "colima"}
    assert resolve(environ, tmp_path).socket == "/run/other.sock"


def test_the_current_context_of_a_desktop_is_followed(tmp_path: Path) -> None:
    context(tmp_path, "desktop-linux", "unix:///home/me/.docker/run/docker.sock")
    (tmp_path / ".docker" / "config.json").write_text('{"currentContext": "desktop-linux"}')
    assert resolve({}, tmp_path).socket == "/home/me/.docker/run/docker.sock"


def test_a_context_keeps_its_tls_files(tmp_path: Path) -> None:
    context(tmp_path, "remote", "tcp://engine.example:2376", tls=True)
    found = resolve({"DOCKER_CONTEXT": "remote"}, tmp_path)
    assert (found.host, found.port, found.url) == ("engine.example", 2376, "https://engine.example:2376")
    assert found.tls is not None
    assert found.tls.ca is not None
    assert found.tls.cert is None


def test_plain_tcp_has_the_customary_port(tmp_path: Path) -> None:
    assert resolve({"DOCKER_HOST": "tcp://10.0.0.1"}, tmp_path).url == "http://10.0.0.1:2375"


@pytest.mark.parametrize("address", ["ssh://me@there", "npipe:////./pipe/docker", "nonsense"])
def test_an_address_that_cannot_be_dialled_is_named(address: str, tmp_path: Path) -> None:
    with pytest.raises(SandboxUnavailable, match="DOCKER_HOST names"):
        resolve({"DOCKER_HOST": address}, tmp_path)


def test_a_lost_context_is_named(tmp_path: Path) -> None:
    with pytest.raises(SandboxUnavailable, match="'gone'"):
        resolve({"DOCKER_CONTEXT": "gone"}, tmp_path)


def test_without_any_choice_the_default_socket_is_used(tmp_path: Path) -> None:
    assert resolve({}, tmp_path).source == "default socket"
