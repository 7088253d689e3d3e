"""The worker process: crashes, hangs, noise and the end of either side."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from layertap.runtimes.worker.process import NativeError, Worker, WorkerFailure

pytestmark = pytest.mark.slow

ENGINE = """
import os, signal, sys, time
from layertap.runtimes.worker.serve import serve

class Engine:
    def __init__(self, model, options):
        self.model, self.what = model, options.get("what", "")
    def run(self, inputs, outputs):
        if self.what == "raise":
            os.write(2, b"native: all wrong\\n")
            raise ValueError("refused")
        if self.what == "crash":
            os.write(2, b"native: about to fall\\n")
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.what == "hang":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            while True:
                time.sleep(0.1)
        if self.what == "noise":
            os.write(1, b"x" * 3_000_000)
            print("also through Python")
        if self.what == "who":
            return [__import__("numpy").array(os.getpid())]
        return [inputs[i] + 1 for i in outputs]

serve(Engine)
"""


@pytest.fixture(autouse=True)
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fake_engine.py").write_text(ENGINE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker("fake_engine", timeout=30)
    yield worker
    worker.stop()


def load(worker: Worker, what: str = "") -> None:
    options = {"what": what}
    model = np.zeros(1, np.uint8)
    worker.request({"do": "load", "slot": 1, "options": options}, [model])


def run(worker: Worker) -> list[np.ndarray]:
    return worker.request({"do": "run", "slot": 1, "outputs": [1]}, [np.ones(2), np.zeros(3)])[1]


def gone(pid: int) -> bool:
    """Whether the process ends within a time that is short of what it would sleep."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_one_worker_serves_many_requests(worker: Worker) -> None:
    load(worker)
    pid = worker.pid
    for _ in range(20):
        np.testing.assert_array_equal(run(worker)[0], np.ones(3))
    assert (worker.pid, worker.generation) == (pid, 1)


def test_an_error_leaves_the_worker_running(worker: Worker) -> None:
    load(worker, "raise")
    pid = worker.pid
    for _ in range(2):
        with pytest.raises(WorkerFailure, match="refused") as caught:
            run(worker)
        assert caught.value.native == "native: all wrong\nrefused"
        assert caught.value.said == "native: all wrong; refused"
        assert not caught.value.crashed
        assert isinstance(caught.value.__cause__, NativeError)
    assert worker.pid == pid


def test_a_crash_is_an_error_and_the_next_request_starts_anew(worker: Worker) -> None:
    load(worker, "crash")
    pid = worker.pid
    with pytest.raises(WorkerFailure, match="SIGSEGV") as caught:
        run(worker)
    assert caught.value.native == "native: about to fall"
    assert caught.value.crashed
    assert pid is not None
    assert gone(pid)
    load(worker)
    run(worker)
    assert worker.generation == 2


def test_a_worker_killed_between_requests_is_replaced(worker: Worker) -> None:
    load(worker)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    # Dead with all its threads, and not waited for: that is the worker's business.
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    load(worker)
    assert worker.generation == 2


def test_a_hang_ends_with_the_time() -> None:
    impatient = Worker("fake_engine", timeout=1)
    load(impatient, "hang")
    pid = impatient.pid
    with pytest.raises(WorkerFailure, match="did not finish within 1 s") as caught:
        run(impatient)
    assert "timeout" in caught.value.hint
    assert pid is not None
    assert gone(pid)
    impatient.stop()


def test_starting_is_no_part_of_the_time_for_a_request(tmp_path: Path) -> None:
    (tmp_path / "slow_engine.py").write_text("import time\ntime.sleep(1.5)\n" + ENGINE)
    impatient = Worker("slow_engine", timeout=1)
    load(impatient)
    impatient.stop()


def test_a_worker_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layertap.runtimes.worker.process._START", 0.5)
    (tmp_path / "stuck_engine.py").write_text("import time\ntime.sleep(60)\n")
    worker = Worker("stuck_engine", timeout=0.5)
    with pytest.raises(WorkerFailure, match=r"the worker did not start within 0\.5 s"):
        worker.start()
    assert worker.pid is None


def test_a_deadline_that_passes_with_the_answer_does_not_fail_the_next_request(
    worker: Worker,
) -> None:
    load(worker)
    worker.start().expired = True
    load(worker)
    run(worker)
    assert worker.generation == 2


def test_what_native_code_prints_stays_away_from_the_caller(
    worker: Worker, capfd: pytest.CaptureFixture[str]
) -> None:
    load(worker, "noise")
    for _ in range(3):
        np.testing.assert_array_equal(run(worker)[0], np.ones(3))
    assert capfd.readouterr() == ("", "")


def test_interrupting_the_caller_leaves_no_orphan(worker: Worker) -> None:
    load(worker, "hang")
    pid = worker.pid
    interrupt = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        run(worker)
    assert pid is not None
    assert gone(pid)
    load(worker)
    run(worker)


def test_the_terminals_interrupt_does_not_reach_the_worker(worker: Worker) -> None:
    load(worker)
    assert worker.pid is not None
    assert os.getpgid(worker.pid) != os.getpgid(0)
    os.kill(worker.pid, signal.SIGINT)
    run(worker)
    assert worker.generation == 1


def test_nothing_is_left_open() -> None:
    def cycle() -> None:
        worker = Worker("fake_engine", timeout=30)
        load(worker)
        worker.stop()
        worker.stop()

    cycle()
    before = len(list(Path("/proc/self/fd").iterdir()))
    threads = threading.active_count()
    for _ in range(3):
        cycle()
        assert threading.active_count() <= threads
    # Fewer is fine: what earlier tests left may end meanwhile.
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_a_forgotten_worker_ends() -> None:
    worker = Worker("fake_engine", timeout=30)
    load(worker)
    pid = worker.pid
    del worker
    gc.collect()
    assert pid is not None
    assert gone(pid)


def test_a_module_that_cannot_start() -> None:
    worker = Worker("no_such_engine", timeout=30)
    with pytest.raises(WorkerFailure, match="no_such_engine"):
        worker.start()
    worker.stop()


@pytest.mark.parametrize("what", ["", "hang"])
def test_a_killed_caller_takes_its_worker_along(what: str) -> None:
    code = (
        "import sys, threading, time, numpy as np\n"
        "from layertap.runtimes.worker.process import Worker\n"
        "worker = Worker('fake_engine', timeout=2)\n"
        f"request = {{'do': 'load', 'slot': 1, 'options': {{'what': {what!r}}}}}\n"
        "worker.request(request, [np.zeros(1, np.uint8)])\n"
        "print(worker.pid, flush=True)\n"
        f"if {what!r}: worker.request({{'do': 'run', 'slot': 1, 'outputs': []}})\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as caller:
        assert caller.stdout is not None
        pid = int(caller.stdout.readline())
        time.sleep(0.3)
        caller.kill()
        caller.wait()
        # A worker that computes ends itself soon after the time it was given.
        assert gone(pid)
