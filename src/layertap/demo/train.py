"""Train the demo's CNN on scikit-learn's digits and write its files: ``python -m
layertap.demo.train [FOLDER]`` (this folder without one; about a minute on one core).

Needs ``tensorflow``, ``keras``, ``ai-edge-litert`` and ``scikit-learn``. The digits are the test
set of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI Machine Learning
Repository, CC BY 4.0): 8×8 pixels of 0 to 16, here divided by 16.

What is reproducible: seeds are fixed, TensorFlow runs deterministic kernels on one thread, and the
dates and addresses in the ``.keras`` archive are replaced by constants. Two runs with the same
versions of the packages on the same kind of processor write the same bytes, in all four files.
Other versions, or a processor with other vector instructions, round differently: then the weights
differ, and what holds is the accuracy, which the script checks (above 95 % on the held-out digits,
each model).
"""

from __future__ import annotations

import io
import re
import struct
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tensorflow.lite.python import schema_py_generated as schema

from layertap.core.dtypes import Array

SEED = 7
EPOCHS = 40
SHIPPED = 32
ENOUGH = 0.95
LONG_AGO = (1980, 1, 1, 0, 0, 0)

LAYERS = {
    "stem_relu": "stem",
    "depthwise_relu": "depthwise",
    "pointwise_norm": "pointwise",
    "add_relu": "",
    "pool": "",
    "flatten": "",
    "logits": "logits",
    "probabilities": "",
}
"""The operators of the ``.tflite`` in order: the Keras layer whose output each one gives once batch
norm and ReLU are fused into it, and the layer that its weights come from."""


@dataclass(frozen=True)
class Data:
    """Images are float32 (n, 8, 8, 1) in [0, 1], labels int64 (n,)."""

    train: Array
    train_label: Array
    held_out: Array
    held_out_label: Array


def read_digits() -> Data:
    """The digits, a quarter of them held out."""
    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) / 16).astype(np.float32)
    train, held_out, train_label, held_out_label = train_test_split(
        images, labels, test_size=0.25, random_state=SEED, stratify=labels
    )
    return Data(train, train_label, held_out, held_out_label)


def some_of_each(labels: Array) -> Array:
    """Positions of the first :data:`SHIPPED` labels that are spread evenly over the digits."""
    rank = np.zeros(len(labels), np.int64)
    for digit in range(10):
        same = labels == digit
        rank[same] = np.arange(np.count_nonzero(same))
    chosen: Array = np.sort(np.argsort(rank, kind="stable")[:SHIPPED])
    return chosen


def build(batch: int | None = None) -> Any:
    """The network: a stem, a depthwise-separable residual block, and a classifier."""
    image = keras.Input(batch_shape=(batch, 8, 8, 1), name="image")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.BatchNormalization(name="stem_norm")(x)
    stem = layers.ReLU(name="stem_relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(stem)
    x = layers.BatchNormalization(name="depthwise_norm")(x)
    x = layers.ReLU(name="depthwise_relu")(x)
    x = layers.Conv2D(16, 1, use_bias=False, name="pointwise")(x)
    x = layers.BatchNormalization(name="pointwise_norm")(x)
    x = layers.Add(name="add")([stem, x])
    x = layers.ReLU(name="add_relu")(x)
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(10, name="logits")(x)
    return keras.Model(image, layers.Softmax(name="probabilities")(x), name="digits")


def fit(data: Data) -> Any:
    """A trained network, the same each time, without the optimizer's state."""
    keras.utils.set_random_seed(SEED)
    model = build()
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(data.train, data.train_label, batch_size=32, epochs=EPOCHS, verbose=0)
    trained = build()
    trained.set_weights(model.get_weights())
    return trained


def keras_file(model: Any, folder: Path) -> bytes:
    """The network as a ``.keras`` archive that is the same each time."""
    path = folder / "digits.keras"
    model.save(path)
    return rezip(path.read_bytes())


def rezip(archive: bytes) -> bytes:
    """A zip archive with the same members, compressed, and constant dates."""
    written = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(archive)) as old,
        zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(".json"):
                content = _without_accidents(content.decode()).encode()
            new.writestr(zipfile.ZipInfo(name, LONG_AGO), content, zipfile.ZIP_DEFLATED)
    return written.getvalue()


