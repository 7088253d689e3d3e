"""Which runtime opens which source: a table. No framework is imported here."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from layertap.core.files import check_ends
from layertap.core.messages import abridged
from layertap.errors import MissingRuntime, SourceError, UnknownSource

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Runtime:
    """One row of the table.

    ``module`` is imported when the runtime is used; it offers ``open(source, **options)`` and
    returns a :class:`layertap.core.protocols.Session`, and may offer ``attach(obj, selector)``.
    ``suffixes`` are file suffixes it opens, ``holds`` names of files by which it knows a folder,
    ``roots`` the root modules of live objects' types, ``packages`` what must be installed,
    ``extra`` the layertap extra that installs it (none, "", for a runtime of another package).
    """

    name: str
    module: str
    extra: str
    packages: tuple[str, ...]
    suffixes: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()

    def missing(self) -> str:
        """The first package that is not installed, or an empty text."""
        return next((p for p in self.packages if importlib.util.find_spec(p) is None), "")

    def install(self, package: str = "") -> str:
        """How to install what is needed, ``package`` if it is known to be missing."""
        if self in BUILTIN:
            return f"pip install 'layertap[{self.extra}]'"
        module = package or self.packages[0]
        return f"install the package with the module {module!r}; no extra of layertap has it"

    def load(self) -> ModuleType:
        """The runtime's module. Raises MissingRuntime when a package is not installed."""
        try:
            return importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] not in self.packages:
                raise
            raise missing_runtime(self, error.name) from error


def missing_runtime(runtime: Runtime, package: str) -> MissingRuntime:
    """The error that tells how to install what ``runtime`` needs."""
    return MissingRuntime(
        f"the runtime {runtime.name!r} needs {package!r}, which is not installed",
        hint=runtime.install(package),
    )


BUILTIN = (
    # Keras before the others: its models are nn.Modules or TensorFlow objects too.
    Runtime("keras", "layertap.runtimes.keras", "keras", ("keras",), (".keras", ".h5"), ("keras",)),
    Runtime(
        "tensorflow",
        "layertap.runtimes.tensorflow",
        "tensorflow",
        ("tensorflow",),
        (".pb", ".pbtxt", ".meta"),
        ("tensorflow",),
        ("saved_model.pb", "saved_model.pbtxt"),
    ),
    Runtime("torch", "layertap.runtimes.torch", "torch", ("torch",), (".pt", ".pth"), ("torch",)),
    Runtime("litert", "layertap.runtimes.litert", "litert", ("ai_edge_litert",), (".tflite",)),
    Runtime("tflm", "layertap.runtimes.tflm", "tflm", ("tflite_micro",), (".tflite",)),
    # Without suffixes: a board is asked for by name, never found.
    Runtime("device", "layertap.runtimes.device", "device", ("serial", "cobs")),
)

ENTRY_POINTS = "layertap.runtimes"
"""Entry point group; each entry loads a :class:`Runtime`."""


def runtimes() -> tuple[Runtime, ...]:
    """The built-in runtimes, then those that other packages register. One that cannot be loaded is
    left out with a warning: it is no reason not to open what the others open."""
    return (*BUILTIN, *_further())


@cache
def _further() -> tuple[Runtime, ...]:
    from importlib.metadata import entry_points

    return tuple(filter(None, map(_registered, entry_points(group=ENTRY_POINTS))))


def _in_order() -> Iterator[Runtime]:
    """As :func:`runtimes`; looking among the installed packages takes time, and comes last."""
    yield from BUILTIN
    yield from _further()


def _registered(entry: EntryPoint) -> Runtime | None:
    try:
        row = entry.load()
    except Exception as error:
        row = f"{type(error).__name__}: {error}"
    if isinstance(row, Runtime):
        return row
    _log.warning(
        "the runtime %r of %s is left out: %s is no layertap.runtimes.registry.Runtime",
        *(entry.name, entry.dist.name if entry.dist else "another package", abridged(repr(row))),
    )
    return None


def source_path(source: str | Path) -> Path:
    """The file or folder that a source names: ``folder#part`` means ``folder``, unless there is
    something of just that name."""
    path, (head, mark, _) = Path(source), str(source).rpartition("#")
    return Path(head) if mark and not path.exists() else path


def find_runtime(source: Any, name: str | None = None) -> Runtime:
    """The runtime called ``name``, or the first that fits ``source`` and is installed.

    ``source`` is a path or a live object; the object's type is recognised by the root modules of
    its bases, and nothing is imported. Raises UnknownSource when none fits, and SourceError for a
    path of what may never end, such as a pipe.
    """
    if isinstance(source, str | Path) and source_path(source).exists():
        check_ends(source_path(source))
    if name is not None:
        return _by_name(name)
    missing = []
    for runtime in filter(lambda row: _fits(row, source), _in_order()):
        if not runtime.missing():
            return runtime
        missing.append(runtime)
    if not missing:
        raise _unknown(source)
    return missing[0]


def _by_name(name: str) -> Runtime:
    for runtime in _in_order():
        if runtime.name == name:
            return runtime
    names = ", ".join(runtime.name for runtime in runtimes())
    raise UnknownSource(f"there is no runtime {name!r}", hint=f"it is one of {names}")


def _fits(runtime: Runtime, source: Any) -> bool:
    if isinstance(source, str | Path):
        path = source_path(source)
        if path.is_dir() and runtime.holds:
            return any((path / name).is_file() for name in runtime.holds)
        return path.suffix.lower() in runtime.suffixes
    return any(root in runtime.roots for root in _root_modules(source))


def _root_modules(source: Any) -> Iterator[str]:
    for base in type(source).__mro__:
        yield base.__module__.partition(".")[0]


def _unknown(source: Any) -> SourceError:
    suffixes = ", ".join(dict.fromkeys(s for runtime in runtimes() for s in runtime.suffixes))
    if isinstance(source, str | Path) and source_path(source).is_dir():
        names = dict.fromkeys(name for runtime in runtimes() for name in runtime.holds)
        return UnknownSource(
            f"no runtime opens the folder {str(source)!r}",
            hint=f"a folder that is a model holds {' or '.join(names)}",
        )
    if isinstance(source, str | Path):
        return UnknownSource(
            f"no runtime opens {str(source)!r}", hint=f"files end in one of {suffixes}"
        )
    return UnknownSource(
        f"no runtime opens a {type(source).__module__}.{type(source).__qualname__}",
        hint=f"pass a Keras, TensorFlow or PyTorch model, or a file that ends in one of {suffixes}",
    )
