"""Every form of Keras model, against layers applied one by one. Runs on each backend."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
keras = pytest.importorskip("keras")

import layertap  # noqa: E402
from layertap.errors import FeedError, RunError, RuntimeFailure  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fresh_names")]  # traces a model per test

L = keras.layers


def numpy(tensor: Any) -> Any:
    return np.array(keras.ops.convert_to_numpy(tensor))


def random(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def check(run: Any, oracle: dict[str, Any]) -> None:
    """Exactly these taps, with these values (compiled and eager kernels may round apart)."""
    assert set(run) == set(oracle)
    for name, expected in oracle.items():
        np.testing.assert_allclose(run[name].raw, numpy(expected), 2e-5, 2e-6, err_msg=name)


def test_functional_with_shared_layer_nested_model_and_dict_outputs() -> None:
    image, vector = keras.Input((6, 6, 2), name="image"), keras.Input((4,), name="vector")
    conv, gap, dense = L.Conv2D(4, 3, name="conv"), L.GlobalAveragePooling2D(), L.Dense(4, name="d")
    inner = keras.Sequential(
        [keras.Input((4,)), L.Dense(5, name="one"), L.Dense(4, name="two")], name="block"
    )
    last = L.Dense(3, name="last")
    first, second = dense(gap(conv(image))), dense(vector)
    total = keras.ops.add(first, second)
    outputs = {"logits": last(L.Dropout(0.5, name="drop")(inner(total))), "second": second}
    net = keras.Model({"image": image, "vector": vector}, outputs)
    feed = {"image": random(3, 6, 6, 2), "vector": random(3, 4)}

    c = conv(feed["image"])
    d0, d1 = dense(gap(c)), dense(feed["vector"])
    one = inner.layers[0](d0 + d1)
    two = inner.layers[1](one)
    oracle = {"conv": c, "global_average_pooling2d": gap(c), "d": d0, "d@1": d1, "add": d0 + d1}
    oracle |= {"block/one": one, "block/two": two, "block": two, "drop": two, "last": last(two)}
    with layertap.open(net) as model:
        assert model.graph.complete
        assert [tap.name for tap in model.graph.inputs] == ["image", "vector"]
        assert {tap.name for tap in model.graph.outputs} == {"d@1", "last"}
        assert model.graph["add"].operands == ("d", "d@1")
        assert model.graph["d"].operands == ("global_average_pooling2d",)
        assert model.graph["block"].shape == (None, 4)
        check(model.capture(feed), oracle)
        np.testing.assert_array_equal(model.read("block/one/kernel"), numpy(inner.layers[0].kernel))


def test_list_of_inputs_by_position_and_by_name() -> None:
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    net = keras.Model([a, b], L.Concatenate(name="both")([a, b]))
    x, y = random(4, 3), random(4, 2)
    with layertap.open(net) as model:
        expected = np.concatenate([x, y], 1)
        np.testing.assert_array_equal(model.capture((x, y))["both"].raw, expected)
        np.testing.assert_array_equal(model.capture({"b": y, "a": x})["both"].raw, expected)


def test_sequential_built_and_unbuilt() -> None:
    x = random(5, 4)
    for net in (
        keras.Sequential([L.Dense(3, name="a"), L.Dense(2, name="b")]),
        keras.Sequential([keras.Input((4,)), L.Dense(3, name="a"), L.Dense(2, name="b")]),
    ):
        with layertap.open(net) as model:
            assert model.graph.complete is net.built
            run = model.capture(x)
            first = net.layers[0](x)
            check(run, {"a": first, "b": net.layers[1](first)})
            assert model.graph["b"].kind == "output"


class Scaled(L.Layer):
    """A custom layer with a layer inside, that returns a dict with a tuple."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.inner = L.Dense(3, name="inner")

    def call(self, x: Any) -> dict[str, Any]:
        h = self.inner(x)
        return {"h": h * 2, "pair": (h + 1, h - 1)}


