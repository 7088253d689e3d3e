"""Importing layertap is free, and its listing and help need no framework."""

from __future__ import annotations

import subprocess
import sys

import layertap
from layertap.testing.runtime import FRAMEWORKS

REFUSE = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {FRAMEWORKS!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refuse())
"""


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def test_importing_layertap_loads_the_standard_library_only() -> None:
    code = """
import sys
before = set(sys.modules)
import layertap
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(new - set(sys.stdlib_module_names) - {"layertap"}))
"""
    assert python(code).strip() == "[]"


def test_every_public_name_resolves_and_they_are_few() -> None:
    assert len(layertap.__all__) <= 25
    for name in layertap.__all__:
        assert getattr(layertap, name) is not None
    assert set(layertap.__all__) <= set(dir(layertap))


def test_api_works_up_to_the_model_without_any_framework() -> None:
    code = (
        REFUSE
        + """
import layertap
try:
    layertap.open("nothing.keras")
except layertap.LayertapError as error:
    print(type(error).__name__, error.hint)
class Foreign: ...
try:
    layertap.open(Foreign())
except layertap.LayertapError as error:
    print(type(error).__name__)
"""
    )
    assert python(code).splitlines() == ["SourceError check the path", "UnknownSource"]
