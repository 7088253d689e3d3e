"""Raw binary files, windows and scaling."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from layertap.cli.inputs.given import Scaling
from layertap.core.feeds import InputSpec
from layertap.core.quantization import Quantization
from layertap.errors import FeedError

FLOATS = [InputSpec("x", "float32", (1, 4))]


def gathered(inputs):
    return np.concatenate([batch["x"] for batch in inputs])


@pytest.fixture
def numbers(tmp_path):
    path = tmp_path / "x.bin"
    np.arange(12, dtype="<f4").tofile(path)
    return str(path)


def test_whole_samples_of_the_models_dtype(read, numbers):
    inputs = read(FLOATS, files=[numbers], batch_size=2)
    np.testing.assert_array_equal(gathered(inputs), np.arange(12).reshape(3, 4))
    assert inputs.notes == [f"{numbers}: 3 samples of float32, the model's dtype"]


def test_overlapping_samples(read, numbers):
    inputs = read(FLOATS, files=[numbers], hop=2, batch_size=3)
    wanted = [np.arange(start, start + 4) for start in range(0, 9, 2)]
    np.testing.assert_array_equal(gathered(inputs), wanted)


def test_another_dtype_than_the_models(read, numbers):
    spec = [InputSpec("x", "int8", (1, 4))]
    x = gathered(read(spec, files=[numbers], dtype="float32"))
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, np.arange(12).reshape(3, 4))


@pytest.mark.parametrize(("shape", "told"), [((1, 5), "12 values"), ((1, 13), "12 values")])
def test_not_a_whole_number_of_samples(read, numbers, shape, told):
    with pytest.raises(FeedError, match=told) as caught:
        read([InputSpec("x", "float32", shape)], files=[numbers])
    assert "--hop" in caught.value.hint


def test_not_a_whole_number_of_values(read, tmp_path):
    (tmp_path / "x.raw").write_bytes(b"12345")
    with pytest.raises(FeedError, match="5 bytes"):
        read(FLOATS, files=[str(tmp_path / "x.raw")])


@pytest.mark.parametrize("dtype", ["object", "str", "float31", "f4,f4"])
def test_what_is_no_dtype_of_numbers(read, numbers, dtype):
    with pytest.raises(FeedError, match="no dtype of numbers"):
        read(FLOATS, files=[numbers], dtype=dtype)


def test_real_frames(read, shared):
    path = shared / "inputs/ad01_normal.bin"
    inputs = read([InputSpec("x", "float32", (1, 640))], files=[str(path)], hop=128)
    numbers = np.fromfile(path, "<f4")
    x = gathered(inputs)
    assert len(x) == (len(numbers) - 640) // 128 + 1
    np.testing.assert_array_equal(x[-1], numbers[128 * (len(x) - 1) :][:640])


def test_scaling_is_exact_for_integers():
    pixels = np.array([0, 127, 255], np.uint8)
    shifted = Scaling(offset=Fraction(-128))(pixels)
    assert shifted.dtype.kind == "i"
    assert shifted.tolist() == [-128, -1, 127]
    unit = Scaling(Fraction(1, 255))(pixels)
    assert unit.dtype == np.float32
    assert unit.tolist() == [0, np.float32(127 / 255), 1]
    assert Scaling(Fraction(2), Fraction(1))(np.float32([0.5])).tolist() == [2]
    assert Scaling()(pixels) is pixels


INT8 = [InputSpec("x", "int8", (1, 3), Quantization((0.5,), (-128,)))]


@pytest.fixture
def bytes_file(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.array([[0, 128, 255]], np.uint8))
    return str(path)


def test_integers_that_scaling_gives_are_codes(read, bytes_file):
    x = gathered(read(INT8, files=[bytes_file], scaling=Scaling(offset=Fraction(-128))))
    assert x.dtype == np.int8
    assert x.tolist() == [[-128, 0, 127]]
    scaling = Scaling(Fraction(2), Fraction(-256))
    with pytest.raises(
        FeedError, match="from -256 to 254; those of int8 are -128 to 127"
    ) as caught:
        gathered(read(INT8, files=[bytes_file], scaling=scaling))
    assert "--offset" in caught.value.hint
    for offset, told in ((-129, "from -129"), (-127, "to 128")):
        with pytest.raises(FeedError, match=told):
            gathered(read(INT8, files=[bytes_file], scaling=Scaling(offset=Fraction(offset))))


def test_what_scaling_makes_real_is_real(read, bytes_file):
    x = gathered(read(INT8, files=[bytes_file], scaling=Scaling(Fraction(1, 255))))
    assert x.dtype == np.float32
    assert x.tolist() == [[0, np.float32(128 / 255), 1]]


def test_integers_of_a_file_may_be_either_and_are_refused(read, bytes_file, tmp_path):
    with pytest.raises(FeedError, match="uint8: are these codes of int8, or real") as caught:
        gathered(read(INT8, files=[bytes_file]))
    assert "--offset 0" in caught.value.hint
    assert "--scale 1/255" in caught.value.hint
    np.save(tmp_path / "y.npy", np.array([[1, 2, 3]]))
    x = gathered(read(INT8, files=[str(tmp_path / "y.npy")], scaling=Scaling(offset=Fraction(0))))
    assert x.dtype == np.int8
    assert x.tolist() == [[1, 2, 3]]
    unsigned = [InputSpec("x", "uint8", (1, 3), Quantization((0.5,), (0,)))]
    assert gathered(read(unsigned, files=[bytes_file])).dtype == np.uint8
    no_scale = [InputSpec("x", "int32", (1, 3))]
    assert gathered(read(no_scale, files=[bytes_file])).tolist() == [[0, 128, 255]]
