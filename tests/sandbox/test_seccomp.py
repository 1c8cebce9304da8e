"""The filter in both renderings: what it forbids fails, what programs need works."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from sandbox.errors import SandboxUnavailable
from sandbox.local.host import find_host
from sandbox.seccomp import (
    ABSENT,
    ALLOWED,
    CONDITIONAL,
    TIOCLINUX,
    TIOCSTI,
    _all_but,
    bpf_program,
    docker_profile,
)
from sandbox.syscalls import NEWEST, numbers

EPERM, ENOSYS = 1, 38

NAMES = {
    "bpf": 321,
    "io_uring_setup": 425,
    "keyctl": 250,
    "mount": 165,
    "perf_event_open": 298,
    "ptrace": 101,
    "setns": 308,
    "unshare": 272,
    "userfaultfd": 323,
}


def evaluate(program: bytes, number: int, arguments: tuple[int, ...] = (), arch: int = 0xC000003E) -> int:
    """A little classic BPF machine: what the kernel would answer for a call."""
    data = struct.pack("<iIQ6Q", number, arch, 0, *(*arguments, *(0,) * (6 - len(arguments))))
    steps = list(struct.iter_unpack("<HBBI", program))
    accumulator = position = 0
    while True:
        code, if_true, if_false, constant = steps[position]
        position += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, constant)
        elif code == 0x54:
            accumulator &= constant
        elif code == 0x15:
            position += if_true if accumulator == constant else if_false
        elif code == 0x35:
            position += if_true if accumulator >= constant else if_false
        else:
            assert code == 0x06
            return int(constant)


ALLOW, KILL, FAIL = 0x7FFF0000, 0x80000000, 0x00050000


@pytest.mark.parametrize(("machine", "arch"), [("x86_64", 0xC000003E), ("aarch64", 0xC00000B7)])
def test_every_call_gets_the_verdict_that_the_list_gives_it(machine: str, arch: int) -> None:
    program, table = bpf_program(machine), numbers(machine)
    named = {number: name for name, number in table.items()}
    for number in range(NEWEST + 3):
        name = named.get(number, "")
        if name in CONDITIONAL:
            continue
        newer = number > NEWEST or name in ABSENT.split()
        expected = ALLOW if name in ALLOWED else FAIL | (ENOSYS if newer else EPERM)
        assert evaluate(program, number, arch=arch) == expected, (number, name)


def test_calls_of_another_architecture_are_killed_and_x32_calls_do_not_exist() -> None:
    program = bpf_program("x86_64")
    assert evaluate(program, 20, arch=0x40000003) == KILL
    assert evaluate(program, 0x40000000 + 39) == FAIL | ENOSYS


@pytest.mark.parametrize(
    ("name", "arguments", "allowed"),
    [
        ("socket", (1, 1, 0), True),
        ("socket", (2, 1, 0), True),
        ("socket", (10, 2, 0), True),
        ("socket", (16, 3, 0), True),
        ("socket", (16, 3, 12), False),
        ("socket", (17, 3, 0), False),
        ("socket", (40, 1, 0), False),
        ("clone", (0x003D0F00,), True),
        ("clone", (0x10000011,), False),
        ("clone", (0x00020011,), False),
        ("ioctl", (0, TIOCSTI), False),
        ("ioctl", (0, TIOCSTI | 1 << 40), False),
        ("ioctl", (0, TIOCLINUX), False),
        ("ioctl", (0, 0x5410), True),
        ("personality", (0xFFFFFFFF,), True),
        ("personality", (0x0040000,), False),
    ],
)
def test_conditions_look_at_the_arguments(name: str, arguments: tuple[int, ...], allowed: bool) -> None:
    verdict = evaluate(bpf_program("x86_64"), numbers("x86_64")[name], arguments)
    assert verdict == (ALLOW if allowed else FAIL | EPERM)


def test_all_but_covers_every_number_once_except_the_given_ones() -> None:
    pairs = list(_all_but((TIOCSTI, TIOCLINUX), 31, 0, 0))
    for number in (*range(0x5400, 0x5430), 0, 0xFFFFFFFF, TIOCSTI | 1 << 31):
        assert sum(number & mask == value for mask, value in pairs) == (number not in (TIOCSTI, TIOCLINUX))


def test_the_engine_profile_is_an_allow_list_in_json() -> None:
    profile = docker_profile()
    assert json.loads(json.dumps(profile)) == profile
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    rules = profile["syscalls"]
    assert isinstance(rules, list)
    free = {
        name for rule in rules if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule for name in rule["names"]
    }
    assert free == set(ALLOWED)
    assert not free & {*NAMES, "clone", "socket", "ioctl", "personality", "process_vm_writev", "kexec_load", "chroot"}


def test_an_unknown_machine_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="riscv64"):
        bpf_program("riscv64")


# --- under bubblewrap, in the kernel ---------------------------------------------------------------------------------

TOOLS = {
    "git": "git init -q r && git -C r -c user.name=a -c user.email=a@b commit -q --allow-empty -m x && git -C r log",
    "python3": "python3 -c 'import multiprocessing as m, asyncio, threading; print(m.Pool(2).map(abs, [-1]))'",
    "node": 'node -e \'require("os").networkInterfaces(); console.log(require("child_process").execSync("echo x"))\'',
    "gcc": "echo 'int main(){return 0;}' > a.c && gcc a.c -o a && ./a",
    "mkfifo": "mkfifo f",
}


def inside(tmp_path: Path, script: str) -> subprocess.CompletedProcess[str]:
    try:
        bwrap = find_host().bwrap
    except SandboxUnavailable as error:
        pytest.skip(f"NO BUBBLEWRAP HERE, THE FILTER IS NOT TRIED IN THE KERNEL: {error}")
    (tmp_path / "filter").write_bytes(bpf_program(os.uname().machine))
    with (tmp_path / "filter").open("rb") as program:
        options = ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--chdir", "/tmp"]
        command = [str(bwrap), *options, "--unshare-all", "--seccomp", str(program.fileno()), "bash", "-c", script]
        return subprocess.run(command, pass_fds=(program.fileno(),), capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("tool", TOOLS)
def test_the_usual_programs_work_under_the_filter(tool: str, tmp_path: Path) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"no {tool} on this machine")
    ended = inside(tmp_path, TOOLS[tool])
    assert ended.returncode == 0, ended.stderr


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the numbers below are those of x86_64")
def test_the_kernel_refuses_what_the_list_leaves_out(tmp_path: Path) -> None:
    script = (
        "import ctypes; l = ctypes.CDLL(None, use_errno=True)\n"
        f"for n in {sorted(NAMES.values())}: print(n, l.syscall(n, 0, 0, 0, 0, 0), ctypes.get_errno())"
    )
    ended = inside(tmp_path, f"{find_host().python} -I -S -c '{script}'")
    expected = [f"{n} -1 {ENOSYS if n == NAMES['io_uring_setup'] else EPERM}" for n in sorted(NAMES.values())]
    assert ended.stdout.splitlines() == expected, ended.stderr
