"""The live shell of a thread, through a real runner: what stays, what is kept of output, how calls end."""

from __future__ import annotations

import asyncio

import pytest

from sandbox.wire import Bash, Result
from tests.sandbox.support import ISOLATED, Hands, with_hands

isolated = pytest.mark.skipif(not ISOLATED, reason="needs root, to make the runner PID 1 of its own namespace")


def notes(result: Result) -> str:
    return " ".join(result.meta.get("notes", []))


def test_a_command_answers_with_output_of_both_streams_in_order_and_its_exit_code() -> None:
    async def story(hands: Hands) -> Result:
        return await hands.bash("echo one; echo two >&2; echo three; (exit 7)")

    result = with_hands(story)
    assert (result.ok, result.body, result.meta["exit_code"]) == (True, b"one\ntwo\nthree\n", 7)


def test_directory_variables_functions_aliases_and_jobs_live_from_call_to_call() -> None:
    async def story(hands: Hands) -> bytes:
        await hands.bash("mkdir sub; cd sub; x=5; f() { echo fn $1; }; alias hello='echo hello'")
        await hands.bash("sleep 777 >/dev/null 2>&1 & job=$!")
        return (await hands.bash('echo "$x ${PWD##*/}"; f a; hello; kill -0 $job && echo alive; echo wow!')).body

    assert with_hands(story) == b"5 sub\nfn a\nhello\nalive\nwow!\n"


def test_home_is_on_the_workspace_and_relative_paths_begin_there() -> None:
    async def story(hands: Hands) -> None:
        result = await hands.bash('cd ~ && pwd; cd "$OLDPWD" && pwd')
        assert result.body.decode().splitlines() == [f"{hands.workspace}/.home", str(hands.workspace)]

    with_hands(story)


def test_stdin_is_empty_and_no_descriptor_of_the_runner_reaches_a_command() -> None:
    async def story(hands: Hands) -> bytes:
        return (await hands.bash("cat; ls /proc/self/fd")).body

    assert with_hands(story) == b"0\n1\n2\n3\n"  # 3 is ls's own look into the folder


def test_shell_noise_about_jobs_and_signals_stays_out_of_results() -> None:
    async def story(hands: Hands) -> bytes:
        return (await hands.bash("sleep 0 & wait; sh -c 'kill -KILL $$'; echo $?")).body

    assert with_hands(story) == b"137\n"


def test_a_syntax_error_is_a_result_and_the_shell_lives() -> None:
    async def story(hands: Hands) -> Result:
        await hands.bash("x=kept")
        bad = await hands.bash("if true; then echo 'a")
        assert bad.meta["exit_code"] != 0 and b"unexpected" in bad.body
        return await hands.bash("echo $x")

    assert with_hands(story).body == b"kept\n"


def test_calls_of_one_thread_run_in_order_and_threads_do_not_wait_for_each_other() -> None:
    async def story(hands: Hands) -> None:
        first = asyncio.create_task(hands.bash("read -r line <pipe; echo first >>log"))
        await hands.bash("while [ ! -p pipe ]; do mkfifo pipe; done", thread="other")
        second = asyncio.create_task(hands.bash("echo second >>log"))
        await hands.bash("while [ ! -p pipe ]; do :; done; echo go >pipe", thread="other")
        await asyncio.gather(first, second)
        assert (await hands.bash("cat log")).body == b"first\nsecond\n"

    async def prepared(hands: Hands) -> None:
        await hands.bash("mkfifo pipe")
        await story(hands)

    with_hands(prepared)


def test_undecodable_bytes_come_back_as_they_were() -> None:
    async def story(hands: Hands) -> bytes:
        return (await hands.bash(r"printf '\000\377\n'")).body

    assert with_hands(story) == b"\x00\xff\n"


def test_long_output_is_spilled_whole_to_a_file_and_shown_by_its_ends() -> None:
    async def story(hands: Hands) -> None:
        result = await hands.bash("seq 100000")
        assert result.meta["truncated"] and result.meta["total_bytes"] == 588_895
        assert result.body.startswith(b"1\n2\n") and result.body.endswith(b"99999\n100000\n")
        path = result.meta["spilled"]
        assert path.encode() in result.body and b"588,895" in result.body and len(result.body) < 40_000
        assert (await hands.bash(f"seq 100000 | cmp - {path} && echo same")).body == b"same\n"

    with_hands(story)