class Net(keras.Model):
    """Subclassed: two layers of one name, a reused layer, an output that is no layer's."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.block = Scaled(name="block")
        self.twins = [L.Dense(3, name="twin"), L.Dense(3, name="twin")]

    def call(self, x: Any, training: bool = False) -> dict[str, Any]:
        parts = self.block(x)
        h = self.twins[1](self.twins[0](parts["h"])) + parts["pair"][1]
        return {"again": self.twins[0](h), "logits": h * 3}


def test_subclassed_model_with_custom_layers() -> None:
    net, x = Net(), random(4, 3)
    with layertap.open(net) as model:
        assert not model.graph.complete
        run = model.capture(x)
        h = net.block.inner(x)
        one = net.twins[0](h * 2)
        two = net.twins[1](one)
        end = two + h - 1
        oracle = {"block/inner": h, "block:h": h * 2, "block:pair.0": h + 1, "block:pair.1": h - 1}
        oracle |= {"twin": one, "twin.1": two, "twin@1": net.twins[0](end)}
        check(run, {**oracle, "output:logits": end * 3})
        assert {tap.name for tap in model.graph.outputs} == {"twin@1", "output:logits"}
        assert model.graph["block:h"].operands == ("x",)
        weights = [tap.name for tap in model.graph.of_kind("weight")]
        assert weights[0] == "block/inner/kernel"
        assert {"twin/kernel", "twin.1/kernel"} <= set(weights)
        np.testing.assert_array_equal(model.read("twin.1/kernel"), numpy(net.twins[1].kernel))
        # A smaller last batch and a repeated run give the same values.
        again = model.capture([x[:3], x[3:]])
        for name in run:
            np.testing.assert_allclose(again[name].raw, run[name].raw, 2e-5, 2e-6, err_msg=name)


class TwoArguments(keras.Model):
    def call(self, left: Any, right: Any) -> Any:
        return left + 2 * right


class DictInput(keras.Model):
    def call(self, x: dict[str, Any]) -> tuple[Any, ...]:
        return x["p"] * 2, x["q"] + 1


class ListInput(keras.Model):
    def call(self, x: list[Any]) -> Any:
        p, q = x
        return p - q


def test_models_with_other_arguments() -> None:
    p, q = random(2, 3), random(2, 3) + 1
    with layertap.open(TwoArguments()) as model:
        check(model.capture({"right": q, "left": p}), {"output": p + 2 * q})
        with pytest.raises(FeedError):
            model.capture({"left": p})
    with layertap.open(DictInput()) as model:
        check(model.capture({"p": p, "q": q}), {"output": p * 2, "output:1": q + 1})
    with layertap.open(ListInput(), inputs=["p", "q"]) as model:
        check(model.capture((p, q)), {"output": p - q})


def test_a_model_that_takes_a_list() -> None:
    p, q, labels = random(4, 3), random(4, 3) + 1, random(4)
    net = ListInput()
    for x in ((p, q), [((p, q), labels)], [([p, q], labels)]):
        with layertap.open(net) as model:
            run = model.capture(x, keep_inputs=True)
            check(run, {"x.0": p, "x.1": q, "output": p - q})
    with layertap.open(DictInput()) as model:
        run = model.capture([({"p": p, "q": q}, labels)], keep_inputs=True)
        check(run, {"p": p, "q": q, "output": p * 2, "output:1": q + 1})


class Obedient(keras.Model):
    """Does what plain Python values say."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = L.Rescaling(2.0, name="twice")

    def call(self, x: Any, times: int = 1, negative: bool = False, offset: Any = None) -> Any:
        for _ in range(times):
            x = self.twice(x)
        x = -x if negative else x
        return x if offset is None else x + offset


def test_settings_reach_the_model_as_they_are() -> None:
    x = random(2, 3)
    with layertap.open(Obedient()) as model:
        check(model.capture({"x": x, "negative": True}), {"twice": 2 * x, "output": -2 * x})
        two = model.capture({"x": x, "times": 2, "offset": None})
        check(two, {"twice": 2 * x, "twice@1": 4 * x})
        check(
            model.capture({"x": x, "times": True, "offset": 0.5}, "output"), {"output": 2 * x + 0.5}
        )
        batches = [{"x": x, "negative": True}, {"x": x, "negative": False}]
        check(model.capture(batches, "output"), {"output": np.concatenate([-2 * x, 2 * x])})


