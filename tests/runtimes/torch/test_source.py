"""Files that hold PyTorch modules, and files that do not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layertap
from layertap.errors import CorruptModel, SourceError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "net.pt"
    torch.save(nn.Sequential(nn.Linear(4, 3), nn.Tanh()), path)
    return path


def test_pickled_modules_need_permission(saved: Path) -> None:
    with pytest.raises(SourceError, match="runs code") as caught:
        layertap.open(saved)
    assert "allow_code=True" in caught.value.hint
    with layertap.open(saved, allow_code=True) as model:
        assert model.capture(np.zeros((2, 4)))["1"].values.shape == (2, 3)
        facts = model.session.provenance["model"]
        assert facts["path"] == str(saved)
        assert len(facts["sha256"]) == 64


class Marks:
    """Its pickle makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_no_code_runs_without_permission(tmp_path: Path, zipped: bool) -> None:
    path, mark = tmp_path / "net.pth", tmp_path / "ran"
    torch.save(Marks(mark), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(SourceError, match="runs code"):
        layertap.open(path)
    assert not mark.exists()
    with pytest.raises(SourceError, match="no module"):
        layertap.open(path, allow_code=True)
    assert mark.exists()


def test_weights_alone_are_no_model(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(SourceError, match="state dict"):
        layertap.open(path)
    torch.save(torch.zeros(3), path)
    with pytest.raises(SourceError, match="a Tensor and no module"):
        layertap.open(path)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_archives_of_other_kinds(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(path)
    with pytest.raises(SourceError, match="TorchScript"):
        layertap.open(path)
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.zeros(1, 2),)), path)
    with pytest.raises(SourceError, match="exported program"):
        layertap.open(path)


def _damaged(whole: bytes) -> Iterator[bytes]:
    yield b""
    yield b"not a model"
    for share in (0.1, 0.5, 0.95):
        yield whole[: int(len(whole) * share)]
    yield whole[:64] + bytes(64) + whole[128:]


@pytest.mark.parametrize("allow_code", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files(tmp_path: Path, zipped: bool, allow_code: bool) -> None:
    path = tmp_path / "net.pt"
    torch.save(nn.Linear(8, 8), path, _use_new_zipfile_serialization=zipped)
    for content in _damaged(path.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(SourceError) as caught:
            layertap.open(path, allow_code=allow_code)
        if allow_code:
            assert isinstance(caught.value, CorruptModel), content[:20]


def test_a_damaged_table_of_contents(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save(nn.Linear(8, 8), path)
    path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"PK\x01\xff"))
    with pytest.raises(CorruptModel, match="damaged"):
        layertap.open(path)


def test_what_is_no_pickle_is_not_to_be_trusted_either(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    for content in (b"TFL3 is of another format", b"\x89HDF", b"GGUF"):
        path.write_bytes(content)
        with pytest.raises(CorruptModel, match="no file that PyTorch writes"):
            layertap.open(path)


def test_lazy_modules_must_have_run() -> None:
    net = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(SourceError, match="lazy"):
        layertap.open(net)
    net(torch.zeros(1, 2))
    with layertap.open(net) as model:
        assert "0" in model.capture(np.zeros((1, 2)))
