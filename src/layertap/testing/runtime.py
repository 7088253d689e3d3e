"""What every runtime must do, as tests to inherit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import layertap
from layertap.core.captures import Run
from layertap.core.dtypes import Array, numpy_dtype
from layertap.core.graph import COMPUTED, TapPoint
from layertap.core.protocols import Grouping
from layertap.core.select import select
from layertap.errors import FeedError, LayertapError, NoSuchTap, Untappable
from layertap.testing.disturbed import interrupted, together

FRAMEWORKS = (
    "torch",
    "tensorflow",
    "keras",
    "jax",
    "ai_edge_litert",
    "tflite_micro",
    "onnxruntime",
)


@dataclass(frozen=True)
class Case:
    """A model with everything needed to judge a runtime on it.

    source, options: passed to :func:`layertap.open`.
    feed: one batch of inputs, at least two samples where the runtime takes any batch.
    oracle: tap name -> raw value for ``feed``, computed without layertap.
    outputs: the model's own outputs for ``feed`` by tap name, run without layertap.
    fingerprint: equal before and after whatever must leave the model (or file) as it was.
    """

    source: Any
    feed: Mapping[str, Array]
    oracle: Mapping[str, Array]
    outputs: Callable[[], Mapping[str, Array]]
    fingerprint: Callable[[], object] = lambda: None
    options: Mapping[str, Any] = field(default_factory=dict)


class SinkRaisedError(Exception):
    """Raised by the suite inside an emit."""


class RuntimeSuite:
    """Tests to inherit. Set ``runtime`` and ``isolation``, implement ``make_case`` and
    ``random_cases``.

    isolation: Python code that opens a model in this runtime and captures from it, run in a fresh
    process that must not import any framework but those in ``frameworks``.
    interrupts: at how many lines a capture is interrupted.
    rtol, atol: tolerance towards the oracle; 0 where the oracle runs the same kernels.
    """

    runtime: ClassVar[str]
    frameworks: ClassVar[Sequence[str]] = ()
    isolation: ClassVar[str]
    rtol: ClassVar[float] = 0.0
    atol: ClassVar[float] = 0.0
    examples: ClassVar[int] = 15
    interrupts: ClassVar[int] = 60

    def make_case(self) -> Case:
        raise NotImplementedError

    def make_steady_case(self) -> Case:
        """One that draws no random numbers: all threads draw from the same generator."""
        return self.make_case()

    def random_cases(self) -> st.SearchStrategy[Case]:
        """Small random models whose oracle covers every tap that the model computes."""
        raise NotImplementedError

    @pytest.fixture
    def case(self) -> Case:
        return self.make_case()

    def open(self, case: Case) -> layertap.Model:
        return layertap.open(case.source, runtime=self.runtime, **case.options)

    def test_names_are_unique_and_stable_across_opens(self, case: Case) -> None:
        with self.open(case) as first, self.open(case) as second:
            names = [(tap.name, tap.native) for tap in first.trace(case.feed)]
            assert names == [(tap.name, tap.native) for tap in second.trace(case.feed)]
            assert len({name for name, _ in names}) == len(names)
            assert all(name for name, _ in names)

    def test_native_indices_select_exactly_one(self, case: Case) -> None:
        with self.open(case) as model:
            graph = model.trace(case.feed)
            for tap in graph:
                assert select(graph, tap.native) == (tap,)

    def test_groups_hold_every_tap_once_in_graph_order(self, case: Case) -> None:
        with self.open(case) as model:
            if not isinstance(model.session, Grouping):
                return
            taps = _readable(model, case)
            groups = model.session.group(taps)
            assert groups == model.session.group(taps)
            assert all(list(group) == _in_order(model, group) for group in groups)
            assert sorted(t.name for g in groups for t in g) == sorted(t.name for t in taps)
            for group in groups:
                model.session.prepare(group)

    def test_operands_come_before(self, case: Case) -> None:
        with self.open(case) as model:
            seen: set[str] = set()
            for tap in (graph := model.trace(case.feed)):
                assert all(name in graph for name in tap.operands)
                if tap.kind in ("activation", "output"):
                    computed = [
                        n for n in tap.operands if graph[n].kind in ("activation", "output")
                    ]
                    assert set(computed) <= seen
                seen.add(tap.name)

    def test_each_tap_once_in_graph_order_as_declared(self, case: Case) -> None:
        with self.open(case) as model:
            taps = _readable(model, case)
            emitted = _emissions(model, taps, case.feed)
            assert [tap.name for tap, _ in emitted] == [tap.name for tap in taps]
            for tap, value in emitted:
                assert value.dtype == numpy_dtype(tap.dtype), tap
                assert tap.shape is not None, tap
                assert value.ndim == len(tap.shape), tap
                for size, declared in zip(value.shape, tap.shape, strict=True):
                    assert declared in (None, size), tap

    def test_values_equal_the_oracle(self, case: Case) -> None:
        assert case.oracle
        with self.open(case) as model:
            self._check(case, dict_of(_emissions(model, _readable(model, case), case.feed)))

    def test_outputs_are_the_same_bits_with_and_without_taps(self, case: Case) -> None:
        expected = case.outputs()
        assert expected
        with self.open(case) as model:
            able = model.session.capabilities
            everything = dict_of(_emissions(model, _readable(model, case), case.feed))
            only = [model.graph[name] for name in expected]
            alone = dict_of(_emissions(model, only, case.feed))
        for name, value in expected.items():
            if able.bit_exact:
                _assert_same_bits(alone[name], value, name)
                _assert_same_bits(everything[name], value, name)
            else:
                assert able.reason
                np.testing.assert_allclose(everything[name], value, rtol=1e-4, atol=1e-4)

    def test_one_tap_alone_equals_all_at_once(self, case: Case) -> None:
        with self.open(case) as model:
            taps = _readable(model, case)
            together = dict_of(_emissions(model, taps, case.feed))
            exact = model.session.capabilities.bit_exact
            for tap in taps[:: max(1, len(taps) // 8)]:
                ((_, alone),) = _emissions(model, [tap], case.feed)
                if exact:
                    _assert_same_bits(alone, together[tap.name], tap.name)
                else:
                    np.testing.assert_allclose(alone, together[tap.name], rtol=1e-4, atol=1e-4)

    def test_captures_belong_to_the_caller(self, case: Case) -> None:
        with self.open(case) as model:
            taps = _readable(model, case)
            first = _emissions(model, taps, case.feed)
            kept = [value.copy() for _, value in first]
            other = {name: np.flip(value).copy() for name, value in case.feed.items()}
            _emissions(model, taps, other)
            for (tap, value), copy in zip(first, kept, strict=True):
                _assert_same_bits(value, copy, tap.name)
            for _, value in first:
                if value.flags.writeable:
                    value[...] = np.zeros((), value.dtype)
            self._check(case, dict_of(_emissions(model, taps, case.feed)))

    def test_feed_is_left_as_it_was(self, case: Case) -> None:
        before = {name: value.copy() for name, value in case.feed.items()}
        with self.open(case) as model:
            inputs = [*_readable(model, case), *model.graph.inputs]
            for _, value in _emissions(model, _in_order(model, inputs), case.feed):
                if value.flags.writeable:
                    value[...] = np.zeros((), value.dtype)
        for name, value in before.items():
            _assert_same_bits(case.feed[name], value, name)

    def test_inputs_are_taps_too(self, case: Case) -> None:
        with self.open(case) as model:
            run = model.capture(case.feed, taps="kind:input")
            for name, value in case.feed.items():
                _assert_same_bits(np.asarray(run[name].raw).reshape(value.shape), value, name)

    def test_model_is_untouched(self, case: Case) -> None:
        before = case.fingerprint()
        with self.open(case) as model:
            model.capture(case.feed)
            assert case.fingerprint() == before
        assert case.fingerprint() == before

    def test_model_is_untouched_when_the_sink_raises(self, case: Case) -> None:
        before = case.fingerprint()
        with self.open(case) as model:
            taps = _readable(model, case)
            run_pass = model.session.prepare(taps)
            middle = taps[len(taps) // 2]

            def emit(tap: TapPoint, _: Array) -> None:
                if tap.name == middle.name:
                    raise SinkRaisedError

            with pytest.raises(SinkRaisedError):
                run_pass(case.feed, emit)
            assert case.fingerprint() == before
            self._check(case, dict_of(_emissions(model, taps, case.feed)))

    def test_an_interrupt_at_any_line_leaves_everything_as_it_was(self, case: Case) -> None:
        before = case.fingerprint()
        with self.open(case) as model:
            model.capture(case.feed)

            def check(line: int) -> None:
                assert case.fingerprint() == before, line
                self._check_run(case, model.capture(case.feed))

            interrupted(lambda: model.capture(case.feed), check, self.interrupts)
        assert case.fingerprint() == before

    def test_threads_get_their_own_values(self) -> None:
        case = self.make_steady_case()
        other = {name: np.flip(value).copy() for name, value in case.feed.items()}
        with self.open(case) as model:
            alone = model.capture(other)

            def one() -> None:
                self._check_run(case, model.capture(case.feed))

            def two() -> None:
                run = model.capture(other)
                for name, capture in alone.items():
                    _assert_same_bits(np.asarray(run[name].raw), np.asarray(capture.raw), name)

            def user() -> None:
                case.outputs()

            assert together(one, two, user, times=5) == []

    def _check_run(self, case: Case, run: Run) -> None:
        """The values of a capture of the case's feed, as far as the oracle has the tap."""
        for name in run.keys() & case.oracle.keys():
            raw, tap = np.asarray(run[name].raw), run[name].tap
            value = raw[0] if tap.per == "batch" else np.moveaxis(raw, 0, tap.batch_axis)
            expected = np.asarray(case.oracle[name])
            np.testing.assert_allclose(
                value.reshape(expected.shape),
                expected,
                rtol=self.rtol,
                atol=self.atol,
                err_msg=name,
            )

    def test_dequantized_values(self, case: Case) -> None:
        with self.open(case) as model:
            run = model.capture(case.feed)
        for capture in run.values():
            raw, quantization = np.asarray(capture.raw), capture.tap.quantization
            if quantization is None or quantization.per_channel:
                continue
            scale, zero = np.float64(quantization.scales[0]), quantization.zero_points[0]
            expected = ((raw.astype(np.float64) - zero) * scale).astype(np.float32)
            np.testing.assert_array_equal(capture.values, expected)

    def test_plan_knows_the_exact_bytes(self, case: Case) -> None:
        with self.open(case) as model:
            plan = model.plan(None, case.feed)
            run = model.capture(case.feed)
            if any(tap.row_bytes is None for tap in plan.taps):
                assert plan.total_bytes is None
            else:
                assert plan.total_bytes == sum(np.asarray(c.raw).nbytes for c in run.values())

    def test_batches_from_a_generator(self, case: Case) -> None:
        with self.open(case) as model:
            once = model.capture(case.feed)
            twice = model.capture(case.feed for _ in range(2))
            assert twice.samples == 2 * once.samples
            for name, capture in once.items():
                double = np.concatenate([capture.raw, capture.raw])
                _assert_same_bits(np.asarray(twice[name].raw), double, name)

    def test_weights_can_be_read(self, case: Case) -> None:
        with self.open(case) as model:
            for tap in model.trace(case.feed).of_kind("weight"):
                if not tap.untappable:
                    value = model.read(tap.name)
                    assert (value.dtype, value.shape) == (numpy_dtype(tap.dtype), tap.shape), tap

    def test_what_cannot_be_read_says_why(self, case: Case) -> None:
        with self.open(case) as model:
            for tap in model.trace(case.feed):
                if tap.untappable:
                    with pytest.raises(Untappable, match="cannot be read"):
                        model.capture(case.feed, taps=tap.native)

    def test_unknown_tap(self, case: Case) -> None:
        with self.open(case) as model, pytest.raises(NoSuchTap) as caught:
            model.capture(case.feed, taps="no such tap at all")
        assert caught.value.hint

    def test_bad_feeds(self, case: Case) -> None:
        with self.open(case) as model:
            name, value = next(iter(case.feed.items()))
            with pytest.raises(FeedError):
                model.capture({name: value, "no such input": value})
            with pytest.raises(FeedError):
                model.capture({k: v for k, v in case.feed.items() if k != name})
            with pytest.raises(FeedError):
                model.capture({**case.feed, name: np.zeros((*value.shape, 3, 2), value.dtype)})
            self._check(case, dict_of(_emissions(model, _readable(model, case), case.feed)))

    def test_close_is_idempotent_and_final(self, case: Case) -> None:
        model = self.open(case)
        model.capture(case.feed)
        model.close()
        model.close()
        with pytest.raises(LayertapError):
            model.capture(case.feed)

    def test_no_other_framework_is_imported(self) -> None:
        foreign = [name for name in FRAMEWORKS if name not in self.frameworks]
        check = (
            f"\nimport sys\nloaded = [m for m in {foreign!r} if m in sys.modules]\n"
            "assert not loaded, loaded\n"
        )
        subprocess.run([sys.executable, "-c", self.isolation + check], check=True, timeout=120)

    def test_random_models(self) -> None:
        @settings(
            max_examples=self.examples,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(self.random_cases())
        def check(case: Case) -> None:
            with self.open(case) as model:
                taps = _readable(model, case)
                assert {tap.name for tap in taps if tap.kind in COMPUTED} <= set(case.oracle)
                self._check(case, dict_of(_emissions(model, taps, case.feed)))

        check()

    def _check(self, case: Case, values: Mapping[str, Array]) -> None:
        for name, expected in case.oracle.items():
            if self.rtol or self.atol:
                np.testing.assert_allclose(
                    values[name], expected, rtol=self.rtol, atol=self.atol, err_msg=name
                )
            else:
                _assert_same_bits(values[name], expected, name)


def dict_of(emitted: Sequence[tuple[TapPoint, Array]]) -> dict[str, Array]:
    """Emissions by tap name."""
    return {tap.name: value for tap, value in emitted}


def _readable(model: layertap.Model, case: Case) -> list[TapPoint]:
    graph = model.trace(case.feed)
    return [tap for tap in graph if tap.kind in COMPUTED and not tap.untappable]


def _in_order(model: layertap.Model, taps: Sequence[TapPoint]) -> list[TapPoint]:
    names = {tap.name for tap in taps}
    return [tap for tap in model.graph if tap.name in names]


def _emissions(
    model: layertap.Model, taps: Sequence[TapPoint], feed: Mapping[str, Array]
) -> list[tuple[TapPoint, Array]]:
    """What one pass over ``taps`` emits for one feed that the session takes as it is."""
    emitted: list[tuple[TapPoint, Array]] = []
    model.session.prepare(list(taps))(feed, lambda tap, values: emitted.append((tap, values[0])))
    return emitted


def _assert_same_bits(actual: Array, expected: Array, what: str) -> None:
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape), what
    if np.ascontiguousarray(actual).tobytes() != np.ascontiguousarray(expected).tobytes():
        np.testing.assert_array_equal(actual, expected, err_msg=what)
        raise AssertionError(f"{what}: equal numbers, different bits (signed zero or NaN)")