def test_output_over_the_spill_bound_is_dropped_and_said() -> None:
    async def story(hands: Hands) -> None:
        result = await hands.bash("head -c 40000000 /dev/zero")
        assert result.meta["total_bytes"] == 40_000_000 and b"only its first 16,777,216 bytes" in result.body
        size = await hands.bash(f"stat -c %s {result.meta['spilled']}")
        assert size.body == b"16777216\n"

    with_hands(story)


def test_output_of_exactly_the_bound_is_whole_and_a_spill_keeps_characters_whole() -> None:
    async def story(hands: Hands) -> None:
        whole = await hands.bash("head -c 100000 /dev/zero | tr '\\0' x")
        assert whole.body == b"x" * 100_000 and "truncated" not in whole.meta
        cut = await hands.bash("printf 'x%.0s' 1; yes é | tr -d '\\n' | head -c 300000")
        cut.body.decode()

    with_hands(story)


def test_a_background_process_that_holds_the_output_does_not_hold_the_call() -> None:
    async def story(hands: Hands) -> None:
        await hands.bash("mkfifo go done")
        result = await hands.bash("(read x <go; echo late; echo over >done) & echo now")
        path = notes(result).split()[-1].rstrip(".")
        assert result.body == b"now\n" and path.endswith(".late.txt")
        after = await hands.bash("echo >go; read y <done; echo next")
        assert after.body == b"next\n"
        late = await hands.bash(f"until [ -s {path} ]; do :; done; cat {path}")
        assert late.body == b"late\n"

    with_hands(story)


@pytest.mark.parametrize(
    "command", ["while :; do :; done; touch after", "sleep 777; touch after", "wait_() { sleep 777; }; wait_"]
)
def test_a_timeout_ends_the_whole_command_and_keeps_variables_and_older_jobs(command: str) -> None:
    async def story(hands: Hands) -> None:
        await hands.bash("x=kept; sleep 888 >/dev/null 2>&1 &")
        result = await hands.bash(command, timeout_ms=300)
        assert not result.ok and result.meta["timed_out"] and result.meta["exit_code"] == 124
        assert "0.3 s" in notes(result)
        assert (await hands.bash("echo $x; ls")).body == b"kept\n"
        assert [line.strip() for line in await hands.processes() if "sleep" in line] == ["sleep 888"]

    with_hands(story)


def test_a_timeout_returns_what_was_written_before() -> None:
    async def story(hands: Hands) -> Result:
        return await hands.bash("echo before; sleep 777", timeout_ms=300)

    assert with_hands(story).body == b"before\n"


def test_a_stuck_shell_is_replaced_in_its_directory_and_the_result_says_so() -> None:
    async def story(hands: Hands) -> None:
        await hands.bash("mkdir deep; cd deep; x=lost")
        result = await hands.bash("trap '' INT TERM HUP; while :; do sleep 1; done", timeout_ms=300)
        assert result.meta["timed_out"] and f"A new one was started in {hands.workspace}/deep" in notes(result)
        assert (await hands.bash('echo "${PWD##*/} [$x]"')).body == b"deep []\n"

    with_hands(story)


@pytest.mark.parametrize(
    ("command", "code"), [("exit 3", 3), ("set -e; false", 1), ("exec sh -c 'exit 9'", 9), ("kill -9 $$", 137)]
)
def test_the_end_of_the_shell_is_a_result_and_a_new_one_stands_in_the_same_directory(command: str, code: int) -> None:
    async def story(hands: Hands) -> None:
        await hands.bash("mkdir here; cd here; sleep 888 >/dev/null 2>&1 & until pgrep -x sleep; do :; done")
        result = await hands.bash(command)
        assert result.ok and result.meta["exit_code"] == code and "A new one was started in" in notes(result)
        assert (await hands.bash('echo "${PWD##*/}"; pgrep -c sleep')).body == b"here\n1\n"

    with_hands(story)


def test_restart_gives_a_fresh_shell_in_the_workspace_without_the_old_jobs() -> None:
    async def story(hands: Hands) -> None:
        await hands.bash("cd /; x=old; sleep 888 >/dev/null 2>&1 &")
        alone = await hands.do(Bash(restart=True))
        assert alone.ok and "restarted" in notes(alone)
        both = await hands.do(Bash("echo [$x] $PWD", restart=True))
        assert both.body.decode() == f"[] {hands.workspace}\n" and "restarted" in notes(both)
        assert not [line for line in await hands.processes() if "sleep" in line]

    with_hands(story)


