"""The worker process: crashes, hangs, noise, threads, interrupts, and the end of either side."""

from __future__ import annotations

import gc
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from layertap.runtimes.worker.failure import NativeError
from layertap.runtimes.worker.process import Outcome, Worker, WorkerFailure

pytestmark = pytest.mark.slow

ENGINE = """
import os, signal, sys, time, weakref
import numpy as np
from layertap.runtimes.worker.serve import serve

ALIVE = weakref.WeakSet()

class Engine:
    def __init__(self, model, options):
        self.model, self.what = model, options.get("what", "")
        self.after, self.executed = options.get("after", 0), 0
        ALIVE.add(self)
    def readers(self, outputs):
        return [lambda i=i: self.values[i] for i in outputs]
    def execute(self, inputs):
        self.executed += 1
        self.values = [np.asarray(value) + 1 for value in inputs]
        if self.what == "alive":
            self.values = [np.array(len(ALIVE))]
        if self.what == "ragged":
            self.values = [np.full(int(inputs[0]), 7, np.uint8)]
        if self.what == "slow":
            time.sleep(0.4)
        if self.executed <= self.after:
            return
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

serve(Engine)
"""


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "fake_engine.py"
    path.write_text(ENGINE)
    return path


@pytest.fixture
def worker(engine: Path) -> Iterator[Worker]:
    worker = Worker(engine, timeout=30)
    yield worker
    worker.stop()


def load(worker: Worker, what: str = "", *, slot: int = 1, after: int = 0) -> None:
    worker.load(slot, b"model", {"what": what, "after": after})


def execute(worker: Worker, rows: Sequence[float] = (0,), slot: int = 1) -> Outcome:
    """Of each row the engine gives one more."""
    return worker.execute(slot, [np.array(rows, np.float32)], len(rows), [0])


def run(worker: Worker, rows: Sequence[float] = (0,), slot: int = 1) -> list[float]:
    outcome = execute(worker, rows, slot)
    if outcome.failure is not None:
        raise outcome.failure
    ((values,),) = outcome.values
    found: list[float] = values.tolist()
    return found


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
        assert run(worker, [1, 2, 3]) == [2, 3, 4]
    assert (worker.pid, worker.generation) == (pid, 1)


def test_inputs_and_outputs_of_any_dtype_and_shape(worker: Worker) -> None:
    load(worker)
    inputs = [np.arange(12, dtype=np.int16).reshape(3, 2, 2), np.ones((3, 0)), np.eye(3)[:, ::-1]]
    outcome = worker.execute(1, inputs, 3, [2, 0, 1])
    assert outcome.done == 3
    ((last, first, empty),) = outcome.values
    np.testing.assert_array_equal(last, inputs[2] + 1)
    np.testing.assert_array_equal(first, inputs[0] + 1)
    assert (first.dtype, empty.shape) == (np.int16, (3, 0))
    assert all(values.flags.owndata and values.flags.writeable for values in outcome.values[0])


def test_shapes_may_differ_between_executions(worker: Worker) -> None:
    load(worker, "ragged")
    outcome = worker.execute(1, [np.array([2, 2, 0, 3, 3])], 5, [0])
    assert [values[0].shape for values in outcome.values] == [(2, 2), (1, 0), (2, 3)]
    assert all((values[0] == 7).all() for values in outcome.values)