def _without_accidents(text: str) -> str:
    """Keras writes the date, and shared objects' addresses in memory as their numbers."""
    numbers: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        return f'"shared_object_id": {numbers.setdefault(found[1], len(numbers) + 1)}'

    text = re.sub(r'"date_saved": "[^"]*"', '"date_saved": "1980-01-01@00:00:00"', text)
    return re.sub(r'"shared_object_id": (\d+)', number, text)


def convert(model: Any, data: Data, *, int8: bool) -> bytes:
    """The network as a ``.tflite`` that takes one image; with ``int8`` also at its ends."""
    single = build(batch=1)
    single.set_weights(model.get_weights())
    converter = tf.lite.TFLiteConverter.from_keras_model(single)
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in data.train)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return with_layer_names(converter.convert())


def with_layer_names(flat: bytes) -> bytes:
    """The file with its tensors named after Keras layers (:data:`LAYERS`).

    The converter's names list everything that was fused (``stem_relu/Relu;stem_norm/add;...``).
    A shorter name goes where the longer one was, so that every other byte stays in its place.
    """
    graph = schema.Model.GetRootAs(flat, 0).Subgraphs(0)
    names = {graph.Inputs(0): "image"}
    for i, (layer, weights) in enumerate(LAYERS.items()):
        operator = graph.Operators(i)
        names[operator.Outputs(0)] = layer
        if weights:
            names[operator.Inputs(1)] = f"{weights}/kernel"
            names[operator.Inputs(2)] = f"{weights}/bias"
    for index, name in names.items():
        flat = _rename(flat, graph.Tensors(index).Name(), name.encode())
    return flat


def _rename(flat: bytes, old: bytes, new: bytes) -> bytes:
    """A FlatBuffers string is a 32-bit length, the bytes and a zero."""
    stored = struct.pack("<I", len(old)) + old + b"\0"
    if flat.count(stored) != 1 or len(new) > len(old):
        raise ValueError(f"cannot rename {old!r} to {new!r}")
    shorter = struct.pack("<I", len(new)) + new
    return flat.replace(stored, shorter.ljust(len(stored), b"\0"))


def accuracy(path: Path, data: Data) -> float:
    """The share of held-out digits that the model at ``path`` tells right."""
    predict = _keras(path) if path.suffix == ".keras" else _litert(path)
    guesses = np.concatenate([predict(image[None]) for image in data.held_out]).argmax(1)
    return float((guesses == data.held_out_label).mean())


def _keras(path: Path) -> Callable[[Array], Array]:
    model = keras.saving.load_model(path)
    return lambda image: np.asarray(model(image))


def _litert(path: Path) -> Callable[[Array], Array]:
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    (fed,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()

    def predict(image: Array) -> Array:
        if fed["dtype"] == np.int8:
            scale, zero = fed["quantization"]
            image = np.clip(np.round(image / scale) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(fed["index"], image)
        interpreter.invoke()
        scores: Array = interpreter.get_tensor(given["index"])
        return scores

    return predict


def write(folder: Path) -> None:
    """Train, write the four files into ``folder`` and print the accuracy of each model.

    Raises SystemExit when a model is not good enough.
    """
    keras.config.disable_interactive_logging()
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    data = read_digits()
    model = fit(data)
    models = {
        "digits.keras": keras_file(model, folder),
        "digits_float.tflite": convert(model, data, int8=False),
        "digits_int8.tflite": convert(model, data, int8=True),
    }
    for name, content in models.items():
        path = folder / name
        path.write_bytes(content)
        right = accuracy(path, data)
        print(f"{name:20} {len(content):6,} bytes, {right:.2%} of the held-out digits right")
        if right <= ENOUGH:
            raise SystemExit(f"{name} tells only {right:.2%} right, {ENOUGH:.0%} is wanted")
    archive = io.BytesIO()
    shipped = some_of_each(data.held_out_label)
    images, labels = data.held_out[shipped], data.held_out_label[shipped]
    np.savez_compressed(archive, image=images, label=labels)
    (folder / "digits.npz").write_bytes(rezip(archive.getvalue()))


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