def test_cancel_stops_a_running_call_and_removes_a_waiting_one() -> None:
    async def story(hands: Hands) -> None:
        running = hands.new_call(Bash("x=kept; echo started; sleep 777"))
        waiting = hands.new_call(Bash("touch never"))
        started = asyncio.Event()
        first = asyncio.create_task(hands.channel.call(running, lambda _data: started.set()))
        second = asyncio.create_task(hands.channel.call(waiting))
        await started.wait()
        await hands.channel.cancel(waiting.op_id)
        assert (await second).meta["cancelled"]
        await hands.channel.cancel(running.op_id)
        result = await first
        assert not result.ok and result.meta["cancelled"] and result.body == b"started\n"
        assert (await hands.bash("echo $x; ls")).body == b"kept\n"

    with_hands(story)


@pytest.mark.parametrize(
    ("operation", "why"),
    [
        (Bash(), "command is required"),
        (Bash("echo a\0b"), "NUL"),
        (Bash("true", timeout_ms=5001), "more than the allowed 5000"),
        (Bash("true", timeout_ms=-1), "timeout_ms must be"),
        (Bash("true", timeout_ms="1"), "timeout_ms must be"),  # type: ignore[arg-type]
        (Bash(["true"]), "command must be text"),  # type: ignore[arg-type]
    ],
)
def test_a_call_that_cannot_be_obeyed_is_refused_in_words(operation: Bash, why: str) -> None:
    async def story(hands: Hands) -> Result:
        return await hands.do(operation)

    result = with_hands(story, "--max-timeout-ms", "5000")
    assert not result.ok and why in result.body.decode()


DOUBLE_FORK = """python3 -c "
import os
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
os.closerange(0, 64)
os.execve('/bin/sleep', ['sleep', '777'], {})
" """

KILL_MATRIX = {
    "background and wait": "sleep 777 & sleep 777 & wait",
    "setsid and nohup": "setsid nohup sleep 777 >/dev/null 2>&1 & sleep 777",
    "double fork, environment cleared": DOUBLE_FORK + "; sleep 777",
    "ignores signals": "trap '' TERM INT HUP; while :; do sleep 1; done",
    "a child ignores signals": "sh -c \"trap '' TERM INT HUP; while :; do sleep 1; done\"; touch after",
    "stopped child": "sleep 777 & kill -STOP $!; sleep 777",
    "stopped shell": "kill -STOP $$",
    "stopped supervisor": "kill -STOP $PPID; sleep 777",
    "fork bomb": "f(){ f|f& }; f; sleep 777",
    "fork bomb with setsid": 'f(){ setsid bash -c "$(declare -f f); f" & f & }; f; sleep 777',
    "kills its supervisor": "setsid sleep 778 & kill -9 $PPID; sleep 777",
    "kills everything": "kill -9 -1; sleep 777",
}


@isolated
@pytest.mark.parametrize("command", KILL_MATRIX.values(), ids=KILL_MATRIX.keys())
def test_whatever_a_command_starts_is_gone_afterwards_and_the_shell_is_usable(command: str) -> None:
    async def story(hands: Hands) -> None:
        result = await hands.bash(command, timeout_ms=700)
        assert result.meta["exit_code"] in (124, 137)
        alive = await hands.bash("echo usable; ls")
        assert alive.body == b"usable\n"
        assert await hands.processes() == []

    with_hands(story)


@isolated
def test_losing_one_supervisor_leaves_other_threads_alone() -> None:
    async def story(hands: Hands) -> None:
        await hands.bash("x=other; sleep 888 >/dev/null 2>&1 &", thread="other")
        lost = await hands.bash("setsid sleep 777 & kill -9 $PPID; sleep 777")
        assert "were killed" in notes(lost)
        assert (await hands.bash("echo $x; pgrep -c sleep", thread="other")).body == b"other\n1\n"

    with_hands(story)


@isolated
def test_nothing_inside_can_signal_or_look_into_the_runner() -> None:
    async def story(hands: Hands) -> None:
        await hands.bash("for s in 1 2 9 10 12 13 14 15 17 19; do kill -$s 1; done")
        looks = await hands.bash("cat /proc/1/environ; ls /proc/1/fd; head -c 1 /proc/1/mem")
        assert looks.body.count(b"ermission denied") == 3
        await hands.channel.ping()

    with_hands(story)


@isolated
def test_orphans_are_reaped() -> None:
    async def story(hands: Hands) -> bytes:
        await hands.bash("for i in 1 2 3 4 5; do (setsid sh -c 'true' &) ; done; kill -9 $PPID")
        return (await hands.bash("grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l")).body

    assert with_hands(story) == b"0\n"
