"""What every store must do, as tests to inherit."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layertap.core.captures import Run
from layertap.core.dtypes import Array, numpy_dtype
from layertap.core.graph import Per, TapPoint
from layertap.core.protocols import Json, Remembering, Sink
from layertap.core.quantization import Quantization
from layertap.errors import StoreError

DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128", "bfloat16", "int4", "uint4"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
)

NAMES = (
    *(
        "",
        ".",
        "..",
        "/",
        "a/b",
        "a_b",
        "a b",
        "A_B",
        "__x",
        "__",
        "sample",
        "zarr.json",
        "c.0",
        "c",
    ),
    *(
        "tail.0",
        "x.",
        ".zarray",
        "NUL",
        "con.1",
        "batch",
        "ö",
        "层/卷积:0",
        "\ud800",
        "a\nb",
        "%2e%2e",
    ),
    *("n" * 300, "n" * 301, "a~samples", "a~2", "StatefulPartitionedCall:0;dense/BiasAdd", "-"),
    *("../../etc/passwd", "partial", "lock", "journal.jsonl", "sample~axis1"),
)


def make_tap(name: str, dtype: str = "float32", per: Per = "sample", **more: Any) -> TapPoint:
    """A tap point of unknown shape."""
    given = {"kind": "activation", "op": "ADD", "shape": None, "index": 0, **more}
    return TapPoint(name=name, dtype=dtype, per=per, **given)


def random_bits(dtype: str, shape: tuple[int, ...], seed: int = 0) -> Array:
    """Every bit pattern that ``dtype`` has may occur, NaNs with payloads included."""
    kind = numpy_dtype(dtype)
    assert kind is not None
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.random(shape) < 0.5
    if dtype in ("int4", "uint4"):
        low = -8 if dtype == "int4" else 0
        return rng.integers(low, low + 16, shape).astype(kind)
    count = int(np.prod(shape)) * kind.itemsize
    return rng.integers(0, 256, count, dtype=np.uint8).view(kind).reshape(shape)


def assert_same_bits(found: Any, expected: Array) -> None:
    """Equal dtype, shape and bytes."""
    assert isinstance(found, np.ndarray)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()


def feed_of(first: int, samples: int) -> dict[str, Array]:
    """The feed of ``samples`` samples from number ``first`` on: it tells them apart."""
    numbers = np.arange(first, first + samples, dtype=np.float32)
    return {"x": np.repeat(numbers[:, None], 2, axis=1)}


def write_executions(store: Sink, tap: TapPoint, tensors: Array) -> None:
    """Write the tensors (n, *shape) of n executions the way a run does."""
    if tap.name in store.demoted:
        store.write(replace(tap, per="batch"), tensors)
    else:
        rows = [np.moveaxis(tensor, tap.batch_axis, 0) for tensor in tensors]
        store.write(tap, np.concatenate(rows))


@dataclass(frozen=True)
class Commit:
    """``times`` executions of ``samples`` samples each; in some, a tap does not occur."""

    samples: int
    times: int
    width: int
    present: bool

    def tensors(self, axis: int, seed: int) -> Array:
        """What the tap holds, bfloat16 (times, ..., samples, ...) with the samples on ``axis``."""
        shape = [self.width, 2, self.width]
        shape.insert(axis, self.samples)
        return random_bits("bfloat16", (self.times, *shape), seed)


COMMITS = st.lists(
    st.builds(Commit, st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.booleans()),
    min_size=1,
    max_size=6,
)


class StoreSuite:
    """Tests to inherit. Implement ``make_store`` and ``load``."""

    def make_store(
        self, folder: Path, taps: Sequence[TapPoint], provenance: Mapping[str, Json]
    ) -> Sink:
        """A new store; ``folder`` exists, is empty, and this store's alone."""
        raise NotImplementedError

    def load(self, folder: Path, store: Sink) -> Run:
        """What ``store``, closed or not, has committed."""
        raise NotImplementedError

    @contextmanager
    def filled(
        self, taps: Sequence[TapPoint], batches: Sequence[Mapping[str, Array]]
    ) -> Iterator[Run]:
        """The run of batches that give the rows by tap name; closed as complete."""
        with tempfile.TemporaryDirectory(prefix="layertap-") as name:
            store = self.make_store(Path(name), taps, {"runtime": "none"})
            by_name = {tap.name: tap for tap in taps}
            for batch in batches:
                for tap, rows in batch.items():
                    store.write(by_name[tap], rows)
                samples = max([len(v) for n, v in batch.items() if by_name[n].per == "sample"])
                store.commit(samples, feed_of(store.samples, samples))
            store.close(True)
            yield self.load(Path(name), store)

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 2, 3, 2)])
    def test_every_bit_of_every_dtype_survives(self, dtype: str, shape: tuple[int, ...]) -> None:
        rows = random_bits(dtype, shape)
        with self.filled([make_tap("t", dtype)], [{"t": rows[:2]}, {"t": rows[2:]}]) as run:
            assert_same_bits(run["t"].raw, rows)

    # Every store that inherits the suite runs it with an executor of its own, as it should.
    @settings(
        deadline=None,
        max_examples=25,
        suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
    )
    @given(
        cuts=st.lists(st.integers(1, 9), min_size=1, max_size=6),
        width=st.integers(0, 5),
        dtype=st.sampled_from(DTYPES),
        pieces=st.integers(1, 3),
        seed=st.integers(0, 999),
    )
    def test_rows_are_the_same_however_they_come(
        self, cuts: list[int], width: int, dtype: str, pieces: int, seed: int
    ) -> None:
        """In batches of any size, each in one write or several."""
        rows = random_bits(dtype, (sum(cuts), width), seed)
        tap = make_tap("t", dtype)
        with tempfile.TemporaryDirectory(prefix="layertap-") as name:
            store = self.make_store(Path(name), [tap], {})
            for count in cuts:
                batch = rows[store.samples : store.samples + count]
                for piece in np.array_split(batch.view(np.uint8).reshape(count, -1), pieces):
                    store.write(tap, piece.view(rows.dtype).reshape(len(piece), width))
                store.commit(count, feed_of(store.samples, count))
            store.close(True)
            run = self.load(Path(name), store)
            assert run.samples == len(rows)
            assert_same_bits(run["t"].raw, rows)
            low, high = sorted((seed % (len(rows) + 1), seed // 7 % (len(rows) + 1)))
            assert_same_bits(run["t"][low:high].raw, rows[low:high])

    @pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 0, 2)])
    def test_rows_without_elements(self, shape: tuple[int, ...]) -> None:
        rows = np.empty((4, *shape), np.float32)
        with self.filled([make_tap("t")], [{"t": rows}, {"t": rows}]) as run:
            assert_same_bits(run["t"].raw, np.empty((8, *shape), np.float32))
            assert run["t"].samples.tolist() == list(range(8))

    def test_byte_order_and_strides_of_the_writer_do_not_matter(self) -> None:
        rows = np.arange(24, dtype=">i4").reshape(4, 6)[:, ::2]
        with self.filled([make_tap("t", "int32")], [{"t": rows}]) as run:
            np.testing.assert_array_equal(run["t"].raw, rows)
            assert run["t"].raw.dtype.name == "int32"

    def test_values_per_batch_and_per_run(self) -> None:
        taps = [make_tap("w", per="run"), make_tap("b", per="batch"), make_tap("s")]
        weight = random_bits("float32", (2, 3))
        scalar = [np.array([float(i)], np.float32) for i in range(3)]
        batches: list[dict[str, Array]] = [
            {"b": scalar[i], "s": np.full((n, 2), i, np.float32)} for i, n in enumerate((3, 1, 2))
        ]
        batches[0] = {"w": weight, **batches[0]}
        with self.filled(taps, batches) as run:
            assert_same_bits(run["w"].raw, weight)
            assert_same_bits(run["b"].raw, np.arange(3, dtype=np.float32))
            assert run["b"].samples.tolist() == [0, 1, 2]
            assert run["s"].samples.tolist() == [0, 1, 2, 3, 4, 5]

    @pytest.mark.parametrize("value", [np.float32(1.5), np.empty((0, 3)), np.arange(6)])
    def test_a_value_per_run_has_any_shape(self, value: Any) -> None:
        value = np.asarray(value)
        tap = make_tap("w", value.dtype.name, "run")
        with self.filled([tap, make_tap("s")], [{"w": value, "s": np.zeros((1, 1))}]) as run:
            assert_same_bits(run["w"].raw, value)

    def test_shapes_that_differ_between_samples(self) -> None:
        shapes = [(4,), (4,), (7,), (0,), (2, 3), (), (4,)]
        rows = [random_bits("bfloat16", (2, *shape), seed) for seed, shape in enumerate(shapes)]
        tap = make_tap("t", "bfloat16")
        with self.filled([tap], [{"t": batch} for batch in rows]) as run:
            found, expected = run["t"].raw, [row for batch in rows for row in batch]
            assert isinstance(found, list)
            for one, other in zip(found, expected, strict=True):
                assert_same_bits(one, other)
            for one, other in zip(run["t"][3:9].raw, expected[3:9], strict=True):
                assert_same_bits(one, other)
            assert run["t"][5:5].raw == []
            assert run["t"].samples.tolist() == list(range(14))

    def test_a_shape_may_change_within_a_batch(self) -> None:
        tap = make_tap("t")
        with tempfile.TemporaryDirectory(prefix="layertap-") as name:
            store = self.make_store(Path(name), [tap], {})
            store.write(tap, np.zeros((2, 3), np.float32))
            store.write(tap, np.ones((1, 5), np.float32))
            store.commit(3, feed_of(0, 3))
            store.close(True)
            found = self.load(Path(name), store)["t"].raw
            assert [row.tolist() for row in found] == [[0.0] * 3, [0.0] * 3, [1.0] * 5]

    @pytest.mark.parametrize("present", ["001101", "110010", "100000", "000000", "111110"])
    def test_taps_that_some_batches_lack(self, present: str) -> None:
        """Rows hold what there was, and ``samples`` tells which samples it belongs to."""
        taps = [make_tap("always"), make_tap("t", "int16"), make_tap("b", per="batch")]
        batches = []
        for i, there in enumerate(present):
            batch = {"always": np.zeros((2, 1), np.float32)}
            if there == "1":
                batch["t"] = np.full((2, 3), i, np.int16)
                batch["b"] = np.full((1,), i, np.float32)
            batches.append(batch)
        numbers = [i for i, there in enumerate(present) if there == "1"]
        with self.filled(taps, batches) as run:
            assert run["t"].samples.tolist() == [2 * i + j for i in numbers for j in (0, 1)]
            assert run["b"].samples.tolist() == numbers
            if numbers:
                assert run["t"].raw[::2, 0].tolist() == numbers
                assert run["b"].raw.tolist() == numbers
            else:
                assert len(run["t"].raw) == len(run["t"]) == 0

    def test_ragged_and_missing_together(self) -> None:
        taps = [make_tap("always"), make_tap("t")]
        batches = []
        for i in range(8):
            batch = {"always": np.zeros((1, 1), np.float32)}
            if i % 3:
                batch["t"] = np.full((1, i), i, np.float32)
            batches.append(batch)
        with self.filled(taps, batches) as run:
            assert run["t"].samples.tolist() == [1, 2, 4, 5, 7]
            assert [row.tolist() for row in run["t"].raw] == [[i] * i for i in (1, 2, 4, 5, 7)]

    def test_names_of_any_kind_stay_apart(self) -> None:
        taps = [make_tap(name, index=i) for i, name in enumerate(NAMES)]
        batch = {name: np.full((2, 2), i, np.float32) for i, name in enumerate(NAMES)}
        with self.filled(taps, [batch]) as run:
            assert list(run) == list(NAMES)
            for i, name in enumerate(NAMES):
                assert run[name].raw.tolist() == [[i, i], [i, i]]

    def test_more_taps_than_files_may_be_open(self) -> None:
        taps = [make_tap(f"t{i}") for i in range(150)]
        batch = {tap.name: np.full((1, 1), i, np.float32) for i, tap in enumerate(taps)}
        with self.filled(taps, [batch, batch]) as run:
            for i, tap in enumerate(taps):
                assert run[tap.name].raw.tolist() == [[i], [i]]

    def test_taps_and_provenance_are_kept(self) -> None:
        quantization = Quantization((0.1, 0.25), (0, -3), axis=1)
        tap = TapPoint(
            "t", "output", "CONV_2D", "int8", (None, 2), 17, 1, quantization, operands=("a", "b")
        )
        middle = replace(tap, name="middle", shape=(2, None), batch_axis=1, quantization=None)
        one = np.array([[10, 1]], np.int8)
        with self.filled([tap, middle], [{"t": one, "middle": one}]) as run:
            assert list(run.taps) == [tap, middle]
            assert run.provenance["runtime"] == "none"
            assert run.complete
            np.testing.assert_array_equal(run["t"].values, [[np.float32(1.0), np.float32(1.0)]])

    def gone_on_with(
        self, folder: Path, store: Sink, taps: Sequence[TapPoint], stop: bool
    ) -> tuple[Sink, list[tuple[int, int]]]:
        """The store, closed and opened again where it can be and ``stop`` says so, and what a run
        then takes the executions so far for. None where they are as they were."""
        return store, []

    @settings(
        deadline=None,
        max_examples=60,
        suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
    )
    @given(
        commits=COMMITS,
        axis=st.integers(0, 3),
        at=st.integers(0, 5),
        pending=st.integers(0, 3),
        stop=st.integers(0, 6),
    )
    def test_a_tap_may_turn_out_to_have_no_axis_of_samples(
        self, commits: list[Commit], axis: int, at: int, pending: int, stop: int
    ) -> None:
        """Within any batch, with rows of it pending or not, in a run that is resumed or not."""
        tap, taps = self._taps_to_demote(axis)
        tensors = [one.tensors(axis, i) for i, one in enumerate(commits)]
        with tempfile.TemporaryDirectory(prefix="layertap-") as name:
            store = self.make_store(Path(name), taps, {})
            executed: list[tuple[int, int]] = []
            for i, one in enumerate(commits):
                store, seen = self.gone_on_with(Path(name), store, taps, i == stop)
                executed = seen or executed
                done = min(pending, one.times) if i == at else 0
                self._write_one(store, taps, one, tensors[i], done)
                if i == at:
                    more = [(one.samples, done)] * (done > 0 and one.present)
                    store.demote(tap, [*executed, *more])
                    store.note({"demoted": [tap.name]})
                if one.present and done < one.times:
                    write_executions(store, tap, tensors[i][done:])
                samples = one.samples * one.times
                store.commit(samples, feed_of(store.samples, samples), one.times)
                executed.append((one.samples, one.times))
            store.close(True)
            run = self.load(Path(name), store)
            (self._check_demoted if at < len(commits) else self._check_kept)(run, commits, tensors)

    def _taps_to_demote(self, axis: int) -> tuple[TapPoint, list[TapPoint]]:
        tap = make_tap("t", "bfloat16", batch_axis=axis)
        return tap, [make_tap("before"), tap, make_tap("b", per="batch")]

    def _write_one(
        self, store: Sink, taps: Sequence[TapPoint], one: Commit, tensors: Array, done: int
    ) -> None:
        """All but the executions of the tap from ``done`` on."""
        before, tap, batch = taps
        store.write(before, np.full((one.samples * one.times, 2), store.samples, np.float32))
        store.write(batch, np.full((one.times, 1), store.samples, np.float32))
        if one.present and done:
            write_executions(store, tap, tensors[:done])

    def _check_demoted(self, run: Run, commits: list[Commit], tensors: list[Array]) -> None:
        assert run["t"].tap.per == "batch"
        assert run.provenance["demoted"] == ["t"]
        times = [one.times for one in commits]
        there = np.repeat([one.present for one in commits], times)
        assert run["t"].samples.tolist() == np.flatnonzero(there).tolist()
        expected = [
            t for one, many in zip(commits, tensors, strict=True) if one.present for t in many
        ]
        found = run["t"].raw
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same_bits(one, other)
        if len({tensor.shape for tensor in expected}) == 1:
            assert isinstance(found, np.ndarray)
        self._check_others(run, commits)

    def _check_kept(self, run: Run, commits: list[Commit], tensors: list[Array]) -> None:
        assert run["t"].tap.per == "sample"
        axis = run["t"].tap.batch_axis
        expected = [
            row
            for one, many in zip(commits, tensors, strict=True)
            if one.present
            for t in many
            for row in np.moveaxis(t, axis, 0)
        ]
        found = run["t"].raw
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same_bits(one, np.ascontiguousarray(other))
        self._check_others(run, commits)

    def _check_others(self, run: Run, commits: list[Commit]) -> None:
        starts = np.cumsum([0, *(one.samples * one.times for one in commits)])
        assert run.samples == starts[-1]
        sizes = [one.samples * one.times for one in commits]
        assert run["before"].raw[:, 0].tolist() == np.repeat(starts[:-1], sizes).tolist()
        times = [one.times for one in commits]
        assert run["b"].raw[:, 0].tolist() == np.repeat(starts[:-1], times).tolist()

    def test_a_demotion_that_is_not_committed_takes_no_value_away(self, tmp_path: Path) -> None:
        tap = make_tap("t")
        store = self.make_store(tmp_path, [tap], {})
        for i in range(2):
            store.write(tap, np.full((3, 2), i, np.float32))
            store.commit(3, feed_of(3 * i, 3))
        store.write(tap, np.full((3, 2), 9, np.float32))
        store.demote(tap, [(3, 2), (3, 1)])
        store.close(False)
        run = self.load(tmp_path, store)
        assert (run.samples, run["t"].raw.size) == (6, 12)
        assert run["t"].raw.reshape(6, 2)[:, 0].tolist() == [0, 0, 0, 1, 1, 1]

    def test_batches_are_counted_where_no_tap_has_a_row_of_each(self, tmp_path: Path) -> None:
        """A row per batch knows its batch, also when others were captured without one."""
        taps = [make_tap("s"), make_tap("b", per="batch")]
        store = self.make_store(tmp_path, taps, {})
        for i in range(3):
            store.write(taps[0], np.zeros((4, 1), np.float32))
            if i != 1:
                store.write(taps[1], np.full((2, 1), i, np.float32))
            store.commit(4, feed_of(4 * i, 4), 2)
        store.close(True)
        assert self.load(tmp_path, store)["b"].samples.tolist() == [0, 1, 4, 5]

    def test_what_is_handed_out_is_the_readers_own(self) -> None:
        """Whatever is done with it, the next reader gets what was captured."""
        taps = [make_tap("one"), make_tap("two"), make_tap("ragged"), make_tap("w", per="run")]
        shared = np.arange(6, dtype=np.float32).reshape(3, 2)
        first = {"one": shared, "two": shared, "ragged": shared, "w": shared.copy()}
        wider = np.ones((3, 4), np.float32)
        second = {"one": shared + 6, "two": shared + 6, "ragged": wider}
        with self.filled(taps, [first, second]) as run:
            expected = {name: run[name].raw for name in run}
            for name in run:
                for capture in (run[name], run[name][0:1], run[name][:4]):
                    for read in (capture.raw, capture.values, capture.samples):
                        for array in read if isinstance(read, list) else [read]:
                            array[...] = 99
            assert run["one"].samples.tolist() == list(range(6))
            for name in run:
                pairs = zip(run[name].raw, expected[name], strict=True)
                assert all(np.array_equal(one, other) for one, other in pairs), name
            np.testing.assert_array_equal(run["two"].raw[3:], shared + 6)

    def test_a_dtype_that_changes_is_refused(self, tmp_path: Path) -> None:
        tap = make_tap("t")
        store = self.make_store(tmp_path, [tap], {})
        store.write(tap, np.zeros((2, 3), np.float32))
        with pytest.raises(StoreError, match="changed its type from float32 to float64"):
            store.write(tap, np.zeros((2, 3), np.float64))
        store.close(False)

    def test_facts_are_added_to_the_provenance(self, tmp_path: Path) -> None:
        tap = make_tap("t")
        store = self.make_store(tmp_path, [tap], {"runtime": "none"})
        store.note({"clipped": {"x": 1}, "seen": [1]})
        store.write(tap, np.zeros((1, 2), np.float32))
        store.commit(1, feed_of(0, 1))
        store.note({"clipped": {"x": 3}})
        store.close(True)
        facts = self.load(tmp_path, store).provenance
        assert (facts["runtime"], facts["clipped"], facts["seen"]) == ("none", {"x": 3}, [1])

    def test_only_what_is_committed_counts(self, tmp_path: Path) -> None:
        tap = make_tap("t")
        store = self.make_store(tmp_path, [tap], {})
        store.write(tap, np.zeros((3, 2), np.float32))
        store.commit(3, feed_of(0, 3))
        store.write(tap, np.ones((2, 2), np.float32))
        assert store.samples == 3
        store.close(False)
        store.close(False)
        run = self.load(tmp_path, store)
        assert (run.samples, len(run["t"]), run.complete) == (3, 3, False)
        assert_same_bits(run["t"].raw, np.zeros((3, 2), np.float32))

    def test_what_a_session_met_with_is_remembered(self, tmp_path: Path) -> None:
        tap = make_tap("t")
        store = self.make_store(tmp_path, [tap], {"runtime": "none"})
        if not isinstance(store, Remembering):
            return
        store.write(tap, np.zeros((1, 2), np.float32))
        store.commit(1, feed_of(0, 1))
        store.remember({"lost": 3})
        store.close(True)
        provenance = self.load(tmp_path, store).provenance
        assert (provenance["runtime"], provenance["observed"]) == ("none", {"lost": 3})


