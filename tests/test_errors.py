"""Errors survive a process boundary: all of them, with all that they say."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest

import layertap
from layertap.errors import ArenaExceeded, BudgetExceeded, LayertapError, MissingRuntime, NoSuchTap

VALUES = {"str": "some words", "int": 12_345, "bool": True, "bool | None": None}
"""An argument for each annotation of the errors' parameters."""


def every_error() -> list[type[LayertapError]]:
    """Every class of errors of the modules that have been imported."""
    found = [LayertapError]
    for cls in found:
        found += [sub for sub in cls.__subclasses__() if sub not in found]
    return [cls for cls in found if cls.__module__.startswith("layertap.")]


def made(cls: type[LayertapError]) -> LayertapError:
    """An error of this class, all of whose arguments are given."""
    parameters = inspect.signature(cls).parameters.values()
    given = {p.name: VALUES[str(p.annotation)] for p in parameters}
    named = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    return cls(
        *(value for name, value in given.items() if name not in named),
        **{name: value for name, value in given.items() if name in named},
    )


def told(error: LayertapError) -> tuple[Any, ...]:
    return type(error), error.args, str(error), vars(error)


def import_everything() -> Iterator[str]:
    """Import every module of layertap; the names of those whose framework is missing."""
    for module in pkgutil.walk_packages(layertap.__path__, "layertap."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            assert not (error.name or "").startswith("layertap"), error
            yield module.name


WAYS: list[Callable[[LayertapError], LayertapError]] = [
    copy.copy,
    copy.deepcopy,
    *(
        lambda error, protocol=protocol: pickle.loads(pickle.dumps(error, protocol))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    ),
]


def check_all() -> None:
    for cls in every_error():
        error = made(cls)
        error.add_note("seen while reading batch 3")
        for way in WAYS:
            again = way(error)
            assert again is not error
            assert told(again) == told(error), cls


def test_errors_are_copied_and_pickled_whole() -> None:
    assert {BudgetExceeded, ArenaExceeded, NoSuchTap} <= set(every_error())
    check_all()


@pytest.mark.slow
def test_errors_of_every_module_do() -> None:
    """In a process of its own: it imports all frameworks."""
    code = (
        "import sys; sys.path.insert(0, 'tests'); import test_errors as t; "
        "print('missing', *t.import_everything()); t.check_all(); "
        "print('checked', *(cls.__name__ for cls in t.every_error()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    checked = done.stdout.split("checked")[1].split()
    assert {"WorkerFailure", "Ended", "Interrupted"} <= set(checked)


def test_what_an_import_error_knows_is_kept() -> None:
    error = pickle.loads(pickle.dumps(MissingRuntime("no torch here", hint="pip install it")))
    assert isinstance(error, ImportError)
    assert (error.msg, error.hint) == ("no torch here", "pip install it")


def fail(what: str) -> None:
    if what == "budget":
        raise BudgetExceeded(2_000_000, 1_000)
    raise ArenaExceeded("the tap 'conv'", 5_000, 4_096, hint="give more")


def test_a_pool_of_processes_hands_them_on_and_lives() -> None:
    # A class that does not unpickle breaks the pool, and every later task with it.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for what, cls, needed in (
            ("budget", BudgetExceeded, 2_000_000),
            ("", ArenaExceeded, 5_000),
        ):
            with pytest.raises(cls) as caught:
                pool.submit(fail, what).result(timeout=60)
            assert caught.value.needed == needed
        assert caught.value.available == 4_096
        assert str(caught.value).endswith("more than the 4,096 there are (give more)")
