"""The election, with real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from server.engine.lock import EngineLock

HOLD = """
import sys
from pathlib import Path
from server.engine.lock import EngineLock
lock = EngineLock(Path(sys.argv[1]))
print(lock.try_take(), flush=True)
sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def test_one_process_holds_the_lock_and_its_violent_death_frees_it(tmp_path: Path) -> None:
    with holder(tmp_path / "lock") as process:
        lock = EngineLock(tmp_path / "lock")
        assert not lock.try_take()
        process.kill()
        process.wait()
        assert lock.try_take()
        lock.release()


def test_the_holder_may_ask_again_and_a_release_lets_the_next_one_in(tmp_path: Path) -> None:
    one, other = EngineLock(tmp_path / "lock"), EngineLock(tmp_path / "lock")
    assert one.try_take()
    assert one.try_take()
    assert not other.try_take()
    one.release()
    one.release()
    assert other.try_take()
    other.release()


def test_the_lock_file_is_its_owners_alone(tmp_path: Path) -> None:
    lock = EngineLock(tmp_path / "lock")
    lock.try_take()
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
    lock.release()