class PersistentStoreSuite(StoreSuite):
    """For stores whose runs can be gone on with. Implement ``resume`` too."""

    def resume(
        self, folder: Path, taps: Sequence[TapPoint], provenance: Mapping[str, Json]
    ) -> Sink:
        """The run in ``folder``, which was closed or whose writer is gone, to go on with."""
        raise NotImplementedError

    def gone_on_with(
        self, folder: Path, store: Sink, taps: Sequence[TapPoint], stop: bool
    ) -> tuple[Sink, list[tuple[int, int]]]:
        if not stop:
            return store, []
        store.close(False)
        again = self.resume(folder, taps, {})
        if not again.samples:
            return again, []
        again.skip(again.samples, feed_of(0, again.samples))
        return again, [(again.samples, 1)]  # as one batch, whatever they were captured in

    TAPS = (
        make_tap("w", per="run"),
        make_tap("plain"),
        make_tap("ragged", "float16"),
        make_tap("sparse", "int8"),
        make_tap("batch", per="batch"),
    )

    def write_batch(self, store: Sink, number: int) -> None:
        """Batch ``number`` (two samples): from the third on ragged, every other one sparse."""
        w, plain, ragged, sparse, batch = self.TAPS
        if number == 0:
            store.write(w, np.arange(3, dtype=np.float32))
        store.write(plain, random_bits("float32", (2, 5), number))
        store.write(ragged, random_bits("float16", (2, max(2, number)), number))
        if number % 2:
            store.write(sparse, np.full((2, 1), number, np.int8))
        store.write(batch, np.full((1, 2), number, np.float32))
        store.commit(2, feed_of(2 * number, 2))

    def check(self, run: Run, batches: int) -> None:
        """The run holds the first ``batches`` batches, bit for bit."""
        assert run.samples == 2 * batches
        ragged = [random_bits("float16", (2, max(2, i)), i) for i in range(batches)]
        found = run["ragged"].raw
        for i, row in enumerate(row for block in ragged for row in block):
            assert_same_bits(found[i], row)
        assert len(found) == 2 * batches
        if batches:
            plain = [random_bits("float32", (2, 5), i) for i in range(batches)]
            assert_same_bits(run["plain"].raw, np.concatenate(plain))
            assert_same_bits(run["w"].raw, np.arange(3, dtype=np.float32))
            assert run["batch"].raw[:, 0].tolist() == list(range(batches))
        odd = [i for i in range(batches) if i % 2]
        assert run["sparse"].samples.tolist() == [2 * i + j for i in odd for j in (0, 1)]
        assert run["sparse"].raw[::2].ravel().tolist() == odd

    def test_what_was_met_with_adds_up_over_resumed_runs(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path, self.TAPS, {})
        if not isinstance(store, Remembering):
            return
        self.write_batch(store, 0)
        store.remember({"lost": 3, "frames": 10})
        store.close(False)
        store = self.resume(tmp_path, self.TAPS, {})
        assert isinstance(store, Remembering)
        store.skip(2, feed_of(0, 2))
        self.write_batch(store, 1)
        for count in (1, 4):  # the counts of this part so far
            store.remember({"lost": count, "damaged": 1})
        store.close(True)
        run = self.load(tmp_path, store)
        self.check(run, 2)
        assert run.provenance["observed"] == {"lost": 7, "frames": 10, "damaged": 1}

    @pytest.mark.parametrize("stop", range(7))
    @pytest.mark.parametrize("loss", [False, True], ids=["closed", "with-a-lost-batch"])
    def test_a_run_goes_on_where_it_ended(self, tmp_path: Path, stop: int, loss: bool) -> None:
        store = self.make_store(tmp_path, self.TAPS, {})
        for i in range(stop):
            self.write_batch(store, i)
        if loss:
            store.write(self.TAPS[1], np.full((2, 5), 9, np.float32))
            store.write(self.TAPS[2], np.full((2, 99), 9, np.float16))
        store.close(False)
        if stop:
            self.check(self.load(tmp_path, store), stop)
        else:
            assert not list(tmp_path.iterdir())
        store = self.resume(tmp_path, self.TAPS, {})
        assert store.samples == 2 * stop
        if stop:
            store.skip(2 * stop, feed_of(0, 2 * stop))
        for i in range(stop, 8):
            self.write_batch(store, i)
        store.close(True)
        run = self.load(tmp_path, store)
        assert run.complete
        self.check(run, 8)

    def test_resuming_a_complete_run_leaves_it_alone(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path, self.TAPS, {})
        for i in range(5):
            self.write_batch(store, i)
        store.close(True)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        store = self.resume(tmp_path, self.TAPS, {})
        for i in range(5):
            store.skip(2, feed_of(2 * i, 2))
        store.close(True)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        self.check(self.load(tmp_path, store), 5)

    def test_a_complete_run_can_be_extended(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path, self.TAPS, {})
        for i in range(3):
            self.write_batch(store, i)
        store.close(True)
        store = self.resume(tmp_path, self.TAPS, {})
        store.skip(6, feed_of(0, 6))
        self.write_batch(store, 3)
        assert not self.load(tmp_path, store).complete
        store.close(True)
        self.check(self.load(tmp_path, store), 4)

    def _begun(
        self, folder: Path, taps: Sequence[TapPoint], provenance: Mapping[str, Json]
    ) -> None:
        """A run of one sample without a row."""
        store = self.make_store(folder, taps, provenance)
        store.commit(1, feed_of(0, 1))
        store.close(False)

    def _resumed_within(self, tmp_path: Path) -> Sink:
        """A run of two batches, resumed; the first is skipped."""
        store = self.make_store(tmp_path, self.TAPS, {})
        self.write_batch(store, 0)
        self.write_batch(store, 1)
        store.close(False)
        store = self.resume(tmp_path, self.TAPS, {})
        store.skip(2, feed_of(0, 2))
        return store

    def test_other_inputs_are_refused(self, tmp_path: Path) -> None:
        store = self._resumed_within(tmp_path)
        with pytest.raises(StoreError, match="other inputs"):
            store.skip(2, feed_of(3, 2))
        store.close(False)
        self.check(self.load(tmp_path, store), 2)

    def test_fewer_inputs_are_refused(self, tmp_path: Path) -> None:
        store = self._resumed_within(tmp_path)
        with pytest.raises(StoreError, match="ended after 2 samples"):
            store.close(True)
        assert not self.load(tmp_path, store).complete

    @pytest.mark.parametrize(
        ("there", "here", "named"),
        [
            ({"kernels": "default"}, {"kernels": "reference"}, "kernels"),
            ({"model": {"sha256": "a"}}, {"model": {"sha256": "b"}}, "model"),
            ({}, {"arena": 1}, "arena"),
        ],
    )
    def test_another_model_or_option_is_refused(
        self, tmp_path: Path, there: dict[str, Json], here: dict[str, Json], named: str
    ) -> None:
        self._begun(tmp_path, self.TAPS, there)
        with pytest.raises(StoreError, match=named):
            self.resume(tmp_path, self.TAPS, here)

    def test_what_was_noted_does_not_keep_a_run_from_being_resumed(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path, self.TAPS, {"runtime": "none"})
        self.write_batch(store, 0)
        store.note({"clipped": {"x": 1}})
        store.close(False)
        store = self.resume(tmp_path, self.TAPS, {"runtime": "none"})
        store.skip(2, feed_of(0, 2))
        self.write_batch(store, 1)
        store.close(True)
        run = self.load(tmp_path, store)
        self.check(run, 2)
        assert run.provenance["clipped"] == {"x": 1}

    def test_another_axis_of_samples_is_refused(self, tmp_path: Path) -> None:
        self._begun(tmp_path, [make_tap("t", batch_axis=1)], {})
        self.resume(tmp_path, [make_tap("t", batch_axis=1)], {}).close(False)
        for other in (make_tap("t"), make_tap("t", per="batch")):
            with pytest.raises(StoreError, match="axis of samples"):
                self.resume(tmp_path, [other], {})

    def test_a_demoted_tap_is_resumed_whatever_is_thought_of_it(self, tmp_path: Path) -> None:
        tap = make_tap("t")
        for i, now in enumerate([tap, tap, replace(tap, per="batch"), tap]):
            store = self.resume(tmp_path, [now], {})
            if i:
                store.skip(3 * i, feed_of(0, 3 * i))
                assert list(store.demoted) == ["t"]
            else:
                store.demote(tap, [])
            write_executions(store, tap, np.full((1, 2), i, np.float32))
            store.commit(3, feed_of(3 * i, 3))
            store.close(False)
        capture = self.load(tmp_path, store)["t"]
        assert (capture.tap.per, capture.raw[:, 0].tolist()) == ("batch", [0, 1, 2, 3])

    def test_other_taps_are_refused(self, tmp_path: Path) -> None:
        self._begun(tmp_path, self.TAPS, {})
        with pytest.raises(StoreError, match="taps \\(plain"):
            self.resume(tmp_path, [self.TAPS[0], *self.TAPS[2:]], {})

    def test_where_and_when_do_not_matter(self, tmp_path: Path) -> None:
        there = {"created": "1", "host": {"system": "a"}, "model": {"sha256": "a", "path": "x"}}
        here = {"created": "2", "host": {"system": "b"}, "model": {"sha256": "a", "path": "y"}}
        self._begun(tmp_path, self.TAPS, there)
        self.resume(tmp_path, self.TAPS, here).close(False)
