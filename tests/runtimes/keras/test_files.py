"""What a file says of itself, looked at without Keras: refused before anything runs."""

from __future__ import annotations

import base64
import json
import marshal
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
h5py = pytest.importorskip("h5py")

from layertap.errors import CorruptModel, SourceError  # noqa: E402
from layertap.runtimes.keras.files import CONFIGURATION, check  # noqa: E402


def code(marker: Path) -> str:
    """What Keras stores of a lambda that leaves a file behind when it is called."""
    function = eval(f"lambda x: open({str(marker)!r}, 'w') and x")
    return base64.b64encode(marshal.dumps(function.__code__)).decode()


def described(*layers: dict[str, Any]) -> dict[str, Any]:
    first = {"batch_shape": [None, 3], "dtype": "float32", "name": "x"}
    inputs = {"module": "keras.layers", "class_name": "InputLayer", "config": first}
    config = {"name": "net", "layers": [inputs, *layers]}
    return {"module": "keras", "class_name": "Sequential", "config": config}


def layer(name: str, **config: Any) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": name, "config": {"name": "a", **config}}


def write(path: Path, config: Any) -> Path:
    text = config if isinstance(config, str) else json.dumps(config)
    if path.suffix == ".keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(CONFIGURATION, text)
            archive.writestr("metadata.json", "{}")
            archive.writestr("model.weights.h5", b"")
    else:
        with h5py.File(path, "w") as file:
            file.attrs["model_config"] = text
            file.create_group("model_weights").attrs["layer_names"] = []
    return path


def with_code(marker: Path) -> dict[str, dict[str, Any]]:
    """Models of which opening or calling would run code that the file brings."""
    text = code(marker)
    arguments = {"code": text, "defaults": None, "closure": None}
    new = {"class_name": "__lambda__", "config": arguments}
    reference = {"module": "builtins", "class_name": "function", "config": "relu"}
    deep = described(layer("Lambda", function=new))
    return {
        "a lambda": described(layer("Lambda", function=new)),
        "of Keras 2": described(
            layer("Lambda", function=[text, None, None], function_type="lambda")
        ),
        "the shape": described(layer("Lambda", function=reference, output_shape=new)),
        "an activation": described(layer("Dense", units=2, activation=new)),
        "a model inside": described({**deep, "config": {**deep["config"], "name": "inner"}}),
        "a pickle": described(layer("TorchModuleWrapper", module=text)),
        "registered": described({**layer("Lambda", function=new), "class_name": "any>Lambda"}),
    }


REFUSED = """
import sys, layertap
try:
    layertap.open(sys.argv[1])
except layertap.LayertapError as error:
    print(type(error).__name__, error.hint)
frameworks = {"keras", "tensorflow", "torch", "jax"} & set(sys.modules)
print(sorted(frameworks))
"""


def refused(path: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", REFUSED, str(path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_code_is_refused_before_keras_is_imported(tmp_path: Path, suffix: str) -> None:
    marker = tmp_path / "ran"
    for name, config in with_code(marker).items():
        path = write(tmp_path / f"net{suffix}", config)
        with pytest.raises(SourceError, match="Python code") as caught:
            check(path, allow_code=False, custom_objects=())
        assert "allow_code=True" in caught.value.hint, name
        check(path, allow_code=True, custom_objects=("relu",))
    error, imported = refused(path)
    assert error.startswith("SourceError allow_code=True")
    assert imported == "[]"
    assert not marker.exists()


def test_what_only_the_training_would_run_is_no_reason_to_refuse(tmp_path: Path) -> None:
    new = {"class_name": "__lambda__", "config": {"code": "", "defaults": None, "closure": None}}
    config = {**described(layer("Dense", units=2)), "compile_config": {"loss": new}}
    check(write(tmp_path / "net.keras", config), allow_code=False, custom_objects=())


def test_other_refusals_import_nothing(tmp_path: Path) -> None:
    unknown = described({"module": None, "class_name": "Mine", "registered_name": "me>Mine"})
    unknown["config"]["layers"][-1]["config"] = {}
    whole = write(tmp_path / "unknown.keras", unknown)
    assert refused(whole) == ["SourceError pass custom_objects={'Name': Name}", "[]"]
    for name in ("Mine", "me>Mine"):
        check(whole, allow_code=False, custom_objects=(name,))
    (tmp_path / "text.keras").write_text("no model")
    (tmp_path / "cut.keras").write_bytes(whole.read_bytes()[:-40])
    with zipfile.ZipFile(tmp_path / "empty.keras", "w"):
        pass
    for name in ("text", "cut", "empty"):
        error, imported = refused(tmp_path / f"{name}.keras")
        assert (error.split()[0], imported) == ("CorruptModel", "[]"), name


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("text", ["[" * 20_000, '{"a": ', "[1]", "\x00"])
def test_damaged_descriptions(tmp_path: Path, suffix: str, text: str) -> None:
    if suffix == ".h5" and text == "\x00":
        pytest.skip("HDF5 holds no such text")
    with pytest.raises(CorruptModel):
        check(write(tmp_path / f"net{suffix}", text), allow_code=False, custom_objects=())


def test_an_archive_that_unpacks_without_end_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.keras"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(CONFIGURATION, "w") as member,
    ):
        for _ in range(260):
            member.write(b" " * (1 << 20))
    with pytest.raises(CorruptModel, match="larger than"):
        check(path, allow_code=False, custom_objects=())
