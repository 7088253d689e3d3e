from __future__ import annotations

import pytest
from flatbuffers import flexbuffers

from layertap.errors import CorruptModel
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite
from layertap.tflite.model import Operator, parse
from layertap.tflite.settings import Settings


def custom(**entries: int) -> Settings:
    builder = flexbuffers.Builder()
    with builder.Map():
        for key, value in entries.items():
            builder.Int(key, value)
    return Settings(custom=bytes(builder.Finish()))


def operator(spec: OperatorSpec) -> Operator:
    tensors = [TensorSpec("x", (1, 4)), TensorSpec("y", (1, 4))]
    return parse(write_tflite(SubgraphSpec(tensors, [0], [1], [spec]))).subgraphs[0].operators[0]


def test_fields_of_builtin_operators() -> None:
    settings = operator(OperatorSpec("GATHER", [0], [1], {0: -1, 1: 3})).settings
    assert (settings.number(0), settings.number(1), settings.number(2)) == (-1, 3, 0)
    settings = operator(OperatorSpec("BATCH_MATMUL", [0], [1], {0: True, 1: False})).settings
    assert (settings.number(0, 1), settings.number(1, 1)) == (1, 0)
    settings = operator(OperatorSpec("VAR_HANDLE", [], [1], {1: "name"})).settings
    assert (settings.text(0), settings.text(1)) == ("", "name")


def test_operators_without_options() -> None:
    settings = operator(OperatorSpec("RELU", [0], [1])).settings
    assert (settings.number(0), settings.text(0), settings.custom) == (0, "", b"")


def test_entries_of_custom_operators() -> None:
    settings = custom(size=300, axis=-2, zero=70_000)
    assert [settings.element(i) for i in range(3)] == [-2, 300, 70_000]
    assert settings.entry("size") == 300
    held = operator(OperatorSpec("Mine", [0], [1], custom=settings.custom)).settings
    assert held.entry("axis") == -2


@pytest.mark.parametrize("options", [b"", b"x", bytes(3), b"\xff" * 30, custom(a=1).custom[:-2]])
def test_broken_entries(options: bytes) -> None:
    with pytest.raises(CorruptModel, match="the options of a custom operator have no entry"):
        Settings(custom=options).entry("fft_length")
    with pytest.raises(CorruptModel, match="the options of a custom operator have no entry"):
        Settings(custom=options).element(1)


def test_entries_that_are_no_int() -> None:
    with pytest.raises(CorruptModel, match="entry 'a' of the options of a custom operator is"):
        custom(a=1 << 40).entry("a")


def test_codes_in_the_older_field_only() -> None:
    """ADD has the number that the newer field has when it is absent."""
    assert operator(OperatorSpec("ADD", [0, 0], [1])).narrow
    assert not operator(OperatorSpec("RELU", [0], [1])).narrow