def test_what_does_not_fit_is_left_for_the_next_request(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layertap.runtimes.worker.process.LIMIT", 1 << 16)
    load(worker)
    rows = np.zeros((8, 10_000), np.uint8)
    rows[:, 0] = range(8)
    done = 0
    while done < 8:
        outcome = worker.execute(1, [rows[done:]], min(3, 8 - done), [0])
        assert 1 <= outcome.done <= 3
        ((values,),) = outcome.values
        np.testing.assert_array_equal(values, rows[done : done + outcome.done] + 1)
        done += outcome.done


def test_what_is_dropped_is_forgotten(worker: Worker) -> None:
    for slot in range(5):
        load(worker, "alive", slot=slot)
    for slot in range(4):
        worker.drop(slot)
    assert run(worker, slot=4) == [1]


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


@pytest.mark.parametrize("what", ["raise", "crash", "hang"])
def test_a_failure_says_when_and_what_was_complete_is_there(engine: Path, what: str) -> None:
    worker = Worker(engine, timeout=1)
    load(worker, what, after=3)
    outcome = execute(worker, [0, 1, 2, 3, 4])
    assert outcome.done == 3
    ((values,),) = outcome.values
    assert values.tolist() == [1, 2, 3]
    assert outcome.failure is not None
    assert outcome.failure.execution == 3
    worker.stop()


def test_a_failure_survives_a_process_boundary(worker: Worker) -> None:
    load(worker, "crash", after=1)
    failure = execute(worker, [0, 1, 2]).failure
    assert failure is not None
    again = pickle.loads(pickle.dumps(failure))
    assert type(again) is WorkerFailure
    assert (again.native, again.said, again.crashed, again.execution) == (
        "native: about to fall",
        "native: about to fall",
        True,
        1,
    )


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


def test_a_hang_ends_with_the_time(engine: Path) -> None:
    impatient = Worker(engine, timeout=1)
    load(impatient, "hang")
    pid = impatient.pid
    with pytest.raises(WorkerFailure, match="did not finish within 1 s") as caught:
        run(impatient)
    assert "timeout" in caught.value.hint
    assert pid is not None
    assert gone(pid)
    impatient.stop()


def test_the_time_is_that_of_one_execution(engine: Path) -> None:
    patient = Worker(engine, timeout=1)
    load(patient, "slow")
    # 2 s in all.
    assert run(patient, [0, 1, 2, 3, 4]) == [1, 2, 3, 4, 5]
    assert patient.generation == 1
    patient.stop()


def test_endless_patience_is_possible(engine: Path) -> None:
    patient = Worker(engine, timeout=float("inf"))
    load(patient)
    assert run(patient) == [1]
    patient.stop()


def test_starting_is_no_part_of_the_time_for_a_request(tmp_path: Path) -> None:
    (tmp_path / "slow_engine.py").write_text("import time\ntime.sleep(1.5)\n" + ENGINE)
    impatient = Worker(tmp_path / "slow_engine.py", timeout=1)
    load(impatient)
    impatient.stop()


def test_a_worker_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layertap.runtimes.worker.process._START", 0.5)
    (tmp_path / "stuck_engine.py").write_text("import time\ntime.sleep(60)\n")
    worker = Worker(tmp_path / "stuck_engine.py", timeout=0.5)
    with pytest.raises(WorkerFailure, match=r"the worker did not start within 0\.5 s"):
        load(worker)
    assert worker.pid is None


def test_what_native_code_prints_stays_away_from_the_caller(
    worker: Worker, capfd: pytest.CaptureFixture[str]
) -> None:
    load(worker, "noise")
    for _ in range(3):
        assert run(worker) == [1]
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


def test_interrupts_at_any_moment_leave_a_worker_that_can_be_used(worker: Worker) -> None:
    """Real ones, from a thread, after times that are spread over what a request takes."""
    rng = random.Random(0)
    interrupted = 0
    for i in range(60):
        generation = -1
        wait = rng.random() * 0.01 * (i % 4 + 1) ** 2
        interrupt = threading.Timer(wait, os.kill, (os.getpid(), signal.SIGINT))
        try:
            interrupt.start()
            while interrupt.is_alive():
                if worker.generation != generation:
                    load(worker)
                    generation = worker.generation
                assert run(worker, [i, i + 1]) == [i + 1, i + 2]
            interrupt.join()
        except KeyboardInterrupt:
            interrupted += 1
        load(worker)
        assert run(worker, [i]) == [i + 1]
    assert interrupted > 30


def test_each_thread_gets_its_own_values(worker: Worker) -> None:
    load(worker)
    wrong: list[object] = []

    def ask(first: int) -> None:
        for i in range(first, first + 200):
            found = run(worker, [i, i + 0.5])
            if found != [i + 1, i + 1.5]:
                wrong.append((i, found))

    threads = [threading.Thread(target=ask, args=(1000 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert worker.generation == 1


def test_waiting_takes_no_thread(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Near the limit of memory none can be started, and what waits for one hangs."""
    load(worker)

    def refuse(*_: object) -> None:
        raise AssertionError("a thread was started")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert run(worker) == [1]


def test_without_memory_for_what_is_fed_the_error_says_so(worker: Worker) -> None:
    load(worker)
    rows = np.zeros((1, 300 << 20), np.uint8)
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (50 << 20), before[1]))
    try:
        with pytest.raises(WorkerFailure, match="no room") as caught:
            worker.execute(1, [rows], 1, [0])
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert "fewer" in caught.value.hint
    assert run(worker) == [1]
    assert worker.generation == 1


def test_where_no_process_can_be_started(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    before = len(list(Path("/proc/self/fd").iterdir()))
    worker = Worker(engine, timeout=30)
    for _ in range(2):
        with pytest.raises(WorkerFailure, match="Resource temporarily unavailable"):
            worker.start()
    monkeypatch.undo()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
    load(worker)
    assert run(worker) == [1]
    worker.stop()


def test_a_fork_of_the_caller_has_a_worker_of_its_own(worker: Worker) -> None:
    """As where a data loader forks: two processes must not talk over one wire."""
    load(worker)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            load(worker)
            status = 0 if worker.generation == 2 and run(worker, [4]) == [5] else 2
            worker.stop()
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert run(worker, [1]) == [2]
    assert worker.generation == 1


def test_the_terminals_interrupt_does_not_reach_the_worker(worker: Worker) -> None:
    load(worker)
    assert worker.pid is not None
    assert os.getpgid(worker.pid) != os.getpgid(0)
    os.kill(worker.pid, signal.SIGINT)
    run(worker)
    assert worker.generation == 1


def test_nothing_is_left_open(engine: Path) -> None:
    def cycle() -> None:
        worker = Worker(engine, timeout=30)
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


def test_a_forgotten_worker_ends(engine: Path) -> None:
    worker = Worker(engine, timeout=30)
    load(worker)
    pid = worker.pid
    del worker
    gc.collect()
    assert pid is not None
    assert gone(pid)


def test_a_program_that_cannot_start(tmp_path: Path) -> None:
    worker = Worker(tmp_path / "no_such_engine.py", timeout=30)
    with pytest.raises(WorkerFailure, match="no_such_engine"):
        load(worker)
    worker.stop()


@pytest.mark.parametrize("what", ["", "hang", "slow"])
def test_a_killed_caller_takes_its_worker_along(engine: Path, what: str) -> None:
    code = (
        "import sys, threading, time, numpy as np\n"
        "from pathlib import Path\n"
        "from layertap.runtimes.worker.process import Worker\n"
        f"worker = Worker(Path({str(engine)!r}), timeout=2)\n"
        f"worker.load(1, b'', {{'what': {what!r}}})\n"
        "print(worker.pid, flush=True)\n"
        f"if {what!r}: worker.execute(1, [np.zeros(500)], 500, [0])\n"
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