class MaybeScaled(keras.Model):
    def call(self, x: Any, scale: Any = None) -> Any:
        return x + 1 if scale is None else x * scale


def test_an_optional_input_that_is_not_fed_has_no_row() -> None:
    x, scale = random(2, 3), random(2, 1)
    batches = [{"x": x, "scale": scale}, {"x": x}]
    with layertap.open(MaybeScaled()) as model:
        run = model.capture(batches, keep_inputs=True)
        assert {name: len(one) for name, one in run.items()} == {"x": 4, "scale": 2, "output": 4}
        check(run.select("output"), {"output": np.concatenate([x * scale, x + 1])})


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow has texts")
def test_texts_can_be_fed() -> None:
    words = L.TextVectorization(vocabulary=["a", "b"], output_sequence_length=3, name="words")
    text = keras.Input((), dtype="string", name="text")
    net = keras.Model(text, L.Embedding(4, 2, name="vectors")(words(text)))
    with layertap.open(net) as model:
        for x in (["a b", "b"], ["b c a"]):
            run = model.capture(np.array(x), "words | vectors")
            np.testing.assert_array_equal(run["words"].raw, words(np.array(x)))
            assert run["vectors"].raw.shape == (len(x), 3, 2)


def test_a_model_that_is_no_longer_the_one_that_was_opened() -> None:
    net = keras.Sequential([keras.Input((4,)), L.Dense(3, name="a")])
    x = random(2, 4)
    with layertap.open(net) as model:
        model.capture(x)
        net.layers[0].bias.assign(np.ones(3))
        check(model.capture(x), {"a": net(x)})
        net.add(L.Dense(2, name="b"))
        with pytest.raises(RunError, match="since the model was opened"):
            model.capture(x)


def test_single_layer() -> None:
    layer, x = L.Dense(3), random(2, 4)
    with layertap.open(layer) as model:
        check(model.capture(x), {"output": layer(x)})


def test_recurrent_layers() -> None:
    inputs = keras.Input((5, 3))
    sequence = L.LSTM(4, return_sequences=True, name="seq")
    lstm, bi = L.LSTM(4, return_state=True, name="lstm"), L.Bidirectional(L.GRU(3), name="bi")
    timed = L.TimeDistributed(L.Dense(2), name="timed")
    s = sequence(inputs)
    net = keras.Model(inputs, [*lstm(s), timed(s), bi(s)])
    x = random(2, 5, 3)
    with layertap.open(net) as model:
        layers = {"seq": sequence(x), "timed": timed(sequence(x)), "bi": bi(sequence(x))}
        out, h, c = lstm(sequence(x))
        layers |= {"lstm": out, "lstm:1": h, "lstm:2": c}
        run = model.capture(x)
        check({name: run[name] for name in layers}, layers)
        steps = [name for name in run if name.startswith("seq/")]
        if keras.backend.backend() != "torch":
            np.testing.assert_array_equal(run[steps[0]].raw, run["seq:hidden_steps"].raw)


class TimeMajor(keras.Model):
    """Its values have the batch on axis 1, folded into axis 0, or not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.swap, self.fold = L.Identity(name="swap"), L.Identity(name="fold")
        self.fixed = L.Identity(name="fixed")

    def call(self, x: Any) -> Any:
        y = self.swap(keras.ops.transpose(x, (1, 0, 2)))
        folded = self.fold(keras.ops.reshape(x, (-1, 3)))
        return y, folded, self.fixed(keras.ops.arange(5, dtype="float32"))


def test_values_without_a_batch_axis() -> None:
    x = random(2, 5, 3)
    with layertap.open(TimeMajor()) as model:
        run = model.capture(x)
        per = {tap.name: tap.per for tap in run.taps}
        assert per == dict.fromkeys(run, "batch") | {"swap": "sample"}
        np.testing.assert_array_equal(run["swap"].raw, x)
        np.testing.assert_array_equal(run["fold"].raw[0], x.reshape(-1, 3))


class StateNet(keras.Model):
    """Draws random numbers, normalizes by batch statistics and counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.noise, self.norm = keras.random.SeedGenerator(1), L.BatchNormalization(name="bn")
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")
        self.drop = L.Dropout(0.5, name="drop")

    def call(self, x: Any, training: bool = False) -> Any:
        self.calls.assign_add(1.0)
        return self.drop(self.norm(x + keras.random.normal(keras.ops.shape(x), seed=self.noise)))


