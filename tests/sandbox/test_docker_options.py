"""What a container is asked for. The golden value is written out, so that no hardening can be lost in silence."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sandbox.docker.labels import object_name, session_volume, spec_hash
from sandbox.docker.options import Placement, create_options, packing_options
from sandbox.errors import SpecRefused
from sandbox.protocol import NetworkPolicy, SandboxSpec
from sandbox.seccomp import docker_profile

PLACE = Placement(installation="inst-1", slot="sesn_1", image="skiff-sandbox:abc", runner="0123456789ab")
SPEC = SandboxSpec(cpus=1.5, memory_mb=512, disk_mb=100, pids=256)


def test_every_hardening_is_asked_for() -> None:
    options = create_options(SPEC, PLACE)
    security = options["HostConfig"].pop("SecurityOpt")
    volume = {"dev.skiff.installation": "inst-1", "dev.skiff.slot": "sesn_1"}
    assert options == {
        "Image": "skiff-sandbox:abc",
        "Entrypoint": ["python3", "-I", "-S", "/opt/skiff/sandbox/runner"],
        "Cmd": [],
        "User": "1000:1000",
        "WorkingDir": "/workspace",
        "Hostname": "skiff",
        "Env": [],
        "Labels": {**volume, "dev.skiff.spec": spec_hash(SPEC), "dev.skiff.runner": "0123456789ab"},
        "OpenStdin": True,
        "StdinOnce": False,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "Tty": False,
        "StopSignal": "SIGKILL",
        "StopTimeout": 0,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "NetworkMode": "none",
            "IpcMode": "private",
            "Privileged": False,
            "Init": False,
            "CapDrop": ["ALL"],
            "ReadonlyRootfs": True,
            "Tmpfs": {"/tmp": f"rw,nosuid,nodev,exec,size={256 << 20},mode=1777"},
            "Mounts": [
                {
                    "Type": "volume",
                    "Source": object_name("inst-1", "sesn_1"),
                    "Target": "/workspace",
                    "VolumeOptions": {"Labels": volume},
                },
                {
                    "Type": "volume",
                    "Source": session_volume("inst-1", "sesn_1"),
                    "Target": "/mnt/session",
                    "VolumeOptions": {"Labels": volume},
                },
            ],
            "Memory": 512 << 20,
            "MemorySwap": 512 << 20,
            "NanoCpus": 1_500_000_000,
            "PidsLimit": 256,
            "ShmSize": 64 << 20,
            "Ulimits": [
                {"Name": "nofile", "Soft": 1024, "Hard": 4096},
                {"Name": "core", "Soft": 0, "Hard": 0},
                {"Name": "fsize", "Soft": 100 << 20, "Hard": 100 << 20},
            ],
            "LogConfig": {"Type": "none", "Config": {}},
            "RestartPolicy": {"Name": "no"},
            "AutoRemove": False,
        },
    }
    assert security[0] == "no-new-privileges"
    assert json.loads(security[1].removeprefix("seccomp=")) == docker_profile()
    assert len(security) == 2


def test_a_container_that_packs_can_read_all_and_write_nothing_and_one_that_unpacks_is_the_agent() -> None:
    usual = create_options(SPEC, PLACE)
    pack, unpack = (packing_options(SPEC, PLACE, "packing-1", verb) for verb in ("pack", "unpack"))
    assert (pack["User"], pack["Cmd"], pack["HostConfig"].pop("CapAdd")) == ("0:0", ["--pack"], ["DAC_OVERRIDE"])
    assert (unpack["User"], unpack["Cmd"]) == ("1000:1000", ["--unpack"])
    for options in (pack, unpack):
        assert (options["StdinOnce"], options["Labels"]["dev.skiff.slot"]) == (True, "packing-1")
        mounts = options["HostConfig"].pop("Mounts")
        assert all(mount.pop("ReadOnly", False) == (options is pack) for mount in mounts)
        assert mounts == usual["HostConfig"]["Mounts"], "the volumes are the session's, under its labels"
        assert {**usual["HostConfig"], **options["HostConfig"], "Tmpfs": 0} == {**usual["HostConfig"], "Tmpfs": 0}


@pytest.mark.parametrize("mode", ["limited", "unrestricted"])
def test_an_opened_network_changes_the_runner_and_never_the_network_mode(mode: str) -> None:
    policy = NetworkPolicy(mode, ("example.org",))  # type: ignore[arg-type]
    options = create_options(replace(SPEC, network=policy), PLACE)
    assert options["Cmd"] == ["--net"]
    assert "https_proxy=http://127.0.0.1:3128" in options["Env"]
    assert options["HostConfig"]["NetworkMode"] == "none"


@pytest.mark.parametrize("wrong", [{"memory_mb": 8}, {"pids": 1}, {"disk_mb": 0}, {"cpus": 0.0}])
def test_a_limit_too_small_to_work_with_is_refused_by_name(wrong: dict[str, float]) -> None:
    with pytest.raises(SpecRefused, match=next(iter(wrong))):
        create_options(replace(SPEC, **wrong), PLACE)  # type: ignore[arg-type]


@pytest.mark.parametrize("slot", ["", "../x", "a b", "-a", "x" * 97])
def test_a_slot_that_is_no_name_is_refused(slot: str) -> None:
    with pytest.raises(SpecRefused, match="slot"):
        object_name("inst", slot)


def test_two_installations_never_share_a_name() -> None:
    assert object_name("one", "sesn_1") != object_name("two", "sesn_1")


def test_equal_specifications_have_equal_hashes_and_others_do_not() -> None:
    assert spec_hash(SPEC) == spec_hash(replace(SPEC))
    assert spec_hash(SPEC) != spec_hash(replace(SPEC, network=NetworkPolicy("limited", ("example.org",))))
