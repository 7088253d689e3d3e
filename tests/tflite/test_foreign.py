"""A file of another kind is called by its name."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from layertap.errors import CorruptModel
from layertap.tflite.foreign import what_is
from layertap.tflite.model import parse


def archive(*members: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        for member in members:
            file.writestr(member, b"x" * 100)
    return held.getvalue()


def array() -> bytes:
    held = io.BytesIO()
    np.save(held, np.zeros(3))
    return held.getvalue()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "an empty file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
        (archive("metadata.json", "config.json", "model.weights.h5"), "a Keras model"),
        (archive("model/data.pkl", "model/version"), "a PyTorch file"),
        (archive("readme"), "a zip archive"),
        (gzip.compress(b"x" * 100, mtime=0), "gzip"),
        (pickle.dumps({"a": 1}), "pickle"),
        (array(), "a NumPy array"),
        (b"\x20\x00\x00\x00ORTM" + bytes(40), "ONNX Runtime"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"#include <cstdint>\nconst unsigned char g_model[] = {0x1c,", "C source code"),
        (b"hello, world", "a text file"),
    ],
)
def test_what_it_is(data: bytes, what: str) -> None:
    assert what in what_is(data)
    with pytest.raises(CorruptModel, match=f"not a .tflite file but .*{what}"):
        parse(data)


def test_an_onnx_model() -> None:
    """ModelProto of ir_version 8, as PyTorch and tf2onnx begin it."""
    assert what_is(b"\x08\x08\x12\x07pytorch\x1a\x052.1.0") == "an ONNX model"
    assert what_is(b"\x08\x08:\xb2\x01\n\x0b") == "an ONNX model"


def test_unknown_bytes_have_no_name() -> None:
    assert what_is(bytes(range(256))) == ""
    with pytest.raises(CorruptModel, match="not a .tflite file: the identifier"):
        parse(bytes(range(256)))


def test_real_files(shared: Path) -> None:
    for path in sorted(shared.rglob("*")):
        if path.suffix == ".h5":
            assert "HDF5" in what_is(path.read_bytes())
        if path.suffix in (".bmp", ".wav", ".png", ".bin"):
            with pytest.raises(CorruptModel, match="not a .tflite file"):
                parse(path.read_bytes())