def test_nothing_is_changed() -> None:
    net, x = StateNet(), random(4, 3)
    net(x)
    before = [numpy(v) for v in net.variables]
    assert numpy(net.calls) == 1
    call = keras.Layer.__call__, keras.Operation.__call__
    with layertap.open(net) as model:
        first, second = model.capture(x), model.capture(x)
        np.testing.assert_array_equal(first["bn"].raw, second["bn"].raw)
        np.testing.assert_array_equal(first["drop"].raw, first["bn"].raw)
    for variable, value in zip(net.variables, before, strict=True):
        np.testing.assert_array_equal(numpy(variable), value)
    assert (keras.Layer.__call__, keras.Operation.__call__) == call


def test_stateful_rnn_starts_each_batch_from_the_model_s_state() -> None:
    inputs = keras.Input(batch_shape=(2, 3, 2))
    net = keras.Model(inputs, L.LSTM(2, stateful=True, name="rnn")(inputs))
    x = random(2, 3, 2)
    with layertap.open(net) as model:
        assert model.session.capabilities.batch == 2
        run = model.capture(np.concatenate([x, x]))
        np.testing.assert_array_equal(run["rnn"].raw[:2], run["rnn"].raw[2:])
    expected = numpy(net(x))
    np.testing.assert_allclose(run["rnn"].raw[:2], expected, 2e-5, 2e-6)


@pytest.mark.parametrize("saved", [False, True])
def test_a_sequential_takes_batches_unlike_its_first(tmp_path: Path, saved: bool) -> None:
    net = keras.Sequential([L.Dense(4, activation="relu", name="d"), L.Dense(2, name="e")])
    net(random(7, 3))
    assert net.inputs[0].shape == (7, 3)
    net.save(tmp_path / "net.keras")
    x = random(5, 3)
    with layertap.open(tmp_path / "net.keras" if saved else net) as model:
        assert model.session.capabilities.batch is None
        assert [model.graph[name].shape for name in ("d", "e")] == [(None, 4), (None, 2)]
        hidden = net.layers[0](x)
        check(model.capture(x, "d | e"), {"d": hidden, "e": net.layers[1](hidden)})


def test_a_batch_size_that_nothing_needs_is_no_limit() -> None:
    inputs = keras.Input(batch_shape=(4, 6), name="x")
    net = keras.Model(inputs, L.Dense(2, name="d")(inputs))
    x = random(5, 6)
    with layertap.open(net) as model:
        check(model.capture(x), {"d": net(x)})


def test_a_batch_size_that_the_model_needs_is_kept() -> None:
    inputs = keras.Input(batch_shape=(4, 6), name="x")
    pairs = keras.ops.reshape(L.Dense(6, name="d")(inputs), (4, 3, 2))
    net = keras.Model(inputs, L.Flatten(name="flat")(pairs))
    x = random(8, 6)
    with layertap.open(net) as model:
        assert model.session.capabilities.batch == 4
        assert model.graph["flat"].shape == (4, 6)
        run = model.capture(x, "d | flat")
        check(run, {name: net.get_layer("d")(x) for name in ("d", "flat")})
        with pytest.raises(FeedError, match="exactly 4 at a time"):
            model.capture(x[:3])


class Broken(L.Layer):
    def call(self, x: Any) -> Any:
        return x

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor((*x.shape[:-1], 1), x.dtype)


