from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import layertap
from layertap.arena.log import DeviceLog, parse_log
from layertap.arena.measured import Measured, measured
from layertap.arena.memory_map import MemoryMap
from layertap.arena.target import load_target
from layertap.demo import asset
from layertap.errors import LayertapError

Row = tuple[str, int, int, str]
"""What the recording allocator counts, bytes, their number and what they are called."""


def allocations(head: int, tail: int, *rows: Row) -> str:
    """What the recording allocator prints."""
    lines = [
        f"Arena allocation {name} {count} bytes"
        for name, count in (("total", head + tail), ("head", head), ("tail", tail))
    ]
    lines += [
        f"'{name}' used {count} bytes with alignment overhead "
        f"(requested {count} bytes for {number} {what})"
        for name, count, number, what in rows
    ]
    return "".join(f"[RecordingMicroAllocator] {line}\n" for line in lines)


SIZES = allocations(1728, 1372, ("TfLiteEvalTensor data", 640, 6, "allocations"))

SCRATCH = [(128, 1312, 2), (288, 1440, 2)]
"""Bytes, offset, scope of what the device's kernels ask for."""


def plan(memory: MemoryMap, scratch: list[tuple[int, int, int]], *, drawn: bool = True) -> str:
    """What PrintMemoryPlan prints for the tensors of ``memory`` and ``scratch``."""
    tensors = [p for p in memory if p.home == "arena" and p.index is not None]
    rows = [(p.size, p.offset, *(p.alive or ())) for p in tensors]
    rows += [(size, offset, scope, scope) for size, offset, scope in scratch]
    lines = [
        f"* (id={i}): size={row[0]}, offset={row[1]}, first_used={row[2]} last_used={row[3]}"
        for i, row in enumerate(rows)
    ]
    return "\n".join([*lines, f"   0: {'.' * 80} (1k)" if drawn else ""])


def corrected(memory: MemoryMap, log: DeviceLog) -> Measured:
    return measured(memory, log, load_target("host", "90b983c", recording=True))


def read(*parts: str) -> DeviceLog:
    return parse_log("\n".join(parts))


def test_totals_replace_what_was_predicted(chain) -> None:
    found = corrected(chain, read(SIZES))
    arena = found.memory.arena
    assert (arena.head, arena.tail, arena.used) == (1728, 1372, 3100)
    assert arena.minimum >= 3100
    assert sum(section.bytes or 0 for section in arena.sections) == 1372
    assert "measured" in found.memory.version
    rows = {row.name: (row.predicted, row.measured) for row in found.rows}
    assert rows["head"] == (1312, 1728)
    assert rows["TfLiteEvalTensor data"] == (600, 640)
    assert "the device's structures have other sizes" in found.notes[-1]


def test_a_plan_names_the_scratch_buffers_of_unknown_kernels(make_map) -> None:
    rows = [("a", 100, 0, 1, 0), ("b", 400, 1, 2, 112), ("c", 800, 2, 3, 512)]
    memory = make_map(rows, unknown=("CONV_2D of CMSIS-NN",))
    found = corrected(memory, read(SIZES, plan(memory, SCRATCH)))
    assert found.memory.arena.exact
    scratch = [p for p in found.memory if p.index is None]
    assert [(p.name, p.op, p.operator, p.size, p.offset, p.alive) for p in scratch] == [
        ("c/scratch:0", "CONV_2D", 1, 128, 1312, (2, 2)),
        ("c/scratch:1", "CONV_2D", 1, 288, 1440, (2, 2)),
    ]
    assert found.memory.arena.head == 1728
    assert found.memory.arena.lower_bound == 400 + 800 + 128 + 288
    assert found.memory.arena.peak is not None
    assert set(found.memory.arena.peak.alive) == {"b", "c", "c/scratch:0", "c/scratch:1"}
    shown = {row.name: (row.predicted, row.measured) for row in found.rows}
    assert shown["buffers"] == (3, 5)
    assert shown["bytes of scratch"] == (None, 416)
    assert shown["total"] == (None, 3100)


