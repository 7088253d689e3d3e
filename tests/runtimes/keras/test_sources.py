"""Files: .keras and .h5, what is refused, and what is damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
keras = pytest.importorskip("keras")

import h5py  # noqa: E402

import layertap  # noqa: E402
from layertap.errors import CorruptModel, SourceError, UnknownSource  # noqa: E402
from layertap.runtimes.keras import backend  # noqa: E402

L = keras.layers


def numpy(tensor: Any) -> Any:
    return np.array(keras.ops.convert_to_numpy(tensor))


def small() -> Any:
    return keras.Sequential(
        [keras.Input((6, 6, 2)), L.DepthwiseConv2D(3, name="depthwise"), L.Flatten(name="flat")]
    )


class Twice(L.Layer):
    """A custom layer that names its inner layers by itself."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.parts = [L.Dense(3), L.Dense(3)]

    def build(self, shape: Any) -> None:
        for part in self.parts:
            part.build((None, 3))
        super().build(shape)

    def call(self, x: Any) -> Any:
        return self.parts[1](self.parts[0](x))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_saved_model_gives_the_same_names_and_values(tmp_path: Path, suffix: str) -> None:
    net, path = small(), tmp_path / f"net{suffix}"
    net.save(path)
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 2)).astype(np.float32)
    before = path.read_bytes()
    with layertap.open(net) as live, layertap.open(path) as saved:
        assert [t.name for t in live.graph] == [t.name for t in saved.graph]
        one, two = live.capture(x), saved.capture(x)
        for name in one:
            np.testing.assert_array_equal(one[name].raw, two[name].raw)
        assert len(saved.session.provenance["model"]["sha256"]) == 64
        assert saved.session.provenance["backend"] == keras.backend.backend()
    assert path.read_bytes() == before


def test_custom_classes_are_asked_for_and_names_are_stable(tmp_path: Path) -> None:
    inputs = keras.Input((3,))
    keras.Model(inputs, Twice(name="twice")(inputs)).save(tmp_path / "net.keras")
    with pytest.raises(SourceError, match="Twice") as caught:
        layertap.open(tmp_path / "net.keras")
    assert "custom_objects" in caught.value.hint
    names = []
    for _ in range(2):
        L.Dense(1)  # Keras numbers unnamed layers through the process
        with layertap.open(tmp_path / "net.keras", custom_objects={"Twice": Twice}) as model:
            names.append([tap.name for tap in model.graph])
    assert names[0] == names[1]
    assert {"twice/dense", "twice/dense_1", "twice"} <= set(names[0])


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_code_is_loaded_only_when_allowed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"net{suffix}"
    keras.Sequential([keras.Input((3,)), L.Lambda(lambda x: x * 2, name="twice")]).save(path)
    with pytest.raises(SourceError) as caught:
        layertap.open(path)
    assert "allow_code=True" in caught.value.hint
    x = np.ones((2, 3), np.float32)
    with layertap.open(path, allow_code=True) as model:
        np.testing.assert_array_equal(model.capture(x)["twice"].raw, x * 2)


def rewrite(path: Path, **arguments: Any) -> None:
    """Put arguments into every DepthwiseConv2D of a legacy file, as Keras 2 wrote them."""
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        for layer in config["config"]["layers"]:
            if layer["class_name"] == "DepthwiseConv2D":
                layer["config"].update(arguments)
        file.attrs["model_config"] = json.dumps(config)


def test_arguments_of_keras_2_without_effect_are_dropped(tmp_path: Path) -> None:
    net, path = small(), tmp_path / "old.h5"
    net.save(path)
    rewrite(path, groups=1)
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 2)).astype(np.float32)
    with layertap.open(path) as model:
        value = model.capture(x)["depthwise"].raw
    np.testing.assert_allclose(value, numpy(net.layers[0](x)), 1e-5, 1e-6)
    rewrite(path, groups=2)
    with pytest.raises(SourceError, match="groups"):
        layertap.open(path)


def test_damaged_files(tmp_path: Path) -> None:
    small().save(tmp_path / "whole.keras")
    whole = (tmp_path / "whole.keras").read_bytes()
    middle = len(whole) // 2
    flipped = bytes(byte ^ 255 for byte in whole[middle : middle + 64])
    for name, content in {
        "text.keras": b"not a model",
        "cut.keras": whole[:middle],
        "flipped.keras": whole[:middle] + flipped + whole[middle + 64 :],
        "text.h5": b"not a model",
        "empty.h5": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CorruptModel):
            layertap.open(tmp_path / name)


def test_files_and_objects_that_are_no_models(tmp_path: Path) -> None:
    net = keras.Sequential([keras.Input((3,)), L.Dense(2)])
    net.save_weights(tmp_path / "net.weights.h5")
    with pytest.raises(SourceError, match="weights only"):
        layertap.open(tmp_path / "net.weights.h5")
    with pytest.raises(UnknownSource):
        layertap.open(keras.optimizers.SGD())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet", "ad01"])
def test_real_legacy_models(shared: Path, name: str) -> None:
    path = shared / "models" / "mlperf-tiny" / f"{name}.h5"
    net = keras.saving.load_model(path, compile=False)
    x = np.random.default_rng(0).normal(size=(2, *net.input_shape[1:])).astype(np.float32)
    layers = [layer for layer in net.layers if not isinstance(layer, L.InputLayer)]
    oracle = keras.Model(net.inputs, [layer.output for layer in layers])([x])
    with layertap.open(path) as model:
        run = model.capture(x)
        assert list(run) == [layer.name for layer in layers] or set(run) == {
            layer.name for layer in layers
        }
        for layer, expected in zip(layers, oracle, strict=True):
            scale = float(np.abs(numpy(expected)).max())
            np.testing.assert_allclose(
                run[layer.name].raw, numpy(expected), 1e-4, 1e-5 * scale, err_msg=layer.name
            )
        assert model.graph.outputs[0].name == layers[-1].name


def test_backend_is_chosen_only_when_keras_would_fail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed = {"jax"}
    monkeypatch.delitem(backend.sys.modules, "keras")
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(
        backend.importlib.util, "find_spec", lambda name: name if name in installed else None
    )
    backend.choose_backend()
    assert os.environ.pop("KERAS_BACKEND") == "jax"
    (tmp_path / "keras.json").write_text('{"backend": "torch"}')
    installed |= {"torch", "tensorflow"}
    backend.choose_backend()
    assert "KERAS_BACKEND" not in os.environ
    installed.clear()
    with pytest.raises(layertap.errors.MissingRuntime):
        backend.choose_backend()
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    backend.choose_backend()
