"""Serial ports, by pySerial: devices of the system, and its URLs (``rfc2217://``, ``loop://``)."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import serial
from serial.tools import list_ports

from layertap.errors import LayertapError, RuntimeFailure, SourceError
from layertap.runtimes.device.transport import Ended

_SLICE = 0.05
"""Seconds that pySerial waits for a byte before time-outs are looked at again."""

_OURS = "this process"

USUAL = "9600, 115200, 230400, 460800, 921600, 1000000"


class SerialPort:
    """A serial port, which no other program can open meanwhile. Raises SourceError."""

    two_way = True
    replays = False

    def __init__(self, port: str, *, baud: int, patience: float) -> None:
        self.name = port
        self._patience = patience
        native = "://" not in port
        try:
            self._port: Any = serial.serial_for_url(
                port,
                baudrate=baud,
                timeout=_SLICE,
                write_timeout=patience,
                **({"exclusive": True} if native else {}),
            )
        except (OSError, ValueError, OverflowError) as error:  # a SerialException is an OSError
            raise _not_opened(port, baud, error) from error
        if native and any(name != _OURS for name in _holders(port)):
            # Not every program takes the lock; each of the two would get a part of the bytes.
            self.close()
            raise _busy(port)

    def read(self, timeout: float, /) -> bytes:
        deadline = time.monotonic() + timeout
        try:
            while True:
                data: bytes = self._port.read(self._port.in_waiting or 1)
                if data or time.monotonic() >= deadline:
                    return data
        except (OSError, TypeError) as error:  # TypeError: pySerial, closed by another thread
            raise self._gone() from error

    def write(self, data: bytes, /) -> None:
        try:
            self._port.write(data)
        except serial.SerialTimeoutException as error:
            raise RuntimeFailure(
                f"the board on {self.name} takes no bytes within {self._patience:g} s",
                hint="does its firmware read its input? more time: timeout=SECONDS",
            ) from error
        except OSError as error:
            raise self._gone() from error

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._port.close()

    def _gone(self) -> Ended:
        there = "://" in self.name or Path(self.name).exists()
        return Ended(
            f"the connection to {self.name} broke"
            if there
            else f"{self.name} is gone: the board was unplugged, or its USB has restarted",
            hint="plug it in again and capture anew; with a run on disk, go on with resume=True",
        )


def ports() -> list[str]:
    """The serial ports of this machine, with what is known about each."""
    return [
        f"{port.device} ({port.description})" if port.description != "n/a" else port.device
        for port in sorted(list_ports.comports())
    ]


def _not_opened(port: str, baud: int, error: Exception) -> LayertapError:
    number = getattr(error, "errno", None)
    if number == errno.ENOENT:
        return _absent(port)
    if number in (errno.EACCES, errno.EPERM):
        return _denied(port)
    if number in (errno.EBUSY, errno.EAGAIN):
        return _busy(port)
    if isinstance(error, ValueError | OverflowError) and "://" not in port:
        return SourceError(
            f"{port} cannot run at {baud} baud: {error}", hint=f"usual rates are {USUAL}"
        )
    return SourceError(
        f"{port} cannot be opened: {error}", hint="is it a serial port? " + _there_are()
    )


def _absent(port: str) -> SourceError:
    if port.startswith("/dev/"):
        return SourceError(f"there is no port {port}", hint=f"plug the board in; {_there_are()}")
    return SourceError(
        f"there is no port and no file {port}",
        hint=f"check the path; of serial ports {_there_are()}",
    )


def _there_are() -> str:
    found = ports()
    return f"there is {', '.join(found)}" if found else "this machine has no serial port at present"


def _denied(port: str) -> SourceError:
    """Says which group the user must be in, by the device itself."""
    mode = Path(port).stat().st_mode
    try:
        group = Path(port).group()
    except KeyError:
        group = str(Path(port).stat().st_gid)
    if not mode & 0o060 or group == "root":
        return SourceError(
            f"{port} may not be opened by you",
            hint=f"its permissions are {mode & 0o777:o}: a udev rule can give them to a group",
        )
    mine = {_name(number) for number in os.getgroups()}
    hint = f"you must be in the group {group}: sudo usermod -aG {group} $USER, then log in again"
    if group in mine:
        hint = f"its permissions are {mode & 0o777:o}, though you are in the group {group}"
    return SourceError(f"{port} may not be opened by you", hint=hint)


def _name(group: int) -> str:
    try:
        return grp.getgrgid(group).gr_name
    except KeyError:
        return str(group)


def _busy(port: str) -> SourceError:
    holders = ", ".join(sorted(_holders(port), key=lambda name: name == _OURS))
    return SourceError(
        f"{port} is in use{f' by {holders}' if holders else ' by another program'}",
        hint="close the serial monitor or whatever else has it open",
    )


def _holders(port: str) -> Iterator[str]:
    """Programs that have the port open, as far as this user may see (Linux)."""
    real = os.path.realpath(port)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            opened = any(str(fd.readlink()) == real for fd in (folder / "fd").iterdir())
            command = (folder / "comm").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:  # another user's, or it has just ended
            continue
        if opened:
            mine = folder.name == str(os.getpid())
            yield _OURS if mine else f"{command} (process {folder.name})"


__all__ = ["SerialPort", "ports"]
