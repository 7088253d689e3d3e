"""Pieces to tensors, tensors to inferences."""

from __future__ import annotations

import math
import random
import struct
import tracemalloc
from collections.abc import Iterable

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layertap.firmware.wire.assembly import Assembly, Inference
from layertap.firmware.wire.decoder import Decoder
from layertap.firmware.wire.messages import (
    HISTOGRAM,
    SLICE,
    SUMMARY,
    Done,
    Hello,
    Message,
    Tensor,
    pack,
)

HELLO = Hello(0, 7, 4096, 4, 0x12345678, 1000, 3, 0, 0, 1, "model", b"\x07")
BITS = np.array([0x3F80, 0xC049], np.uint16)
VALUES = {
    "float32": np.array([1.5, -0.0, np.inf, np.nan], np.float32),
    "int32": np.array([-(2**31), 0, 2**31 - 1], np.int32),
    "uint8": np.array([0, 1, 127, 128, 255], np.uint8),
    "int64": np.array([-(2**63), 2**63 - 1], np.int64),
    "bool": np.array([True, False, True]),
    "int16": np.array([-32768, -1, 32767], np.int16),
    "complex64": np.array([1 - 2j, 0.5 + 0.25j], np.complex64),
    "int8": np.array([-128, -1, 0, 1, 42, 127], np.int8),
    "float16": np.array([1.0, -65504.0, 6e-8], np.float16),
    "float64": np.array([math.pi, -5e-324], np.float64),
    "complex128": np.array([1 - 1j], np.complex128),
    "uint64": np.array([0, 2**64 - 1], np.uint64),
    "uint32": np.array([1, 2**32 - 1], np.uint32),
    "uint16": np.array([245, 65535], np.uint16),
    "bfloat16": BITS.view(ml_dtypes.bfloat16),
}


def pieces(tensor: Tensor, size: int) -> list[Tensor]:
    """``tensor`` cut into pieces of ``size`` bytes."""
    fields = {name: getattr(tensor, name) for name in Tensor.__slots__}
    return [
        Tensor(**{**fields, "offset": at, "payload": tensor.payload[at : at + size]})
        for at in range(0, max(len(tensor.payload), 1), size)
    ]


def sent(tensors: Iterable[Tensor], size: int = 4096, number: int = 0) -> list[Message]:
    """The messages of an inference."""
    whole = list(tensors)
    cut = [piece for tensor in whole for piece in pieces(tensor, size)]
    return [*cut, Done(number, 0, len(whole), len(cut))]


def assembled(messages: Iterable[Message], assembly: Assembly | None = None) -> list[Inference]:
    assembly = assembly or Assembly()
    found = (assembly.take(message) for message in messages)
    return [inference for inference in found if inference is not None]


def through_the_wire(messages: Iterable[Message]) -> list[Inference]:
    decoder, assembly = Decoder(), Assembly()
    stream = b"".join(pack(message, at) for at, message in enumerate(messages))
    found = (assembly.take(event) for event in decoder.feed(stream))
    return [inference for inference in found if inference is not None]


def int8(number: int, data: bytes, **more: int) -> Tensor:
    fields = {"inference": 0, "subgraph": 0, "iteration": 0} | more
    return Tensor(tensor=number, dtype="int8", dims=(len(data),), offset=0, payload=data, **fields)


@pytest.mark.parametrize("size", [1, 2, 3, 4096])
@pytest.mark.parametrize("dtype", VALUES)
def test_values_of_every_element_type(dtype: str, size: int) -> None:
    expected = VALUES[dtype].reshape(1, -1)
    tensor = Tensor(0, 0, 3, 0, dtype, expected.shape, 0, expected.tobytes())
    (inference,) = through_the_wire(sent([tensor], size))
    assert inference.whole, inference.why
    ((place, (value,)),) = inference.tensors.items()
    assert place == (0, 3)
    assert (value.array.dtype, value.array.shape) == (expected.dtype, expected.shape)
    assert value.array.tobytes() == expected.tobytes()
    value.array[...] = value.array[0, 0]


