"""Read any intermediate value of any model, wherever the model runs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from layertap.errors import LayertapError

if TYPE_CHECKING:
    from layertap.api import Model, attach, export, load, open
    from layertap.arena.memory_map import MemoryMap
    from layertap.core.captures import Capture, Run, summarize
    from layertap.core.graph import Graph, TapPoint
    from layertap.core.plan import Plan
    from layertap.core.quantization import Quantization
    from layertap.listening import listen
    from layertap.onchip import Firmware, generate_firmware
    from layertap.recording import record
    from layertap.shrink import Optimized, optimize
    from layertap.sizing import memory, passes, prices

__version__ = "0.1.0"

_HOMES = {
    "open": "layertap.api",
    "attach": "layertap.api",
    "export": "layertap.api",
    "load": "layertap.api",
    "Model": "layertap.api",
    "Run": "layertap.core.captures",
    "Capture": "layertap.core.captures",
    "summarize": "layertap.core.captures",
    "Graph": "layertap.core.graph",
    "TapPoint": "layertap.core.graph",
    "Plan": "layertap.core.plan",
    "Quantization": "layertap.core.quantization",
    "listen": "layertap.listening",
    "record": "layertap.recording",
    "memory": "layertap.sizing",
    "passes": "layertap.sizing",
    "prices": "layertap.sizing",
    "optimize": "layertap.shrink",
    "Optimized": "layertap.shrink",
    "MemoryMap": "layertap.arena.memory_map",
    "generate_firmware": "layertap.onchip",
    "Firmware": "layertap.onchip",
}

__all__ = [
    "Capture",
    "Firmware",
    "Graph",
    "LayertapError",
    "MemoryMap",
    "Model",
    "Optimized",
    "Plan",
    "Quantization",
    "Run",
    "TapPoint",
    "attach",
    "export",
    "generate_firmware",
    "listen",
    "load",
    "memory",
    "open",
    "optimize",
    "passes",
    "prices",
    "record",
    "summarize",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'layertap' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
