"""TensorFlow Lite Micro on a real microcontroller, or an emulated one, over a wire."""

from __future__ import annotations

from pathlib import Path

from layertap.core.select import Selector
from layertap.runtimes.device.forms import Texts
from layertap.runtimes.device.listening import Listener, check_sent
from layertap.runtimes.device.session import (
    DEFAULT_BAUD,
    DEFAULT_RETRIES,
    DEFAULT_TIMEOUT,
    DeviceModel,
    DeviceSession,
    check_numbers,
)
from layertap.runtimes.device.transport import open_transport


def open(
    source: str | Path | bytes,
    *,
    port: str | Path | None = None,
    baud: int = DEFAULT_BAUD,
    timeout: float = DEFAULT_TIMEOUT,
    retries: int = DEFAULT_RETRIES,
    slices: Texts = None,
    reduce: Texts = None,
    keep_state: bool = False,
) -> DeviceSession:
    """Open a .tflite file, or its bytes, on the board whose firmware has layertap in it.

    port: ``"/dev/ttyACM0"``, ``"COM3"`` or a URL of pySerial; ``"tcp://localhost:9090"``, also for
    the RTT servers of OpenOCD, J-Link and probe-rs; ``"exec:COMMAND"``, an emulator or a program
    whose input and output are the wire; a Unix socket. None lists tap points without a board.
    baud: of a serial port. timeout: seconds that the board may be silent. retries: how often an
    inference that did not come whole is run again.
    slices: ``"0:100"`` for these elements, in C order, of all taps that have so many, or such texts
    by selector.
    reduce: ``"summary"`` for smallest, largest and mean, ``"histogram 64 -1 1"`` for counts in 64
    bins, in real numbers, or such texts by selector. Both change the taps' shapes and dtypes.
    keep_state: variables keep their values from one execution to the next, from fresh ones when a
    capture starts; an inference that is lost cannot be run again then.

    Raises SourceError for a port that cannot be opened and a board that runs another model,
    CorruptModel, PlanError and SelectionError for the options, RuntimeFailure for a silent board,
    WireError for one that does not speak the wire format.
    """
    return DeviceSession(
        source,
        port=port,
        baud=baud,
        timeout=timeout,
        retries=retries,
        slices=slices,
        reduce=reduce,
        keep_state=keep_state,
    )


def listener(
    port: str | Path,
    source: str | Path | bytes,
    taps: Selector = None,
    *,
    baud: int | None = None,
    every: int | None = None,
    slices: Texts = None,
    reduce: Texts = None,
    timeout: float | None = None,
) -> Listener:
    """A listener to what the board on ``port`` sends on its own; :func:`layertap.listen` has the
    meaning of the arguments."""
    rate = DEFAULT_BAUD if baud is None else baud
    patience = DEFAULT_TIMEOUT if timeout is None else timeout
    check_numbers(baud=rate, timeout=patience, every=1 if every is None else every)
    device = DeviceModel(source, slices, reduce)
    if taps is not None:
        check_sent(device.graph, taps)
    transport = open_transport(port, baud=rate, patience=patience)
    return Listener(device, transport, taps, every=every, patience=timeout)


__all__ = ["DeviceSession", "listener", "open"]
