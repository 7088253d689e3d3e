"""Which operators a model needs, and how they are registered in TensorFlow Lite Micro.

Source: tflite-micro, tensorflow/lite/micro/micro_mutable_op_resolver.h.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from layertap.errors import PlanError
from layertap.firmware.generate.identifiers import identifiers
from layertap.tflite.model import TfliteModel
from layertap.tflite.schema import OPERATORS

_BUILTIN = """
    ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL=BatchMatMul
    BATCH_TO_SPACE_ND BROADCAST_ARGS BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION CONV_2D COS
    CUMSUM=CumSum DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV DYNAMIC_UPDATE_SLICE ELU
    EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER
    GATHER_ND GREATER GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS
    LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN
    MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2=PadV2 PRELU QUANTIZE READ_VARIABLE
    REDUCE_ALL REDUCE_MAX REDUCE_MIN RELU RELU6 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR
    REVERSE_V2 ROUND RSQRT SELECT_V2 SHAPE SIN SLICE SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT
    SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH TRANSPOSE
    TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM=UnidirectionalSequenceLSTM UNPACK VAR_HANDLE WHILE
    ZEROS_LIKE
"""
"""Operators that MicroMutableOpResolver has, with the name of the method where it is not the
operator's own in camel case."""

_CUSTOM = """
    CIRCULAR_BUFFER=CircularBuffer TFLM_DECODE=Decode SignalDelay=Delay
    TFLite_Detection_PostProcess=DetectionPostprocess SignalEnergy=Energy
    SignalFftAutoScale=FftAutoScale SignalFilterBank=FilterBank SignalFilterBankLog=FilterBankLog
    SignalFilterBankSquareRoot=FilterBankSquareRoot
    SignalFilterBankSpectralSubtraction=FilterBankSpectralSubtraction SignalFramer=Framer
    SignalIrfft=Irfft SignalOverlapAdd=OverlapAdd SignalPCAN=PCAN SignalRfft=Rfft
    SignalStacker=Stacker SignalWindow=Window ethos-u=EthosU
"""
"""Custom operators that it has a method for."""


def _table() -> Iterator[tuple[str, str]]:
    for entry in _BUILTIN.split():
        name, _, method = entry.partition("=")
        # capitalize() leaves the D of 2D small.
        parts = (part.capitalize() if part[0].isalpha() else part for part in name.split("_"))
        yield name, f"Add{method or ''.join(parts)}"
    for entry in _CUSTOM.split():
        name, _, method = entry.partition("=")
        yield name, f"Add{method}"


METHODS = dict(_table())
"""The method of MicroMutableOpResolver that registers an operator, by the operator's name."""


@dataclass(frozen=True, slots=True)
class Registration:
    """``method`` registers the operator ``name``; without one (``""``) it is a custom operator that
    the user writes, and ``function`` is what hands out its registration."""

    name: str
    method: str
    function: str = ""


def registrations(model: TfliteModel) -> tuple[Registration, ...]:
    """What ``model`` needs, one of each operator, in the order of their names.

    Raises PlanError for built-in operators that TensorFlow Lite Micro has no kernel for.
    """
    used = {op.name: i for graph in model.subgraphs for i, op in enumerate(graph.operators)}
    lacking = sorted(name for name in used if name in OPERATORS and name not in METHODS)
    if lacking:
        names = ", ".join(lacking)
        raise PlanError(
            f"TensorFlow Lite Micro has no kernel for {names}",
            hint="convert the model without it, or keep what lies before it: "
            "layertap export MODEL --until TAP -o PART.tflite",
        )
    own = [name for name in sorted(used) if name not in METHODS]
    functions = dict(zip(own, identifiers(own), strict=True))
    return tuple(_registration(name, functions) for name in sorted(used))


def _registration(name: str, functions: Mapping[str, str]) -> Registration:
    if name in METHODS:
        return Registration(name, METHODS[name])
    return Registration(name, "", f"layertap_register_{functions[name]}")


__all__ = ["METHODS", "Registration", "registrations"]