def test_failures_are_typed_and_leave_keras_as_it_was() -> None:
    call = keras.Layer.__call__
    inputs = keras.Input((3,))
    net = keras.Model(inputs, L.Dense(1, name="d")(Broken()(inputs)))
    with layertap.open(net) as model, pytest.raises((FeedError, RuntimeFailure)):
        model.capture(random(2, 3))
    with (
        layertap.open(ListInput()) as model,
        pytest.raises(FeedError, match="does not take") as caught,
    ):
        model.capture(random(5, 3, 4))
    assert "tuple" in caught.value.hint
    assert keras.Layer.__call__ is call


def test_half_precision() -> None:
    net = keras.Sequential(
        [
            keras.Input((4,)),
            L.Dense(3, dtype="mixed_bfloat16", name="half"),
            L.Dense(2, name="full"),
        ]
    )
    x = random(2, 4)
    with layertap.open(net) as model:
        run = model.capture(x)
        assert run["half"].raw.dtype.name == model.graph["half"].dtype == "bfloat16"
        assert run["full"].raw.dtype == np.float32
        half = net.layers[0](x)
        np.testing.assert_allclose(
            run["half"].raw.astype(np.float32), numpy(keras.ops.cast(half, "float32")), 2e-2
        )


def test_attach_reads_eager_calls_and_never_a_stale_one() -> None:
    net = keras.Sequential([keras.Input((4,)), L.Dense(3, name="a"), L.Dense(2, name="b")])
    net.compile(loss="mse")
    x, eager = random(6, 4), keras.backend.backend() == "torch"
    with layertap.attach(net, "a") as taps:
        with pytest.raises(layertap.LayertapError, match="was not called"):
            taps["a"]
        net(x)
        assert list(taps) == ["a"]
        np.testing.assert_allclose(taps["a"], numpy(net.layers[0](x)), 1e-6)
        with pytest.raises(KeyError, match="not among"):
            taps["b"]
        for _ in range(2):  # traced while attached, then compiled
            net.predict(x[:2], verbose=0)
            if eager:
                assert taps["a"].shape == (2, 3)
            else:
                with pytest.raises(layertap.LayertapError, match=r"predict\(\)"):
                    taps["a"]
        net.stateless_call(net.trainable_variables, net.non_trainable_variables, x[:3])
        assert taps["a"].shape == (3, 3)
        with pytest.raises(Exception, match="shape"):
            net(x[:, :2])
        with pytest.raises(layertap.LayertapError, match="raised"):
            taps["a"]
    assert "predict" not in vars(net)
    with pytest.raises(layertap.errors.NoSuchTap), layertap.attach(net, "nope"):
        pass


def test_attach_to_a_model_without_weights_yet() -> None:
    net, x = Net(), random(4, 3)
    with layertap.attach(net, "kind:output") as taps:
        net(x)
        assert set(taps) == {"twin@1", "output:logits"}
        np.testing.assert_allclose(taps["output:logits"], numpy(net(x)["logits"]), 1e-5)
    with layertap.attach(net, "nope") as taps:
        net(x)
        with pytest.raises(layertap.errors.NoSuchTap):
            dict(taps)


def test_operations_that_a_layer_makes_up_are_no_taps() -> None:
    inputs = keras.Input((4, 4, 1), name="x")
    padded = keras.layers.ZeroPadding2D(1, name="padded")(inputs)
    shifted = keras.ops.add(padded, 1.0)
    net = keras.Model(inputs, keras.layers.ZeroPadding2D(1, name="again")(shifted))
    x = np.ones((2, 4, 4, 1), np.float32)
    with layertap.open(net) as model:
        names = [tap.name for tap in model.graph if tap.kind != "input"]
        first, second = model.capture(x), model.capture(x, "again")
    assert len(names) == 3
    assert [names[0], names[2]] == ["padded", "again"]
    np.testing.assert_array_equal(first["again"].raw, np.asarray(net(x)))
    np.testing.assert_array_equal(second["again"].raw, first["again"].raw)
