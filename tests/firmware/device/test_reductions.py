"""Slices, summaries and histograms of layertap.h against NumPy, under the sanitizers."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from testboard import DTYPES
from toolchain import SANITIZERS, WARNINGS, compiled

from layertap.core.dtypes import Array, numpy_dtype

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
OK, OUT_OF_RANGE, NO_ROOM, CANNOT = 0, 2, 3, 4
WHOLE, SLICE, SUMMARY, HISTOGRAM = range(4)
COMPLEX = ("complex64", "complex128")
ORDERED = [name for name in DTYPES if name not in (*COMPLEX, "int4")]


@dataclass(frozen=True)
class Request:
    dtype: str
    value: Array
    form: int
    a: int = 0
    b: int = 0
    low: float = 0.0
    high: float = 0.0
    words: int = 64

    def packed(self) -> bytes:
        data = self.value.tobytes()
        head = (DTYPES[self.dtype], len(data), self.words, self.form, self.a, self.b)
        return struct.pack("<6I2f", *head, self.low, self.high) + data


@dataclass(frozen=True)
class Result:
    status: int
    form: int
    first: int
    count: int
    data: bytes


@pytest.fixture(scope="module", params=["gcc", "clang"])
def reducer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    flags = ("-std=c99", "-O1", *WARNINGS, *SANITIZERS)
    program = tmp_path_factory.mktemp("reduce") / "reduce"
    return compiled(request.param, [HERE / "reduce.c"], program, *flags)


def reduced(program: Path, requests: Sequence[Request]) -> list[Result]:
    sent = b"".join(request.packed() for request in requests)
    done = subprocess.run([program], input=sent, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return list(_results(done.stdout))


def _results(data: bytes) -> Iterator[Result]:
    at = 0
    while at < len(data):
        status, form, first, count, size = struct.unpack_from("<5I", data, at)
        yield Result(status, form, first, count, data[at + 20 : at + 20 + size])
        at += 20 + size


def numbers(name: str, count: int, seed: int = 0) -> Array:
    """Values over the whole range of a type, its ends included, NaN and infinities too."""
    rng = np.random.default_rng(seed)
    dtype = numpy_dtype(name)
    assert dtype is not None
    if name == "bool":
        return rng.integers(0, 2, count).astype(bool)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        value = rng.integers(info.min, info.max, count, dtype, endpoint=True)
        value[0], value[-1] = info.max, info.min
        return value
    value = (rng.standard_normal(count) * 100).astype(dtype)
    value[::7] = np.nan
    return value


@pytest.mark.parametrize("name", ORDERED)
def test_summaries(reducer: Path, name: str) -> None:
    dtype = numpy_dtype(name)
    values = [numbers(name, count, count) for count in (1, 2, 3, 50, 1001)]
    results = reduced(reducer, [Request(name, value, SUMMARY) for value in values])
    for value, result in zip(values, results, strict=True):
        assert (result.status, result.form) == (OK, SUMMARY)
        wide = value.astype(np.float64)
        kept = value[~np.isnan(wide)]
        ends = np.frombuffer(result.data[:-4], dtype)
        mean = np.frombuffer(result.data[-4:], np.float32)[0]
        if not len(kept):
            assert (list(ends), np.isnan(mean)) == ([0, 0], True)
            continue
        assert ends[0] == kept.min()
        assert ends[1] == kept.max()
        np.testing.assert_allclose(mean, kept.astype(np.float64).mean(), rtol=2e-7)


@pytest.mark.parametrize("name", ORDERED)
def test_histograms(reducer: Path, name: str) -> None:
    values = [numbers(name, count, count) for count in (1, 50, 1001)]
    ranges = [(-1.0, 1.0, 10), (0.0, 255.0, 64), (-3e38, 3e38, 3), (0.1, 0.7, 1)]
    requests = [
        Request(name, value, HISTOGRAM, a=bins, low=low, high=high)
        for value in values
        for low, high, bins in ranges
    ]
    for asked, result in zip(requests, reduced(reducer, requests), strict=True):
        assert (result.status, result.form, result.count) == (OK, HISTOGRAM, asked.a)
        counts = np.frombuffer(result.data, np.uint32)
        np.testing.assert_array_equal(counts, histogram(asked), err_msg=f"{asked.low} {asked.a}")


def histogram(asked: Request) -> Array:
    """Counts in bins of equal width; what lies outside goes to the first and the last."""
    value = asked.value.astype(np.float64)
    value = value[~np.isnan(value)]
    low, high = np.float64(np.float32(asked.low)), np.float64(np.float32(asked.high))
    with np.errstate(over="ignore"):
        place = np.floor((value - low) * (asked.a / (high - low)))
    return np.bincount(np.clip(place, 0, asked.a - 1).astype(int), minlength=asked.a)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_every_half_is_read_as_numpy_reads_it(reducer: Path, name: str) -> None:
    dtype = numpy_dtype(name)
    every = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    requests = [Request(name, every[i : i + 1], SUMMARY) for i in range(1 << 16)]
    means = b"".join(result.data[-4:] for result in reduced(reducer, requests))
    np.testing.assert_array_equal(np.frombuffer(means, np.float32), every.astype(np.float32))


def test_slices(reducer: Path) -> None:
    for name in [*ORDERED, *COMPLEX]:
        dtype = numpy_dtype(name)
        assert dtype is not None
        value = np.arange(11).astype(dtype)
        wanted = [(0, 11), (3, 4), (10, 1), (11, 0)]
        results = reduced(reducer, [Request(name, value, SLICE, a, b) for a, b in wanted])
        for (first, count), result in zip(wanted, results, strict=True):
            assert (result.status, result.first, result.count) == (OK, first, count)
            assert result.data == value[first : first + count].tobytes()


def test_empty_tensors(reducer: Path) -> None:
    nothing = np.zeros(0, np.int16)
    forms = [Request("int16", nothing, form, a=2, low=0, high=1) for form in (2, 3)]
    summary, counts = reduced(reducer, forms)
    assert summary.data == bytes(4) + struct.pack("<f", np.nan)
    assert counts.data == bytes(8)


def test_what_cannot_be_reduced_is_left_alone(reducer: Path) -> None:
    value = np.arange(8, dtype=np.int8)
    cases = [
        (Request("int8", value, WHOLE), OK),
        (Request("int8", value, SLICE, 9, 0), OUT_OF_RANGE),
        (Request("int8", value, SLICE, 8, 1), OUT_OF_RANGE),
        (Request("int8", value, SLICE, 1, 0xFFFFFFFF), OUT_OF_RANGE),
        (Request("int8", value, HISTOGRAM, 0, low=0, high=1), OUT_OF_RANGE),
        (Request("int8", value, HISTOGRAM, 4, low=1, high=1), OUT_OF_RANGE),
        (Request("int8", value, HISTOGRAM, 4, low=0, high=float("nan")), OUT_OF_RANGE),
        (Request("int8", value, HISTOGRAM, 4, low=0, high=float("inf")), OUT_OF_RANGE),
        (Request("int8", value, HISTOGRAM, 65, low=0, high=1), NO_ROOM),
        (Request("int8", value, HISTOGRAM, 0xFFFFFFFF, low=0, high=1), NO_ROOM),
        (Request("int8", value, SUMMARY, words=1), NO_ROOM),
        (Request("int4", value, SLICE, 0, 1), CANNOT),
        (Request("int4", value, SUMMARY), CANNOT),
        (Request("complex64", value, SUMMARY), CANNOT),
        (Request("complex128", value, HISTOGRAM, 4, low=0, high=1), CANNOT),
        (Request("int8", value, 9), CANNOT),
    ]
    results = reduced(reducer, [request for request, _ in cases])
    assert [result.status for result in results] == [status for _, status in cases]
    assert all(result == Result(result.status, 0, 0, 0, value.tobytes()) for result in results)