def test_int4_comes_unpacked() -> None:
    for count in (4, 5):
        data = bytes((0x8F, 0x70, 0x05))[: (count + 1) // 2]
        tensor = Tensor(0, 0, 0, 0, "int4", (count,), 0, data)
        (inference,) = through_the_wire(sent([tensor]))
        array = inference.tensors[0, 0][0].array
        assert array.dtype == ml_dtypes.int4
        assert array.astype(int).tolist() == [-1, -8, 0, 7, 5][:count]


@pytest.mark.parametrize("dims", [(), (0,), (2, 0, 3), (1,) * 15, (3, 5, 7)])
def test_shapes(dims: tuple[int, ...]) -> None:
    data = bytes(range(math.prod(dims)))
    (inference,) = through_the_wire(sent([Tensor(0, 0, 0, 0, "uint8", dims, 0, data)], 16))
    array = inference.tensors[0, 0][0].array
    assert array.shape == dims
    assert array.tobytes() == data
    assert array.flags.writeable


def test_forms() -> None:
    part = struct.pack("<3h", -5, 0, 5)
    summary = struct.pack("<bbf", -128, 127, -3.25)
    counts = struct.pack("<4I", 0, 70000, 1, 255)
    tensors = [
        Tensor(0, 0, 0, 0, "int16", (1, 9), 0, part, SLICE, 4, 3),
        Tensor(0, 0, 1, 0, "int8", (1, 9), 0, summary, SUMMARY),
        Tensor(0, 0, 2, 0, "int8", (1, 9), 0, counts, HISTOGRAM, 0, 4, -1.0, 2.5),
    ]
    (inference,) = through_the_wire(sent(tensors, 5))
    cut, short, bins = (inference.tensors[0, at][0] for at in range(3))
    assert (cut.array.tolist(), cut.array.dtype, cut.first) == ([-5, 0, 5], np.int16, 4)
    assert (short.array.tolist(), short.array.dtype) == ([-128.0, 127.0, -3.25], np.float64)
    assert (bins.array.tolist(), bins.array.dtype) == ([0, 70000, 1, 255], np.uint32)
    assert (bins.low, bins.high, bins.dims, bins.form) == (-1.0, 2.5, (1, 9), HISTOGRAM)


def test_iterations_come_in_their_order() -> None:
    tensors = [int8(5, bytes([n]), subgraph=2, iteration=n) for n in range(3)]
    (inference,) = through_the_wire(sent([*tensors, int8(0, b"\x07")]))
    assert [value.array.item() for value in inference.tensors[2, 5]] == [0, 1, 2]
    assert list(inference.tensors) == [(2, 5), (0, 0)]


def test_a_state_that_is_sent_twice_in_an_iteration_has_its_later_value() -> None:
    (inference,) = through_the_wire(sent([int8(5, b"\x01"), int8(5, b"\x02")]))
    assert inference.whole
    assert [value.array.item() for value in inference.tensors[0, 5]] == [2]


def test_the_status_is_passed_on() -> None:
    (inference,) = assembled([int8(0, b"\x01"), Done(0, 1, 1, 1)])
    assert (inference.status, inference.whole) == (1, True)
    (inference,) = assembled([Done(9, 0, 0, 0)])
    assert (inference.number, inference.whole, inference.tensors) == (9, True, {})


DATA = [int8(0, b"\x01" * 40), int8(1, b"\x02" * 40), int8(2, b"\x03")]


@pytest.mark.parametrize("dropped", range(7))
def test_an_inference_that_lacks_a_frame_is_not_whole(dropped: int) -> None:
    messages = sent(DATA, 16)
    assert len(messages) == 8
    rest = messages[:dropped] + messages[dropped + 1 :]
    again = sent([int8(0, b"\x09", inference=1)], number=1)
    first, second = assembled([*rest, *again])
    assert not first.whole
    assert first.why
    assert (second.whole, second.number) == (True, 1)


def test_two_frames_swapped_within_a_tensor_are_not_whole() -> None:
    messages = sent(DATA, 16)
    messages[0], messages[1] = messages[1], messages[0]
    (inference,) = assembled(messages)
    assert not inference.whole
    assert "of tensor 0 of subgraph 0 there are 0 of 40 bytes" in inference.why


def test_two_tensors_swapped_are_not_whole_either() -> None:
    decoder, assembly = Decoder(), Assembly()
    frames = [pack(message, at) for at, message in enumerate(sent(DATA))]
    frames[0], frames[1] = frames[1], frames[0]
    found = [assembly.take(event) for event in decoder.feed(b"".join([pack(HELLO, 255), *frames]))]
    (inference,) = filter(None, found)
    assert not inference.whole
    assert "a frame came behind frames that were sent after it" in inference.why


def test_a_frame_behind_the_end_of_its_inference_makes_no_whole_one() -> None:
    a, b, c, done = sent(DATA)
    again = sent([int8(0, b"\x05", inference=1)], number=1)
    first, straggler, second = assembled([a, b, done, c, *again])
    assert (first.whole, first.why) == (False, "2 of its 3 frames came")
    assert (straggler.number, straggler.why) == (0, "a part of it came behind its end")
    assert second.whole


def test_a_reset_within_a_tensor_drops_the_inference() -> None:
    messages = sent(DATA, 16)
    again = sent([int8(0, b"\x09")])
    assembly = Assembly()
    first, second = assembled([*messages[:2], HELLO, *again], assembly)
    assert (first.whole, first.status) == (False, None)
    assert first.why == "the board started again in the middle of it"
    assert second.whole
    assert (assembly.whole, assembly.broken) == (1, 1)


def test_a_reset_between_inferences_is_none_of_their_business() -> None:
    first, second = assembled([*sent(DATA), HELLO, *sent(DATA)])
    assert first.whole
    assert second.whole


def test_the_end_that_did_not_come() -> None:
    *tensors, _ = sent(DATA)
    first, second = assembled([*tensors, *sent([int8(0, b"\x05", inference=1)], number=1)])
    assert (first.number, first.why) == (0, "its end did not come")
    assert second.whole


def test_the_damage_is_named() -> None:
    decoder, assembly = Decoder(), Assembly()
    frames = [bytearray(pack(message, at)) for at, message in enumerate(sent(DATA))]
    frames[1][20] ^= 1
    (inference,) = filter(None, map(assembly.take, decoder.feed(b"".join(frames))))
    assert inference.why == "2 of its 3 frames came: a frame is damaged: its check sum is wrong"


def test_a_frame_missing_in_the_middle_is_one_even_where_the_counts_fit() -> None:
    """It may have been a HELLO: the board was reset and began the same inference again."""
    decoder, assembly = Decoder(), Assembly()
    a, b, c, done = (pack(message, at) for at, message in enumerate(sent(DATA)))
    late = pack(sent(DATA)[-1], 4)
    (inference,) = filter(None, map(assembly.take, decoder.feed(a + b + c + late)))
    assert inference.why == "frames are missing in the middle of it: a frame is missing"
    (whole,) = filter(None, map(Assembly().take, Decoder().feed(a + b + c + done)))
    assert whole.whole


def test_a_number_may_be_used_again_after_a_drop() -> None:
    assembly = Assembly()
    (broken,) = assembled(sent(DATA)[1:], assembly)
    assert not broken.whole
    assert assembly.drop("run again") is None
    assert assembled(sent(DATA), assembly)[0].whole


def test_another_size_than_the_model_has_is_refused() -> None:
    assembly = Assembly({(0, 0): 40, (0, 1): 41, (0, 2): 1})
    (inference,) = assembled(sent(DATA), assembly)
    assert inference.why == "tensor 1 of subgraph 0 has 40 bytes, not 41"


def test_an_iteration_that_is_missing() -> None:
    (inference,) = assembled(sent([int8(4, b"\x01", iteration=1)]))
    assert "lacks an iteration before number 1" in inference.why


def test_pieces_that_disagree_about_their_tensor() -> None:
    first, second, *_ = pieces(int8(0, bytes(40)), 20)
    other = Tensor(0, 0, 0, 0, "uint8", (40,), 20, second.payload)
    assert not assembled([first, other, Done(0, 0, 1, 2)])[0].whole


def test_memory_is_taken_for_what_has_come_not_for_what_is_claimed() -> None:
    tracemalloc.start()
    try:
        claim = Tensor(0, 0, 0, 0, "int8", (2**31, 2), 0, b"\x01")
        (inference,) = assembled([claim, Done(0, 0, 1, 1)])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
    assert "there are 1 of 4,294,967,296 bytes" in inference.why


def test_an_inference_without_end_is_given_up_at_the_limit() -> None:
    assembly = Assembly(limit=100_000)
    tracemalloc.start()
    try:
        for number in range(3000):
            assert assembly.take(int8(0, b"\x01" * 100, iteration=number)) is None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
    inference = assembly.take(Done(0, 0, 3000, 3000))
    assert inference is not None
    assert (inference.whole, inference.tensors) == (False, {})
    assert "take more than 97.7 KiB" in inference.why


@st.composite
def damaged_streams(draw: st.DrawFn) -> tuple[bytes, int]:
    seed = draw(st.integers(0, 2**32 - 1))
    rng = random.Random(seed)
    messages: list[Message] = [HELLO]
    for number in range(4):
        data = [rng.randbytes(rng.choice([0, 1, 17, 33])) for _ in range(3)]
        tensors = [int8(at, part, inference=number) for at, part in enumerate(data)]
        messages += sent(tensors, 16, number)
    frames = [bytearray(pack(message, at)) for at, message in enumerate(messages)]
    for _ in range(draw(st.integers(0, 4))):
        frame = rng.choice(frames)
        match draw(st.sampled_from(["drop", "flip", "cut", "swap", "text", "repeat", "zero"])):
            case "drop":
                frame.clear()
            case "flip" if frame:
                frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
            case "cut" if frame:
                del frame[rng.randrange(len(frame)) :]
            case "swap":
                a, b = rng.randrange(len(frames)), rng.randrange(len(frames))
                frames[a], frames[b] = frames[b], frames[a]
            case "text":
                frame[rng.randrange(len(frame) + 1) :] = b"printed\r\n"
            case "repeat":
                frame.extend(bytes(frame))
            case "zero" if frame:
                frame.insert(rng.randrange(len(frame)), 0)
    return b"".join(frames), seed


@pytest.mark.slow
@given(damaged_streams())
def test_what_is_called_whole_is_what_was_sent(stream: tuple[bytes, int]) -> None:
    """Whatever is lost, changed, swapped or repeated: no inference that is whole is wrong."""
    data, seed = stream
    rng = random.Random(seed)
    truth = [[rng.randbytes(rng.choice([0, 1, 17, 33])) for _ in range(3)] for _ in range(4)]
    decoder, assembly = Decoder(), Assembly()
    for event in [*decoder.feed(data), *decoder.finish()]:
        inference = assembly.take(event)
        if inference is None or not inference.whole:
            assert inference is None or inference.why
            continue
        came = {place: values[0].array.tobytes() for place, values in inference.tensors.items()}
        assert came == {(0, at): part for at, part in enumerate(truth[inference.number])}
