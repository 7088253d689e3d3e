"""Sound as samples."""

from __future__ import annotations

import tracemalloc
import wave
from pathlib import Path

import numpy as np
import pytest

from layertap.core.feeds import InputSpec
from layertap.errors import FeedError

PCM = np.array([0, 1, -1, 32767, -32768, 100, 200, 300], "<i2")


def write(path, *, channels=1, width=2, data=None):
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(width)
        sound.setframerate(16_000)
        sound.writeframes(PCM.tobytes() if data is None else data)
    return str(path)


def one(inputs):
    (batch,) = inputs
    return batch["x"]


def test_int16_as_it_is_and_real_numbers_otherwise(read, tmp_path):
    path = write(tmp_path / "x.wav")
    x = one(read([InputSpec("x", "int16", (1, 8))], files=[path]))
    assert x.dtype == np.int16
    np.testing.assert_array_equal(x[0], PCM)
    x = one(read([InputSpec("x", "float32", (1, 8, 1))], files=[path]))
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x[0, :, 0], PCM / np.float32(32768))


def test_an_open_length_takes_the_whole_sound(read, tmp_path):
    x = one(read([InputSpec("x", "float32", (1, None))], files=[write(tmp_path / "x.wav")]))
    assert x.shape == (1, 8)


def test_windows(read, tmp_path):
    path = write(tmp_path / "x.wav")
    x = one(read([InputSpec("x", "int16", (1, 4))], files=[path], hop=2))
    np.testing.assert_array_equal(x, [PCM[0:4], PCM[2:6], PCM[4:8]])


def test_what_there_is_and_what_is_wanted(read, shared):
    spec = [InputSpec("x", "int8", (1, 1960))]
    with pytest.raises(FeedError) as caught:
        read(spec, files=[str(shared / "inputs/yes_1000ms.wav")])
    assert "16,000 values (1 s at 16000 Hz, 1 channel)" in caught.value.message
    assert "takes 1960 int8" in caught.value.message


@pytest.mark.parametrize(
    ("options", "told"), [({"channels": 2}, "2 channels"), ({"width": 1}, "8-bit")]
)
def test_other_encodings(read, tmp_path, options, told):
    path = write(tmp_path / "x.wav", **options)
    with pytest.raises(FeedError, match=told):
        read([InputSpec("x", "float32", (1, 8))], files=[path])


def test_a_file_that_is_cut_off(read, tmp_path):
    path = tmp_path / "x.wav"
    whole = Path(write(tmp_path / "whole.wav")).read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(FeedError, match="ends within a sample"):
        read([InputSpec("x", "int16", (1, 8))], files=[str(path)])


def test_a_file_that_is_no_sound(read, tmp_path):
    (tmp_path / "x.wav").write_bytes(b"nothing of the kind")
    with pytest.raises(FeedError, match="cannot read"):
        read([InputSpec("x", "float32", (1, 8))], files=[str(tmp_path / "x.wav")])


@pytest.mark.parametrize("length", range(44))
def test_a_file_that_ends_before_the_sound_says_so(read, tmp_path, length):
    path = tmp_path / "x.wav"
    path.write_bytes(Path(write(tmp_path / "whole.wav")).read_bytes()[:length])
    with pytest.raises(FeedError, match=r"cannot read .*x.wav: \w") as caught:
        read([InputSpec("x", "int16", (1, 8))], files=[str(path)])
    assert "16-bit PCM" in caught.value.hint


def test_a_header_that_says_more_than_there_is(read, tmp_path):
    content = bytearray(Path(write(tmp_path / "x.wav")).read_bytes())
    content[4:8] = content[40:44] = (0xFFFFFFF0).to_bytes(4, "little")
    (tmp_path / "x.wav").write_bytes(content)
    tracemalloc.start()
    x = one(read([InputSpec("x", "int16", (1, 8))], files=[str(tmp_path / "x.wav")]))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    np.testing.assert_array_equal(x[0], PCM)


def test_a_long_sound_is_made_real_window_by_window(read, tmp_path):
    data = np.arange(1 << 22, dtype="<i2")
    path = write(tmp_path / "x.wav", data=data.tobytes())
    tracemalloc.start()
    inputs = read([InputSpec("x", "float32", (1, 1 << 12))], files=[path], batch_size=4)
    ends = [batch["x"][-1, -1] for batch in inputs]
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(ends, data[(1 << 14) - 1 :: 1 << 14] / np.float32(32768))
    assert most < 1.5 * data.nbytes
