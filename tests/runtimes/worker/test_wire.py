from __future__ import annotations

import io

import ml_dtypes
import numpy as np
import pytest

from layertap.runtimes.worker.wire import receive, send


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.array(5, np.int8),
        np.zeros((0, 3), np.int16),
        np.array([True, False]),
        np.array([1 + 2j], np.complex64),
        np.array([1.5], ml_dtypes.bfloat16),
        np.array([-3, 7], ml_dtypes.int4),
        np.arange(6).reshape(2, 3).T,
    ],
)
def test_arrays_come_back_and_belong_to_the_receiver(array: np.ndarray) -> None:
    stream = io.BytesIO()
    send(stream, {"do": "it"}, [array, array])
    stream.seek(0)
    header, (first, _) = receive(stream)
    assert header == {"do": "it"}
    assert (first.dtype, first.shape) == (array.dtype, array.shape)
    assert first.tobytes() == array.tobytes()
    assert first.flags.writeable
    assert stream.read() == b""


def test_a_cut_message_is_the_end() -> None:
    stream = io.BytesIO()
    send(stream, {}, [np.ones(4)])
    whole = stream.getvalue()
    for size in (0, 3, 8, len(whole) - 1):
        with pytest.raises(EOFError):
            receive(io.BytesIO(whole[:size]))
