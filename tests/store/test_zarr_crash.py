"""A writer that is killed loses at most the batch it was in."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("crash_points.py")


# A step of 1 tries every call, in a minute; these take seconds.
@pytest.mark.parametrize(("step", "compression"), [(3, []), (5, ["zstd"])])
def test_killed_at_any_system_call(tmp_path: Path, step: int, compression: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), str(step), *compression],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 5


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """kill -9 from outside, again and again; then the run is written to its end."""
    path = tmp_path / "run.zarr"
    random.seed(0)
    batches = 0
    for _ in range(3):
        # However late the kill comes, it finds the writer: after its batches it waits, run open.
        writes = f"write(path, None, {batches + 60}, close=False); signal.pause()"
        child = subprocess.Popen(_command(path, writes))
        try:
            _wait_for_more(path, batches, child)
            time.sleep(random.random() / 10)
        finally:
            child.kill()
        assert child.wait(60) == -signal.SIGKILL
        committed = _check(path)
        assert committed > batches  # what the journal had when it was looked at, at least
        batches = committed
    subprocess.run(_command(path, f"write(path, None, {batches + 6})"), check=True)
    assert _check(path) == batches + 6


def _command(path: Path, statement: str) -> list[str]:
    """Run a statement on the run at ``path``, a minute at most."""
    code = (
        f"import pathlib, signal, sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); "
        f"from crash_points import *; path = pathlib.Path({str(path)!r}); "
        f"signal.alarm(60); {statement}"
    )
    return [sys.executable, "-c", code]


def _wait_for_more(path: Path, batches: int, child: subprocess.Popen[bytes]) -> None:
    """Wait until the journal has a commit beyond ``batches``."""
    journal = path / "sample" / "journal.jsonl"
    for _ in range(3000):
        lines = journal.read_text().count("\n") if journal.exists() else 0
        if lines > batches or child.poll() is not None:
            return
        time.sleep(0.005)
    raise AssertionError("the writer commits nothing")


def _check(path: Path) -> int:
    """The number of batches that the run holds, every one of them looked at."""
    command = _command(path, "print(check(path))")
    return int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
