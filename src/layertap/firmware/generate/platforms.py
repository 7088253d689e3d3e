"""The platforms that firmware is generated for."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from layertap.errors import LayertapError

EVERY = "every_platform"
"""The folder of templates that all platforms share."""

EMULATOR = (
    "qemu-system-arm -M mps2-an385 -display none -monitor none -serial stdio "
    "-kernel build/firmware.elf"
)
"""How a child process runs what is generated for qemu-mps2."""

_MAIN = """\
int main() {
  start();
  for (;;) step();
}"""

_APP_MAIN = """\
extern "C" void app_main() {
  start();
  for (;;) step();
}"""

_SKETCH = """\
void setup() { start(); }

void loop() { step(); }"""


@dataclass(frozen=True, slots=True)
class Platform:
    """``targets`` are the chip families it runs on; ``kernels`` the libraries of kernels that it
    may bring, none for the reference kernels alone. ``sources`` is the folder of the C++ files;
    ``entry`` how they are entered. ``port`` is where the host finds the board, as in ``--port``."""

    name: str
    title: str
    targets: tuple[str, ...]
    kernels: tuple[str, ...]
    sources: str
    entry: str
    port: str

    @property
    def templates(self) -> str:
        """The folder of its own templates."""
        return self.name.replace("-", "_")


PLATFORMS = {
    platform.name: platform
    for platform in (
        Platform(
            "generic",
            "a Makefile, for any processor",
            ("cortex-m", "ilp32"),
            (),
            "",
            _MAIN,
            "exec:build/firmware",
        ),
        Platform(
            "arduino",
            "an Arduino sketch",
            ("cortex-m", "ilp32"),
            ("cmsis_nn", "esp_nn"),
            "sketch",
            _SKETCH,
            "/dev/ttyACM0",
        ),
        Platform(
            "esp-idf",
            "an ESP-IDF project, for an ESP32 of any kind",
            ("ilp32",),
            ("esp_nn",),
            "main",
            _APP_MAIN,
            "/dev/ttyUSB0",
        ),
        Platform(
            "zephyr",
            "a Zephyr application",
            ("cortex-m", "ilp32"),
            ("cmsis_nn",),
            "src",
            _MAIN,
            "/dev/ttyACM0",
        ),
        Platform(
            "pico",
            "a Pico SDK project, for RP2040 and RP2350",
            ("cortex-m", "ilp32"),
            ("cmsis_nn",),
            "",
            _MAIN,
            "/dev/ttyACM0",
        ),
        Platform(
            "qemu-mps2",
            "an emulated Cortex-M3, to try without a board",
            ("cortex-m",),
            (),
            "",
            _MAIN,
            f"exec:{EMULATOR}",
        ),
    )
}


def platform_named(name: str) -> Platform:
    """The platform of this name. Raises LayertapError with near names."""
    if name in PLATFORMS:
        return PLATFORMS[name]
    near = difflib.get_close_matches(name.lower(), PLATFORMS, 3, 0.4)
    there = f"near names: {', '.join(near)}" if near else f"there is {', '.join(PLATFORMS)}"
    raise LayertapError(f"there is no platform {name!r}", hint=there)


def templates(folder: str) -> Iterator[tuple[str, str]]:
    """The path and the text of each template below ``folder``, by path."""
    root = files("layertap.firmware.generate") / "platforms" / folder
    return iter(sorted(_walk(root, "")))


def _walk(folder: Traversable, before: str) -> Iterator[tuple[str, str]]:
    for entry in folder.iterdir():
        path = before + entry.name
        if entry.is_dir():
            yield from _walk(entry, f"{path}/")
        else:
            yield path, entry.read_text(encoding="utf-8")


__all__ = ["EVERY", "PLATFORMS", "Platform", "platform_named", "templates"]