def test_without_a_plan_the_places_of_scratch_stay_unknown(make_map) -> None:
    memory = make_map([("a", 100, 0, 0, 0)], unknown=("CUSTOM",))
    assert len(corrected(memory, read(SIZES)).memory.arena.unknown) == 1
    only_plan = corrected(memory, read(plan(memory, []))).memory
    assert len(only_plan.arena.unknown) == 1
    cut = corrected(memory, read(SIZES, plan(memory, [], drawn=False))).memory
    assert not cut.arena.exact


def test_a_device_that_lays_out_otherwise(chain) -> None:
    moved = plan(chain, []).replace("offset=112", "offset=1312").replace("offset=512", "offset=0")
    found = corrected(chain, read(moved))
    assert found.memory["b"].offset == 1312
    assert found.memory.arena.head == 1712
    rows = {row.name: row.measured for row in found.rows}
    assert rows["buffers elsewhere than predicted"] == 2


def test_a_peak_at_the_entry_is_called_so(make_map) -> None:
    memory = make_map([("a", 100, 0, 0, 0), ("b", 16, 1, 1, 0)])
    peak = corrected(memory, read(plan(memory, []))).memory.arena.peak
    assert peak == memory.arena.peak
    assert peak is not None
    assert peak.op == "INPUT"


def test_the_log_of_another_model_is_refused(chain) -> None:
    other = plan(chain, []).replace("first_used=1 last_used=2", "first_used=1 last_used=3")
    with pytest.raises(LayertapError, match="buffer 1 of the log has 400 bytes from step 1 to 3"):
        corrected(chain, read(other))
    short = "\n".join(plan(chain, []).splitlines()[:2])
    with pytest.raises(LayertapError, match="plans 2 buffers, this model has 4 tensors"):
        corrected(chain, read(short))


def test_a_log_of_a_failure_changes_nothing(chain) -> None:
    found = corrected(chain, read("Failed to resize buffer. Requested: 9, available 3, missing: 6"))
    assert found.memory == chain
    assert found.rows == ()
    assert len(found.notes) == 1


DIGITS = allocations(
    3072,
    2848,
    ("TfLiteEvalTensor data", 432, 18, "allocations"),
    ("Persistent TfLiteTensor data", 128, 2, "tensors"),
    ("NodeAndRegistration struct", 512, 8, "NodeAndRegistration structs"),
)
"""What the wheel tflite-micro 0.dev20261023182759 prints for the demo's int8 model."""


def test_what_the_wheel_printed_is_what_is_predicted() -> None:
    target = load_target("host", "0.dev20261023182759")
    memory = layertap.memory(asset("digits_int8.tflite"), version="0.dev20261023182759")
    found = measured(memory, read(DIGITS, plan(memory, [])), target)
    for row in found.rows:
        if row.name == "buffers elsewhere than predicted":
            assert row.measured == 0
        else:
            assert row.predicted in (None, row.measured), row
    assert not any("other sizes" in note for note in found.notes)
    assert found.memory.arena.minimum == memory.arena.minimum
    assert found.memory.arena.reason == memory.arena.reason
    assert found.memory.arena.peak == memory.arena.peak
    assert found.memory.arena.lower_bound == memory.arena.lower_bound


PRINT = """
import sys
from tflite_micro import runtime
runtime.Interpreter.from_file(sys.argv[1], arena_size=1_000_000).print_allocations()
"""


@pytest.mark.slow
@pytest.mark.parametrize("model", ["person_detect", "mnist_lstm_int8", "hello_world_int8"])
def test_the_log_of_the_wheel_changes_nothing(shared: Path, model: str) -> None:
    pytest.importorskip("tflite_micro")
    path = shared / "models" / "tflm" / f"{model}.tflite"
    command = [sys.executable, "-c", PRINT, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    memory = layertap.memory(path)
    arena = measured(memory, parse_log(done.stderr), load_target("host")).memory.arena
    assert (arena.head, arena.tail) == (memory.arena.head, memory.arena.tail)
    assert (arena.minimum, arena.reason) == (memory.arena.minimum, memory.arena.reason)
