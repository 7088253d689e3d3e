"""What the reference kernels of the audio front end ask for.

Source: tflite-micro 90b983c, signal/micro/kernels/ and signal/src/; each entry names its file.
Options are entries of a FlexBuffers map in the order of their names.
"""

from __future__ import annotations

from collections.abc import Callable

from layertap.arena.node import Node

Step = Callable[[Node], None]

_NUMBERS = {0: "float", 2: "int32", 7: "int16"}
"""The types of the Fourier transforms, by their number in the schema."""

_WIDTHS = {"float": 4, "int32": 4, "int16": 2}


def _keep(node: Node) -> None:
    node.keep(node.op_data())


def _nothing(node: Node) -> None:
    pass


def _look(positions: str) -> Step:
    def look(node: Node) -> None:
        node.look(positions)

    return look


def _fft_type(node: Node) -> str:
    number = node.operator.settings.entry("T")
    if number not in _NUMBERS:
        raise node.refuse(f"is for elements of type {number}")
    return _NUMBERS[number]


def _fft_state(node: Node, kind: str) -> int:
    """kiss_fftr_alloc of kissfft v130 (tools/kiss_fftr.c, kiss_fft.c)."""
    length = node.operator.settings.element(1)
    if length < 2 or length % 2:
        raise node.refuse(f"transforms {length} values")
    half = length // 2
    state, real, number = (
        node.struct(f"kiss_fft_{kind}.{part}")
        for part in ("kiss_fft_state", "kiss_fftr_state", "kiss_fft_cpx")
    )
    return real + state + number * (half - 1) + number * (half * 3 // 2)


def _rfft_init(node: Node) -> None:
    """rfft.cc, rfft_int16.cc, rfft_int32.cc, rfft_float.cc"""
    node.keep(node.op_data())
    node.keep(_fft_state(node, _fft_type(node)))


def _rfft(node: Node) -> None:
    node.look("i0 o0")
    node.scratch(node.operator.settings.element(1) * _WIDTHS[_fft_type(node)])


def _irfft_init(node: Node) -> None:
    """irfft.cc, irfft_int16.cc, irfft_int32.cc, irfft_float.cc"""
    kind = _fft_type(node)
    node.keep(node.op_data())
    more = node.struct("IrfftFloatState") if kind == "float" else 0
    node.keep(_fft_state(node, kind) + more)


def _ring(node: Node, capacity: int) -> int:
    """circular_buffer.cc, CircularBufferGetNeededMemory"""
    if capacity < 1:
        raise node.refuse(f"buffers {capacity} values")
    return node.struct("CircularBuffer") + 2 * 2 * capacity


def _rings(node: Node, capacity: int) -> None:
    """One buffer for each index of the outer axes, after two lists of pointers to them."""
    inner = node.input(0).shape[-1] if node.input(0).shape else 0
    if inner < 1:
        raise node.refuse("gets a tensor without elements")
    count = node.input(0).elements // inner
    node.keep(node.target.pointer * count)
    node.keep(node.target.pointer * count)
    node.keep(_ring(node, capacity), count)


def _delay(node: Node) -> None:
    """delay.cc"""
    node.look("i0 o0")
    frame = node.input(0).shape[-1] if node.input(0).shape else 0
    _rings(node, frame + node.operator.settings.element(0))


def _framer(node: Node) -> None:
    """framer.cc: the frame is rounded up to whole steps."""
    node.look("i0 o0 o1")
    size, step = (node.operator.settings.element(i) for i in (0, 1))
    if step < 1:
        raise node.refuse(f"advances by {step}")
    _rings(node, (size + step - 1) // step * step)


def _overlap_add(node: Node) -> None:
    """overlap_add.cc"""
    node.look("i0 o0")
    shape = node.input(0).shape
    if len(shape) < 2 or shape[-1] < 1 or shape[-2] < 1:
        raise node.refuse(f"gets a tensor of shape {list(shape)}")
    count = node.input(0).elements // (shape[-1] * shape[-2])
    node.keep(node.target.pointer * count)
    node.keep(shape[-1] * _WIDTHS[_fft_type(node)], count)


def _stacker_init(node: Node) -> None:
    """stacker.cc"""
    node.keep(node.op_data())
    channels, left, right = (node.operator.settings.element(i) for i in range(3))
    node.keep(_ring(node, channels * (left + right + 1)))


def _filter_bank_init(node: Node) -> None:
    """filter_bank.cc"""
    node.keep(node.op_data())
    node.keep(8 * (node.operator.settings.element(0) + 1))


def _subtraction_init(node: Node) -> None:
    """filter_bank_spectral_subtraction.cc"""
    node.keep(node.op_data())
    node.keep(4 * node.operator.settings.element(4))


SIGNAL: dict[str, tuple[Step, Step]] = {
    "SignalDelay": (_keep, _delay),
    "SignalEnergy": (_keep, _look("i0 o0")),
    "SignalFftAutoScale": (_nothing, _look("i0 o0 o1")),
    "SignalFilterBank": (_filter_bank_init, _look("i0 i1 i2 i3 i4 i5 o0")),
    "SignalFilterBankLog": (_keep, _look("i0 o0")),
    "SignalFilterBankSpectralSubtraction": (_subtraction_init, _look("i0 o0 o1")),
    "SignalFilterBankSquareRoot": (_nothing, _look("i0 i1 o0")),
    "SignalFramer": (_keep, _framer),
    "SignalIrfft": (_irfft_init, _look("i0 o0")),
    "SignalOverlapAdd": (_keep, _overlap_add),
    "SignalPCAN": (_keep, _look("i0 i1 i2 o0")),
    "SignalRfft": (_rfft_init, _rfft),
    "SignalStacker": (_stacker_init, _look("i0 o0 o1")),
    "SignalWindow": (_keep, _look("i0 i1 o0")),
}
"""What each operator asks for at first, and when it prepares."""

__all__ = ["SIGNAL"]
