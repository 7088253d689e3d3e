"""From a file or live object to a Keras model."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import keras
from keras.src.backend.common import global_state

from layertap.errors import CorruptModel, SourceError, UnknownSource
from layertap.runtimes.keras.files import check, configuration, needs_class

_WITHOUT_EFFECT: Mapping[str, Mapping[str, Any]] = {
    "DepthwiseConv1D": {"groups": 1},
    "DepthwiseConv2D": {"groups": 1},
    "Conv1DTranspose": {"groups": 1},
    "Conv2DTranspose": {"groups": 1},
    "Conv3DTranspose": {"groups": 1},
    "SeparableConv1D": {"groups": 1},
    "SeparableConv2D": {"groups": 1},
    "SpatialDropout1D": {"noise_shape": None},
    "SpatialDropout2D": {"noise_shape": None},
    "SpatialDropout3D": {"noise_shape": None},
    "SimpleRNN": {"time_major": False},
    "LSTM": {"time_major": False},
    "GRU": {"time_major": False},
}
"""Arguments that Keras 2 wrote into every ``.h5`` and Keras 3 no longer has, at the values at which
they had no effect. At any other value the file is refused, as by Keras itself."""


@dataclass(frozen=True)
class Source:
    """A model, and where it is from: ``sha256`` of the file, or None for a live object."""

    model: Any
    sha256: str | None
    origin: str


def load(source: Any, *, allow_code: bool, custom_objects: Mapping[str, Any] | None) -> Source:
    """Raises UnknownSource, SourceError where code would have to be run, CorruptModel."""
    if isinstance(source, str | Path):
        path = Path(source)
        model = _load_file(path, allow_code, dict(custom_objects or {}))
        return Source(model, hashlib.sha256(path.read_bytes()).hexdigest(), str(path))
    if not isinstance(source, keras.Layer):
        raise UnknownSource(
            f"a {type(source).__qualname__} is no Keras model",
            hint="pass a keras.Model or keras.Layer, or a .keras or .h5 file",
        )
    return Source(source, None, f"{type(source).__module__}.{type(source).__qualname__}")


def _load_file(path: Path, allow_code: bool, custom_objects: dict[str, Any]) -> Any:
    check(path, allow_code=allow_code, custom_objects=custom_objects)
    try:
        with _own_counters(), _readable(path) as file:
            return keras.saving.load_model(
                str(file), custom_objects=custom_objects, compile=False, safe_mode=not allow_code
            )
    except Exception as error:
        raise _refusal(path, error) from error


def _refusal(path: Path, error: Exception) -> SourceError:
    """Why Keras does not load a file: it holds code, it needs classes, or it is damaged."""
    text = str(error)
    if "safe_mode" in text or "unsafe deserialization" in text.lower():
        return SourceError(
            f"{str(path)!r} holds Python code (a Lambda layer)",
            hint="allow_code=True loads and runs it; do that only for files you trust",
        )
    unknown = ("Could not locate", "Unknown layer", "Unknown object", "Unknown activation")
    if any(phrase in text for phrase in unknown):
        return needs_class(path, _last(text))
    if "could not be deserialized" in text or "deserializing class" in text:
        return SourceError(
            f"{str(path)!r} describes a layer that cannot be made: {_last(text)}",
            hint="another version of Keras wrote it, or a custom class refuses its own config",
        )
    return CorruptModel(
        f"Keras cannot load {str(path)!r}: {type(error).__name__}: {_brief(text)}",
        hint="the file is damaged, or another version of Keras wrote it",
    )


def _last(text: str) -> str:
    """The innermost complaint of Keras's nested messages."""
    return _brief(text.rpartition("Exception encountered:")[2])


def _brief(text: str) -> str:
    first = text.strip().partition("\n")[0]
    return first if len(first) <= 200 else first[:200] + "..."


@contextmanager
def _own_counters() -> Iterator[None]:
    """Let Keras number the layers that it names by itself from the start, so that a file gives
    the same names however often and after whatever it is loaded."""
    before = global_state.get_global_attribute("object_name_uids")
    global_state.set_global_attribute("object_name_uids", None)
    try:
        yield
    finally:
        global_state.set_global_attribute("object_name_uids", before)


@contextmanager
def _readable(path: Path) -> Iterator[Path]:
    """What ``keras.saving.load_model`` takes: the path, or a copy brought up to date."""
    if path.suffix.lower() == ".keras":
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="layertap-") as folder:
        config = configuration(path)
        if _drop_without_effect(config):
            mended = Path(folder, path.name)
            shutil.copyfile(path, mended)
            with h5py.File(mended, "r+") as file:
                file.attrs["model_config"] = json.dumps(config)
            path = mended
        yield path


def _drop_without_effect(config: Any) -> bool:
    """Remove arguments without effect in place; whether there was one."""
    if isinstance(config, list):
        return any(list(map(_drop_without_effect, config)))
    if not isinstance(config, dict):
        return False
    changed = any(list(map(_drop_without_effect, config.values())))
    arguments = config.get("config")
    for name, value in _WITHOUT_EFFECT.get(str(config.get("class_name")), {}).items():
        if isinstance(arguments, dict) and name in arguments and arguments[name] == value:
            del arguments[name]
            changed = True
    return changed
