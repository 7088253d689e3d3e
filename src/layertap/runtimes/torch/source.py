"""From a live module or a file to a module."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from layertap.core.protocols import Json
from layertap.errors import CorruptModel, SourceError

_PICKLE = b"\x80"
"""What a pickle starts with, as does what PyTorch wrote before it took to zip archives."""

_BROKEN = (
    RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError, zipfile.BadZipFile,
)  # fmt: skip
"""What reading a damaged file raises, besides pickle's own error."""


@dataclass(frozen=True, slots=True)
class Source:
    """A module and what provenance says of it."""

    module: nn.Module
    facts: dict[str, Json]


def load(source: Any, *, allow_code: bool = False) -> Source:
    """The module that ``source`` is, or that the file at this path holds.

    A pickled module runs code of its maker's when it is loaded: ``allow_code`` permits that.
    Raises SourceError or CorruptModel.
    """
    if isinstance(source, nn.Module):
        kind = type(source)
        return Source(source, {"sha256": None, "type": f"{kind.__module__}.{kind.__qualname__}"})
    if not isinstance(source, str | Path):
        raise SourceError(
            f"a {type(source).__name__} is not a torch.nn.Module", hint="pass a module, or a file"
        )
    path = Path(source)
    module = _load_file(path, allow_code)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Source(module, {"sha256": digest, "path": str(path)})


def _load_file(path: Path, allow_code: bool) -> nn.Module:
    try:
        _refuse_others(path)
        value = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise SourceError(
            f"{str(path)!r} cannot be read: {error}", hint="check the file"
        ) from error
    except pickle.UnpicklingError as error:
        if "nsupported" not in str(error) and "weights_only" not in str(error):
            raise _corrupt(path, error) from error
        value = _load_code(path, allow_code)
    except _BROKEN as error:
        raise _corrupt(path, error) from error
    if isinstance(value, nn.Module):
        return value
    if isinstance(value, dict):
        raise SourceError(
            f"{str(path)!r} holds weights (a state dict) and no module",
            hint="build the module, load the weights into it and pass the module to layertap.open",
        )
    raise SourceError(
        f"{str(path)!r} holds a {type(value).__name__} and no module", hint="save the module itself"
    )


def _load_code(path: Path, allow_code: bool) -> Any:
    if not allow_code:
        raise SourceError(
            f"{str(path)!r} is a pickle that runs code when it is loaded",
            hint="if you trust where it comes from, open it with allow_code=True",
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except (AttributeError, ImportError) as error:
        raise SourceError(
            f"the code of the module in {str(path)!r} cannot be imported: {error}",
            hint="make the module's class importable under the name it was saved with",
        ) from error
    except Exception as error:
        raise _corrupt(path, error) from error


def _refuse_others(path: Path) -> None:
    """TorchScript and exported programs hold no module whose layers can be listened to; and what
    is of another format must not look like a pickle that might be trusted."""
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            known = file.read(1) == _PICKLE
        if not (known or tarfile.is_tarfile(path)):
            raise CorruptModel(
                f"{str(path)!r} is no file that PyTorch writes",
                hint="save or download it again, or name the runtime that it is for",
            )
        return
    with zipfile.ZipFile(path) as archive:
        names = {name.partition("/")[2] for name in archive.namelist()}
    if "archive_format" in names or any(name.startswith("models/") for name in names):
        what = "an exported program (torch.export)"
    elif "constants.pkl" in names:
        what = "a TorchScript archive"
    else:
        return
    raise SourceError(
        f"{str(path)!r} is {what}, whose layers cannot be listened to",
        hint="open the nn.Module that it was made from",
    )


def _corrupt(path: Path, error: Exception) -> CorruptModel:
    first = str(error).partition("\n")[0] or type(error).__name__
    return CorruptModel(f"{str(path)!r} is damaged: {first}", hint="save or download it again")
