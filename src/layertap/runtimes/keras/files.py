"""What a ``.keras`` or ``.h5`` file says of itself, and whether it can be opened: read without
Keras, before a framework is imported, and whatever that version of Keras would let through."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]

from layertap.core.messages import brief
from layertap.errors import CorruptModel, SourceError

CONFIGURATION = "config.json"
"""The member of a ``.keras`` archive that describes the model."""
_MOST = 256 << 20
"""Bytes of a configuration: those of the largest models take some megabytes."""

_RUNS_CODE: Mapping[str, str] = {
    "__lambda__": "a Lambda layer or a lambda",
    "TorchModuleWrapper": "a pickled PyTorch module",
    "JaxLayer": "a function of JAX",
    "FlaxLayer": "a module of Flax",
    "TFSMLayer": "a reference to a SavedModel",
}
"""Classes whose configuration is, or names, code that runs when the model is made or called."""


def check(path: Path, *, allow_code: bool, custom_objects: Collection[str]) -> None:
    """Raise CorruptModel for what is no model, SourceError for a missing file, for one without a
    model, for code unless ``allow_code``, and for classes that only ``custom_objects`` could give.
    """
    found = configuration(path)
    if found is None:
        raise SourceError(
            f"{str(path)!r} holds weights only",
            hint="save the whole model with model.save('model.keras')",
        )
    code = next(_code(found), "")
    if code and not allow_code:
        raise SourceError(
            f"{str(path)!r} holds Python code ({code})",
            hint="allow_code=True loads and runs it; do that only for files you trust",
        )
    missing = next(_missing(found, custom_objects), "")
    # What a program has registered with Keras is known to Keras only.
    if missing and "keras" not in sys.modules:
        raise needs_class(path, missing)


def needs_class(path: Path, what: str) -> SourceError:
    return SourceError(
        f"{str(path)!r} needs a class or function that Keras does not have: {what}",
        hint="pass custom_objects={'Name': Name}",
    )


def configuration(path: Path) -> Any:
    """How the file describes its model, as ``json`` reads it; None where it describes none.

    Raises CorruptModel, and SourceError when there is no file.
    """
    if not path.is_file():
        raise SourceError(f"there is no file {str(path)!r}", hint="check the path")
    text = _of_archive(path) if path.suffix.lower() == ".keras" else _of_hdf5(path)
    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its description of the model is no JSON: {brief(error)}") from error
    if not isinstance(found, dict):
        raise _damaged(path, "its description of the model is no JSON object")
    return found


def _of_archive(path: Path) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(CONFIGURATION).file_size > _MOST:
                raise _damaged(path, f"its {CONFIGURATION} is larger than {_MOST:,} bytes")
            return archive.read(CONFIGURATION)
    except KeyError as error:
        raise _damaged(path, f"it has no {CONFIGURATION}") from error
    except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, ValueError, EOFError) as error:
        raise CorruptModel(
            f"{str(path)!r} is no Keras archive: {brief(error)}",
            hint="a .keras file is a zip archive that model.save wrote",
        ) from error
    except Exception as error:  # what the module that inflates raises has no class of its own
        raise _damaged(path, brief(error)) from error


def _of_hdf5(path: Path) -> str | bytes | None:
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
    except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise CorruptModel(
            f"{str(path)!r} is no HDF5 file: {brief(error)}",
            hint="an .h5 model is an HDF5 file that model.save wrote",
        ) from error
    if text is None or isinstance(text, str | bytes):
        return text
    raise _damaged(path, "its description of the model is no text")


def _damaged(path: Path, why: str) -> CorruptModel:
    return CorruptModel(f"{str(path)!r} is damaged: {why}", hint="save or copy it once more")


def _described(found: Any) -> Iterator[dict[str, Any]]:
    """Every object that a configuration describes, but for how the model is trained."""
    todo = [{key: value for key, value in found.items() if key != "compile_config"}]
    while todo:
        one: Any = todo.pop()
        if isinstance(one, list):
            todo.extend(one)
        elif isinstance(one, dict):
            todo.extend(one.values())
            if isinstance(one.get("class_name"), str):
                yield one


def _code(found: Any) -> Iterator[str]:
    """What of a configuration is code."""
    for one in _described(found):
        name = one["class_name"].rpartition(">")[2]
        if name in _RUNS_CODE:
            yield _RUNS_CODE[name]
        arguments = one.get("config")
        if name == "Lambda" and isinstance(arguments, dict):
            # A function by its name is a text or an object; Keras 2 wrote code as a list.
            values = (arguments.get(key) for key in ("function", "output_shape", "mask"))
            kinds = [arguments.get(f"{key}_type") for key in ("function", "output_shape", "mask")]
            first = next(values)
            if isinstance(first, list) or "lambda" in kinds:
                yield _RUNS_CODE["__lambda__"]


def _missing(found: Any, given: Collection[str]) -> Iterator[str]:
    """Names of classes and functions that are not Keras's own, nor in ``given``."""
    known = {*given, *(name.rpartition(">")[2] for name in given)}
    for one in _described(found):
        name, registered = one["class_name"], one.get("registered_name")
        if name == "function" and isinstance(one.get("config"), str):
            name = registered = one["config"]
            own = ">" not in name
        else:
            own = "module" not in one or one["module"] is not None
        if not own and not {name, registered, name.rpartition(">")[2]} & known:
            yield repr(name)
