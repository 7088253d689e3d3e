from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertap.arena.log import Allocations, PlannedBuffer, Recorded, parse_log
from layertap.errors import LayertapError

ALLOCATIONS = """\
[RecordingMicroAllocator] Arena allocation total 4208 bytes
[RecordingMicroAllocator] Arena allocation head 1536 bytes
[RecordingMicroAllocator] Arena allocation tail 2672 bytes
[RecordingMicroAllocator] 'TfLiteEvalTensor data' used 648 bytes with alignment overhead \
(requested 648 bytes for 27 allocations)
[RecordingMicroAllocator] 'Persistent buffer data' used 884 bytes with alignment overhead \
(requested 856 bytes for 5 allocations)
[RecordingMicroAllocator] 'NodeAndRegistration struct' used 256 bytes with alignment overhead \
(requested 256 bytes for 4 NodeAndRegistration structs)
"""

PLAN = """\
0 (id=0): size=784, offset=0, first_used=0 last_used=1
1 (id=1): size=560, offset=784, first_used=1 last_used=2
* (id=2): size=48, offset=1344, first_used=1 last_used=1
"""

DRAWING = "".join(f"{t:4d}: {'0' * 40}{'.' * 40} (1k)\n" for t in range(3))

RECORDED = (
    Recorded("TfLiteEvalTensor data", 648, 648, 27),
    Recorded("Persistent buffer data", 884, 856, 5),
    Recorded("NodeAndRegistration struct", 256, 256, 4),
)
BUFFERS = (
    PlannedBuffer(784, 0, 0, 1),
    PlannedBuffer(560, 784, 1, 2),
    PlannedBuffer(48, 1344, 1, 1),
)


def test_what_both_printers_print() -> None:
    log = parse_log(ALLOCATIONS + PLAN + DRAWING)
    assert log.allocations == Allocations(4208, 1536, 2672, RECORDED)
    assert log.plan == BUFFERS
    assert log.complete
    assert log.notes == ()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("prefix", ["", "[00:00:01.234,567] <inf> app: ", "\x1b[0;32mI (312) tf: "])
def test_prefixes_colours_and_line_ends(end: str, prefix: str) -> None:
    lines = (PLAN + DRAWING + ALLOCATIONS).splitlines()
    log = parse_log(end.join(f"{prefix}{line}\x1b[0m" for line in lines) + "\0\0")
    assert log.plan == BUFFERS
    assert log.complete
    assert log.allocations == Allocations(4208, 1536, 2672, RECORDED)


def test_what_older_versions_print() -> None:
    lines = [
        f"Planner buffer ID: {i}, calculated offset: {b.offset}, size required: {b.size}, "
        f"first_time_created: {b.first}, last_time_used: {b.last}"
        for i, b in enumerate(BUFFERS)
    ]
    log = parse_log("\n".join([*lines, f" 0: {'.' * 80} (1k)"]))
    assert log.plan == BUFFERS
    assert log.complete


def test_other_lines_between() -> None:
    chatter = ["wifi:state: init -> auth", "heap (id=x): size=3", "rssi -54 (12k)", ""]
    rng = random.Random(0)
    lines = [t for line in (PLAN + DRAWING).splitlines() for t in (line, rng.choice(chatter))]
    log = parse_log("\n".join(lines))
    assert log.plan == BUFFERS
    assert log.complete


def test_a_plan_that_is_cut_off_is_not_complete() -> None:
    log = parse_log(PLAN)
    assert log.plan == BUFFERS
    assert not log.complete
    assert any("the log ends within the memory plan" in note for note in log.notes)


def test_a_line_that_is_missing_spoils_the_plan() -> None:
    lines = PLAN.splitlines()
    log = parse_log("\n".join([lines[0], lines[2]]) + "\n" + DRAWING + ALLOCATIONS)
    assert log.plan == ()
    assert "1 of 1 memory plans in the log have gaps" in log.notes


def test_a_number_that_is_cut_is_not_taken() -> None:
    log = parse_log(ALLOCATIONS + PLAN + "3 (id=3): size=48, offset=13")
    assert len(log.plan) == 3


def test_the_last_print_counts() -> None:
    again = ALLOCATIONS.replace("4208", "5000")
    log = parse_log(ALLOCATIONS + PLAN + DRAWING + "reset\n" + again + PLAN + DRAWING)
    assert log.allocations is not None
    assert log.allocations.total == 5000
    assert "the log has 2 totals; the last one counts" in log.notes
    cut = parse_log(ALLOCATIONS + again.splitlines()[0])
    assert cut.allocations is not None
    assert cut.allocations.total == 4208


def test_an_arena_that_was_too_small() -> None:
    log = parse_log("Failed to resize buffer. Requested: 55296, available 30000, missing: 25296\n")
    assert log.allocations is None
    assert log.notes == (
        "the device could not resize buffer: 55,296 bytes were asked for, 25,296 were missing",
    )


@pytest.mark.parametrize("text", ["", "hello", "Arena allocation total x bytes", "(id=1): size=3"])
def test_a_log_of_something_else(text: str) -> None:
    with pytest.raises(LayertapError, match="says nothing about an arena"):
        parse_log(text)


@given(st.text() | st.text(alphabet="(id=0):size, offset first_used last '\n\r"))
def test_no_text_breaks_the_reader(text: str) -> None:
    with contextlib.suppress(LayertapError):
        parse_log(text)


@given(st.integers(0, len(ALLOCATIONS + PLAN + DRAWING)))
def test_a_log_that_ends_anywhere(end: int) -> None:
    """What is read of a part is never more than what is there."""
    try:
        log = parse_log((PLAN + DRAWING + ALLOCATIONS)[:end])
    except LayertapError:
        return
    assert log.plan == BUFFERS[: len(log.plan)]
    assert not log.complete or log.plan == BUFFERS
    if log.allocations is not None:
        assert log.allocations.recorded == RECORDED[: len(log.allocations.recorded)]
