"""What a layout lets lie over one another, told from its offsets; what kernels make of it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from tflite_micro import runtime

import layertap
from layertap.arena.mapping import memory_map, tapped
from layertap.arena.memory_map import MemoryMap, Overlaps, Shared
from layertap.arena.shared import check_layout
from layertap.arena.target import load_target
from layertap.errors import PlanError
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite
from layertap.testing.tflite_cases import known_model
from layertap.tflite.edit import OFFLINE_PLAN
from layertap.tflite.model import parse
from layertap.tflite.relayout import with_layout

HOST = load_target("host")
WIDE = 64
"""Bytes of each tensor of a chain."""


def chain(*names: str, outputs: Sequence[int] = ()) -> bytes:
    tensors = [TensorSpec(f"t{i}", (1, WIDE // 4)) for i in range(len(names) + 1)]
    operators = [OperatorSpec(name, [i], [i + 1]) for i, name in enumerate(names)]
    return write_tflite(SubgraphSpec(tensors, [0], [*outputs, len(names)], operators))


def laid_out(data: bytes, offsets: Sequence[int | None]) -> MemoryMap:
    return memory_map(parse(with_layout(data, offsets)), HOST)


def found(data: bytes, offsets: Sequence[int | None]) -> Overlaps:
    return laid_out(data, offsets).overlaps


def test_without_a_layout_nothing_is_shared() -> None:
    assert memory_map(parse(chain("RELU", "NEG")), HOST).overlaps == Overlaps()
    assert found(chain("RELU", "NEG"), [None, None, None]) == Overlaps()


def test_results_in_place_whoever_laid_them_there() -> None:
    overlaps = found(chain("RELU", "LOGISTIC"), [0, 0, 0])
    assert overlaps.clashes == ()
    assert overlaps.kind == "in-place"
    assert overlaps.shared == (
        Shared(0, 0, "RELU", "t0", "t1", 0, ()),
        Shared(0, 1, "LOGISTIC", "t1", "t2", 0, ("xtensa", "ceva")),
    )
    assert overlaps.allowed("in-place", "reference")
    assert overlaps.allowed("in-place", "cmsis_nn")
    assert not overlaps.allowed("in-place", "ceva")
    assert not overlaps.allowed("none", "reference")


def test_a_result_that_reaches_into_its_operand_from_below() -> None:
    overlaps = found(chain("RELU"), [16, 0])
    assert [(one.distance, overlaps.kind) for one in overlaps.shared] == [(16, "overlapping")]
    assert overlaps.clashes == ()
    assert not overlaps.allowed("in-place", "reference")
    # From above each element would be overwritten before it is read.
    assert found(chain("RELU"), [0, 16]).clashes == (("t0", "t1"),)


def test_what_is_needed_later_is_not_to_be_overwritten() -> None:
    tensors = [TensorSpec(f"t{i}", (1, WIDE // 4)) for i in range(3)]
    operators = [OperatorSpec("RELU", [0], [1]), OperatorSpec("ADD", [0, 1], [2])]
    data = write_tflite(SubgraphSpec(tensors, [0], [2], operators))
    assert found(data, [0, 0, WIDE]).clashes == (("t0", "t1"),)
    assert found(data, [0, WIDE, 0]).kind == "in-place"
    returned = chain("RELU", "NEG", outputs=[1])
    assert found(returned, [0, 64, 64]).clashes == (("t1", "t2"),)


def test_tensors_of_another_time_and_neighbours_share_nothing() -> None:
    data = chain("RELU", "NEG", "ABS")
    assert found(data, [0, WIDE, 0, WIDE]) == Overlaps()
    odd = [TensorSpec("x", (1, 10), "int8"), TensorSpec("y", (1, 10), "int8")]
    data = write_tflite(SubgraphSpec(odd, [0], [1], [OperatorSpec("NEG", [0], [1])]))
    # The planner rounds sizes up, a compiler need not.
    assert found(data, [0, 10]) == Overlaps()


def test_tensors_that_nothing_uses_share_what_they_like() -> None:
    tensors = [TensorSpec(f"t{i}", (1, WIDE // 4)) for i in range(4)]
    data = write_tflite(SubgraphSpec(tensors, [0], [1], [OperatorSpec("RELU", [0], [1])]))
    assert found(data, [0, WIDE, 0, 0]) == Overlaps()


def test_a_tapped_tensor_is_not_in_the_layout_any_more() -> None:
    model = parse(with_layout(chain("RELU", "NEG"), [0, 0, 0]))
    assert len(memory_map(model, HOST).overlaps.shared) == 2
    assert memory_map(tapped(model, [1]), HOST).overlaps == Overlaps()


def test_an_accelerator_lays_out_what_it_uses() -> None:
    """Vela gives its operator one buffer in which its operands and results lie."""
    tensors = [TensorSpec("x", (1, 16)), TensorSpec("y", (1, 16)), TensorSpec("z", (1, 16))]
    tensors.append(TensorSpec("scratch", (1, 64)))
    operators = [OperatorSpec("ethos-u", [0, 3], [1]), OperatorSpec("NEG", [1], [2])]
    data = write_tflite(SubgraphSpec(tensors, [0], [2], operators))
    assert found(data, [0, 64, 128, 0]).clashes == ()
    # What the rest of the model does stays to be looked at.
    assert [one.op for one in found(data, [0, 64, 64, 0]).shared] == ["NEG"]


def test_who_is_not_known_to_bear_it_is_refused() -> None:
    memory = laid_out(chain("RELU", "LOGISTIC"), [0, 0, 0])
    check_layout(memory)
    check_layout(memory, ["cmsis_nn"])
    with pytest.raises(PlanError, match=r"'t2' \(LOGISTIC\) over 't1'") as caught:
        check_layout(memory, ["cmsis_nn", "ceva"])
    assert "1 operators" in caught.value.message
    assert "--kernels ceva" in caught.value.hint
    with pytest.raises(PlanError, match=r"'t0' and 't1' share bytes .* no kernels"):
        check_layout(laid_out(chain("RELU"), [0, 16]))


def test_the_interpreter_of_this_machine_is_not_given_it() -> None:
    layertap.open(with_layout(chain("RELU"), [16, 0]), runtime="tflm").close()
    with pytest.raises(PlanError, match="'t0' and 't1' share bytes"):
        layertap.open(with_layout(chain("RELU"), [0, 16]), runtime="tflm")


def test_a_layout_too_large_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layertap.arena.shared.MOST_PAIRS", 1)
    memory = laid_out(chain("RELU", "NEG"), [0, 64, 0])
    assert not memory.overlaps.checked
    with pytest.raises(PlanError, match="cannot be checked"):
        check_layout(memory)


def computed(data: bytes, feed: Mapping[str, np.ndarray]) -> list[bytes]:
    graph = parse(data).subgraphs[0]
    interpreter = runtime.Interpreter.from_bytes(data, arena_size=1 << 20)
    for position, i in enumerate(graph.inputs):
        interpreter.set_input(feed[graph.tensors[i].name], position)
    interpreter.invoke()
    return [interpreter.get_output(n).tobytes() for n in range(len(graph.outputs))]


@pytest.mark.slow
def test_what_is_called_right_is_right() -> None:
    """Random layouts: values of the wheel are those without a layout wherever nothing clashes, and
    what clashes is mostly wrong."""
    rng = random.Random(5)
    counts = {"apart": 0, "in-place": 0, "overlapping": 0, "clashes": 0, "wrong": 0}
    for seed in range(6):
        known = known_model(seed=seed)
        expected = computed(known.data, known.feed)
        count = len(parse(known.data).subgraphs[0].tensors)
        for _ in range(250):
            room = rng.choice([8, 16, 24])
            offsets = [16 * rng.randrange(room) for _ in range(count)]
            overlaps = found(known.data, offsets)
            same = computed(with_layout(known.data, offsets), known.feed) == expected
            if overlaps.clashes:
                counts["clashes"] += 1
                counts["wrong"] += not same
            else:
                assert same, (seed, offsets, overlaps)
                counts["apart" if overlaps.kind == "none" else overlaps.kind] += 1
    assert min(counts.values()) > 0, counts
    assert counts["wrong"] > counts["clashes"] / 2


def test_the_file_says_it_is_a_layout_of_the_interpreters_format() -> None:
    """The offsets as TensorFlow's own classes read them."""
    from ai_edge_litert import schema_py_generated as generated

    data = with_layout(chain("RELU"), [16, 0], {"sharing": "overlapping", "kernels": "reference"})
    model = generated.ModelT.InitFromPackedBuf(data, 0)
    held = {one.name.decode(): bytes(model.buffers[one.buffer].data) for one in model.metadata}
    assert np.frombuffer(held[OFFLINE_PLAN], "<i4").tolist() == [1, 1, 2, 16, 0]
    assert held["layertap.layout"].startswith(b'{"sharing": "overlapping", "kernels": "reference"}')
