"""Where this machine fetches packages from: what goes along into an installation, and what stays here."""

from __future__ import annotations

import subprocess
from pathlib import Path

from sandbox.docker.indexes import apt_conf, apt_sources, gather, npm_settings, pip_conf

SOURCES = """\
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/archive.gpg

Types: deb
URIs: http://mirror.example/security
Suites: bookworm-security
Components: main

Types: deb
URIs: http://tools.example/node
Suites: nodistro
Components: main

Types: deb
Enabled: no
URIs: http://switched-off.example/debian
Suites: bookworm
Components: main
"""


def test_the_sources_of_the_machines_own_release_go_along_with_its_updates(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/debian.sources").write_text(SOURCES)
    (tmp_path / "sources.list").write_text("deb [signed-by=/k] http://more.example/debian bookworm-backports main\n")
    assert apt_sources(tmp_path, "bookworm").splitlines() == [
        "deb http://mirror.example/debian bookworm main contrib",
        "deb http://mirror.example/debian bookworm-updates main contrib",
        "deb http://mirror.example/security bookworm-security main",
        "deb http://more.example/debian bookworm-backports main",
    ]
    assert apt_sources(tmp_path, "trixie") == apt_sources(tmp_path, "") == ""


def test_of_apts_configuration_goes_along_what_is_about_fetching() -> None:
    dump = "\n".join([
        'APT::Install-Recommends "1";',
        'Acquire::http::Proxy "http://cache.example:3142";',
        'Acquire::https::Proxy::mirror.example "DIRECT";',
        'Acquire::https::CaInfo "/home/me/ca.pem";',
        'Acquire::Retries "3";',
        'DPkg::Pre-Invoke:: "rm -rf /";',
    ])  # fmt: skip
    assert apt_conf(dump, authorities=True).splitlines() == [
        'Acquire::http::Proxy "http://cache.example:3142";',
        'Acquire::https::Proxy::mirror.example "DIRECT";',
        'Acquire::Retries "3";',
        'Dir::Etc::netrc "/run/skiff-build/auth.conf";',
        'Acquire::https::CaInfo "/run/skiff-build/ca.crt";',
    ]


def test_pips_indexes_go_along_and_folders_of_this_machine_do_not() -> None:
    files = (
        "[global]\nindex-url = https://old.example/simple\nextra_index_url = file:///opt/simple\n"
        "  https://more.example/simple\nfind-links = /opt/wheels\ncert = /etc/ca.pem\n",
        "[install]\nindex-url = https://me:secret@new.example/simple\n[freeze]\ntimeout = 1\n",
        "not an ini file",
    )
    assert pip_conf(files, {"PIP_TIMEOUT": "99", "PIP_TARGET": "/x"}, authorities=False).splitlines() == [
        "[global]",
        "index-url = https://me:secret@new.example/simple",
        "extra-index-url = https://more.example/simple",
        "timeout = 99",
    ]


def test_npms_registries_and_their_tokens_go_along() -> None:
    files = (
        "cafile=/etc/ca.pem\nregistry=https://old.example/\nfund=false\n",
        "; mine\n@team:registry = https://team.example/npm/\n//team.example/npm/:_authToken=${TOKEN}\n",
    )
    environ = {"TOKEN": "s3cret", "npm_config_registry": "https://new.example/"}
    assert npm_settings(files, environ) == {
        "registry": "https://new.example/",
        "@team:registry": "https://team.example/npm/",
        "//team.example/npm/:_authToken": "s3cret",
    }


def test_a_whole_machine_is_read_at_the_time_and_a_shell_takes_its_proxies_as_they_stand(tmp_path: Path) -> None:
    (tmp_path / "etc/apt/auth.conf.d").mkdir(parents=True)
    (tmp_path / "etc/apt/auth.conf.d/mirror.conf").write_text("machine mirror.example login me password secret")
    (tmp_path / "etc/os-release").write_text("VERSION_CODENAME=bookworm\n")
    (tmp_path / "ca.pem").write_bytes(b"a bundle")
    (tmp_path / ".npmrc").write_text("registry=https://npm.example/all/\n//npm.example/all/:_authToken=token\n")
    environ = {"SSL_CERT_FILE": str(tmp_path / "ca.pem"), "HTTPS_PROXY": "http://me:a'b $(id)@proxy.example:1"}
    files = gather(environ, tmp_path, tmp_path)
    assert files["codename"] == b"bookworm"
    assert files["ca.crt"] == b"a bundle"
    assert files["auth.conf"].strip() == b"machine mirror.example login me password secret"
    assert files["registry"] == b"https://npm.example/all"
    assert files["curl.conf"].decode().splitlines() == [
        'cacert = "/run/skiff-build/ca.crt"',
        'header = "Authorization: Bearer token"',
    ]
    shell = files["proxy.sh"].decode() + 'printf "%s" "$https_proxy"'
    said = subprocess.run(["sh", "-euc", shell], capture_output=True, text=True, check=True)
    assert said.stdout == environ["HTTPS_PROXY"]


def test_a_machine_without_any_configuration_needs_none(tmp_path: Path) -> None:
    files = gather({}, tmp_path, tmp_path)
    assert files["sources.list"] == files["auth.conf"] == files["proxy.sh"] == b""
    assert files["pip.conf"] == b"[global]\n"
    assert "ca.crt" not in files
