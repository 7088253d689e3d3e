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
    """kill -9 from outside, again and again, until the run is complete."""
    path = tmp_path / "run.zarr"
    code = (
        f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import crash_points, pathlib; "
        f"crash_points.write(pathlib.Path({str(path)!r}), None, 60)"
    )
    random.seed(0)
    ended, samples = [], 0
    for attempt in range(4):
        child = subprocess.Popen([sys.executable, "-c", code])
        try:
            _wait_for_more(path, samples, child)
            time.sleep(random.random() / 10)
            if attempt < 3:
                child.kill()
            child.wait(60)
        finally:
            child.kill()
        ended.append(child.returncode)
        samples = 3 * _check(path)
    assert ended == [-signal.SIGKILL] * 3 + [0]
    assert samples == 180


def _wait_for_more(path: Path, samples: int, child: subprocess.Popen[bytes]) -> None:
    """Wait until the journal has a commit beyond ``samples``."""
    journal = path / "sample" / "journal.jsonl"
    for _ in range(3000):
        lines = journal.read_text().count("\n") if journal.exists() else 0
        if 3 * lines > samples or child.poll() is not None:
            return
        time.sleep(0.005)
    raise AssertionError("the writer commits nothing")


def _check(path: Path) -> int:
    code = (
        f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import crash_points, pathlib; "
        f"print(crash_points.check(pathlib.Path({str(path)!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return int(done.stdout)
