"""A digest of everything fed into a run, the same however the samples are cut into batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from layertap.core.dtypes import Array
from layertap.core.feeds import Feed, is_array


class InputDigest:
    """SHA-256 over the inputs, one stream per input name.

    A value whose first axis counts the samples is hashed row by row, anything else (a mask, a
    flag) when it differs from that of the feed before. Objects that are neither arrays nor plain
    values count by their type only.
    """

    def __init__(self) -> None:
        self._streams: dict[str, Any] = {}
        self._last: dict[str, object] = {}
        """What a stream has heard of last beside rows: their form, or a fact."""

    def update(self, samples: int, feed: Feed) -> None:
        """Take in ``samples`` more samples."""
        for name, value in _leaves("", feed):
            stream = self._streams.get(name)
            if stream is None:
                stream = self._streams[name] = hashlib.sha256()
            array = _as_array(value)
            if array is None:
                self._on_change(name, f"{type(value).__name__} {_plain(value)}".encode())
            elif array.ndim and array.shape[0] == samples:
                form = array.dtype, array.shape[1:]
                if self._last.get(name) != form:  # to say it takes longer than to hash a few rows
                    self._last[name] = form
                    stream.update(f"{array.dtype} {array.shape[1:]}".encode())
                stream.update(_bytes(array).data)
            else:
                whole = hashlib.sha256(_bytes(array).data).hexdigest()
                self._on_change(name, f"{array.dtype} {array.shape} {whole}".encode())

    def _on_change(self, name: str, fact: bytes) -> None:
        if self._last.get(name) != fact:
            self._last[name] = fact
            self._streams[name].update(fact)

    def hexdigest(self) -> str:
        """The digest so far, 64 hexadecimal digits."""
        whole = hashlib.sha256()
        for name in sorted(self._streams):
            whole.update(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest())
            whole.update(self._streams[name].digest())
        return whole.hexdigest()


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{name}/{key}", inner)
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from _leaves(f"{name}/{i}", inner)
    else:
        yield name, value


def _as_array(value: Any) -> Array | None:
    """``value`` as a NumPy array of numbers, those that stand for texts included, or None."""
    if not is_array(value):
        return None
    if hasattr(value, "detach"):
        # PyTorch: NumPy reads neither tensors that require gradients nor those of a GPU.
        value = value.detach().cpu()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):
        if not hasattr(value, "float"):
            return None
        array = np.asarray(value.float())  # a dtype that NumPy lacks, such as torch.bfloat16
    return _hashes(array) if array.dtype.kind in "OUS" else array


def _hashes(texts: Array) -> Array | None:
    """What stands for each text, however long the others are: uint8 (..., 32). None for objects
    that are no texts."""
    flat = texts.ravel().tolist()
    if not all(isinstance(one, str | bytes) for one in flat):
        return None
    encoded = (one if isinstance(one, bytes) else one.encode("utf-8", "replace") for one in flat)
    hashes = b"".join(hashlib.sha256(one).digest() for one in encoded)
    return np.array(bytearray(hashes), np.uint8).reshape(*texts.shape, 32)


def _bytes(array: Array) -> Array:
    return np.asarray(array, order="C").reshape(-1).view(np.uint8)


def _plain(value: Any) -> str:
    return repr(value) if isinstance(value, str | bytes | int | float | None) else ""
