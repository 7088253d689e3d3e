"""Say what a file is that is no .tflite file, so that the mistake is clear at once."""

from __future__ import annotations

import re

_STARTS = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes with the suffix .h5"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"\x7fELF", "a program (ELF)"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"GGUF", "a GGUF model"),
    (b"version https://git-lfs", "a Git LFS pointer to the real file; fetch it with git lfs pull"),
    (b"\x08\x01\x12", "the graph of a TensorFlow SavedModel"),
)
"""First bytes of other formats. Sources: each format's own specification."""

_IN_ZIP = (
    (b"model.weights.h5", "a Keras model (.keras)"),
    (b"config.json", "a Keras model (.keras)"),
    (b"data.pkl", "a PyTorch file"),
)
"""Members of zip archives that tell what is in them; their names are stored uncompressed."""

_FLATBUFFERS = {
    b"ORTM": "an ONNX Runtime model (.ort)",
    b"ET12": "an ExecuTorch program",
    b"TFL2": "a TensorFlow Lite model of schema version 2",
}
"""File identifiers of other formats that are FlatBuffers too."""

# ModelProto's fields: ir_version (1), then any of those that writers put next.
# Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
_ONNX = re.compile(rb"\x08[\x01-\x20](?:[\x12\x1a\x22\x32\x3a\x42][\x00-\xff]|\x28)", re.DOTALL)
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_LOOKED_AT = 1 << 16
"""Bytes at each end of a file that are searched."""


def what_is(data: bytes) -> str:
    """What ``data`` seems to be, as in "an ONNX model"; an empty text when nobody knows."""
    if not data:
        return "an empty file"
    if data[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        ends = data[:_LOOKED_AT] + data[-_LOOKED_AT:]
        return next((what for name, what in _IN_ZIP if name in ends), "a zip archive")
    for start, what in _STARTS:
        if data.startswith(start):
            return what
    if data[4:8] in _FLATBUFFERS:
        return _FLATBUFFERS[data[4:8]]
    if _ONNX.match(data):
        return "an ONNX model"
    if _PICKLE.match(data):
        return "a Python pickle"
    return _text(data)


def _text(data: bytes) -> str:
    """What a text is; empty for what is no text."""
    start = data[:1024]
    if any(byte < 9 or 13 < byte < 32 for byte in start):
        return ""
    if start.lstrip()[:1] == b"<":
        return "a web page, perhaps an error message of the server"
    if b"unsigned char" in start or b"#include" in start:
        return "C source code; pass the binary file that it was made from"
    return "a text file"


__all__ = ["what_is"]
