"""What the reference kernels ask for while a model is prepared, operator by operator.

Source: tflite-micro 90b983c, tensorflow/lite/micro/kernels/; each entry names its file. The order
of what a kernel asks for is that of the source, temporary descriptions of tensors included: they
decide how small an arena may be.
"""

from __future__ import annotations

from collections.abc import Callable

from layertap.arena.node import Cell, Node
from layertap.arena.signal_kernels import SIGNAL

_INT = 4
"""sizeof(int) and sizeof(float) on every target."""

_LUT = 2 * 513
"""Bytes of a table with which int16 kernels replace a function."""

_LOOKS = {
    # add_common.cc, sub_common.cc, mul_common.cc, div.cc, squared_difference.cc, floor_div.cc,
    # floor_mod.cc
    "i0 i1 o0": "ADD SUB MUL DIV SQUARED_DIFFERENCE FLOOR_DIV FLOOR_MOD "
    # prelu_common.cc, batch_to_space_nd.cc, broadcast_args.cc, broadcast_to.cc, expand_dims.cc,
    # fill.cc, resize_bilinear.cc, resize_nearest_neighbor.cc, reverse.cc, transpose.h
    "PRELU BROADCAST_ARGS BROADCAST_TO EXPAND_DIMS FILL RESIZE_BILINEAR "
    "RESIZE_NEAREST_NEIGHBOR REVERSE_V2 TRANSPOSE",
    # elementwise.cc, activations_common.cc, dequantize_common.cc, quantize_common.cc, elu.cc,
    # exp.cc, hard_swish_common.cc, l2norm.cc, leaky_relu_common.cc, logistic_common.cc,
    # pooling_common.cc, cast.cc, ceil.cc, round.cc, zeros_like.cc, squeeze.cc,
    # circular_buffer_common.cc, batch_to_space_nd.cc, space_to_batch_nd.cc
    "i0 o0": "ABS RSQRT SIN COS LOG SQRT SQUARE LOGICAL_NOT RELU DEQUANTIZE QUANTIZE ELU EXP "
    "HARD_SWISH L2_NORMALIZATION LEAKY_RELU LOGISTIC AVERAGE_POOL_2D MAX_POOL_2D CAST CEIL ROUND "
    "ZEROS_LIKE SQUEEZE CIRCULAR_BUFFER BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND",
    # activations_common.cc, if.cc, split.cc, read_variable.cc
    "i0": "RELU6 IF SPLIT READ_VARIABLE",
    # comparisons.cc
    "i0 i1": "EQUAL NOT_EQUAL GREATER GREATER_EQUAL LESS LESS_EQUAL",
    # pad_common.cc, select.cc, slice.cc, dynamic_update_slice.cc
    "i0 i1 i2 o0": "PAD PADV2 SELECT_V2 SLICE DYNAMIC_UPDATE_SLICE",
    # strided_slice_common.cc
    "i0 i1 i2 i3 o0": "STRIDED_SLICE",
    # tanh.cc
    "i0 i0 o0": "TANH",
    # split_v.cc
    "i2": "SPLIT_V",
    # arg_min_max.cc, floor.cc, logical.cc, maximum_minimum.cc, neg.cc, pack.cc, shape.cc,
    # unpack.cc, call_once.cc, while.cc
    "": "ARG_MAX ARG_MIN FLOOR LOGICAL_AND LOGICAL_OR MAXIMUM MINIMUM NEG PACK SHAPE UNPACK "
    "CALL_ONCE WHILE",
}
"""Which tensors are described, for operators whose kernels ask for nothing else."""


def known(name: str, kernels: str) -> bool:
    """Whether the table has an operator of this name, for this library of kernels."""
    return name in PREPARE and name not in VENDORS.get(kernels, frozenset())


def init(node: Node) -> None:
    """The structure that a kernel keeps, asked for before any kernel prepares."""
    if node.name in _INIT:
        _INIT[node.name](node)
    elif node.name in node.target.op_data and node.name not in _LATE:
        node.keep(node.op_data())


def prepare(node: Node) -> None:
    """What a kernel does once the structures of all operators are there."""
    PREPARE[node.name](node)


def _look(positions: str) -> Callable[[Node], None]:
    def prepare_by_looking(node: Node) -> None:
        node.look(positions)

    return prepare_by_looking


def _convolution(node: Node) -> None:
    """conv_common.cc, depthwise_conv_common.cc: ``input`` and ``filter`` are described twice."""
    node.look("o0 i0 i1")
    _check_weights(node, node.input(0), node.input(1))
    axis = 0 if node.name == "CONV_2D" else 3
    _per_channel(node, _size(node, node.input(1), axis))
    if node.name == "DEPTHWISE_CONV_2D":
        _unpacked(node, node.input(1))
    node.look("i0 i1 i2 o0")
    if node.name == "CONV_2D":
        _unpacked(node, node.input(1))


_WEIGHTS = {"float32": ("float32",), "int8": ("int8", "int4"), "int16": ("int8",)}
"""Element types of weights that the kernels of convolutions and dense layers take, by that of the
values."""


def _check_weights(node: Node, value: Cell, weights: Cell) -> None:
    if weights.dtype not in _WEIGHTS.get(value.dtype, ()):
        node.refusals.append(f"{weights.dtype} weights for {value.dtype} values")


def _per_channel(node: Node, channels: int) -> None:
    """Multiplier and shift of each channel."""
    node.keep(_INT * channels)
    node.keep(_INT * channels)


def _unpacked(node: Node, weights: Cell) -> None:
    if weights.dtype == "int4":
        node.scratch(weights.elements)


def _transposed_convolution(node: Node) -> None:
    """transpose_conv.cc"""
    node.look("o0 i2 i1")
    _check_weights(node, node.input(2), node.input(1))
    _per_channel(node, _size(node, node.input(1), 0))
    dtype = node.input(2).dtype
    if dtype in ("int8", "int16"):
        node.scratch(node.output().elements * (4 if dtype == "int8" else 8))
    if dtype != "float32":
        node.look("i2 i1 i3 o0")
        bias = node.optional(3)
        if dtype == "int16" and bias is not None and bias.dtype == "int16":
            node.scratch(8 * bias.elements)


def _fully_connected(node: Node) -> None:
    """fully_connected.cc, fully_connected_common.cc"""
    node.look("i0 i1 i2 o0")
    _check_weights(node, node.input(0), node.input(1))
    _unpacked(node, node.input(1))
    channels = node.input(1).tensor.channels
    if node.input(0).dtype != "float32" and channels > 1:
        _per_channel(node, channels)


def _softmax(node: Node) -> None:
    """softmax_common.cc"""
    node.look("i0 o0")
    if node.input(0).dtype == "int16":
        node.keep(_LUT)
        node.keep(_LUT)


def _log_softmax(node: Node) -> None:
    """log_softmax.cc"""
    node.look("i0 o0")
    if node.input(0).dtype == "int8":
        node.keep(node.op_data())


def _cumulated_sum(node: Node) -> None:
    """cumsum.cc"""
    node.look("i0 i1 o0")
    if node.output().dtype == "int8":
        node.keep(node.op_data())


def _sum_of_many(node: Node) -> None:
    """add_n.cc"""
    node.look("i0 o0")
    for position in range(1, len(node.inputs)):
        node.look(f"i{position}")
    if node.output().dtype == "int8":
        node.keep(node.op_data())
    if node.output().dtype in ("int8", "float32"):
        node.scratch(node.target.pointer * len(node.inputs))


def _joined(node: Node) -> None:
    """concatenation.cc"""
    node.look("i0 o0")
    for position in range(len(node.inputs)):
        node.look(f"i{position}")


def _mean_or_sum(node: Node) -> None:
    """reduce_common.cc, PrepareMeanOrSumHelper"""
    node.look("i0 o0 i1")
    if node.input(0).dtype in ("int8", "int16"):
        node.scratch(4 * node.output().elements)
    _reduction(node)
    _simple_reduction(node)


def _extreme_or_all(node: Node) -> None:
    """reduce_common.cc, PrepareMinMaxHelper and PrepareAllHelper"""
    if node.name == "REDUCE_ALL":
        node.look("i0 o0 i1")
        _simple_reduction(node)
    else:
        _simple_reduction(node)
        node.look("i0 o0 i1")
    _reduction(node)


def _simple_reduction(node: Node) -> None:
    node.look("i0 i1 o0" if node.input(0).dtype == "int8" else "i0 i1")


def _reduction(node: Node) -> None:
    node.scratch(_INT * node.input(0).rank)
    node.scratch(_INT * node.input(1).elements)


def _mirror_pad(node: Node) -> None:
    """mirror_pad.cc"""
    node.look("i0 i1 o0")
    node.scratch(_INT * node.input(0).rank)
    node.scratch(_INT * node.input(0).rank)


def _svdf(node: Node) -> None:
    """svdf_common.cc"""
    node.look("i0 i1 i2 i3 i4 o0")
    batch = _size(node, node.input(0), 0)
    filters = _size(node, node.input(1), 0)
    rank = node.operator.settings.number(0)
    if rank < 1 or filters % rank:
        raise node.refuse(f"has rank {rank} for {filters} filters")
    node.scratch(4 * batch * filters)
    if node.input(0).dtype == "int8":
        node.scratch(4 * batch * (filters // rank))


def _lstm(node: Node) -> None:
    """unidirectional_sequence_lstm.cc, lstm_eval.cc, lstm_eval_common.cc (CreateLstmSizeInfo)"""
    for position in range(24):
        node.look(f"i{position}")
    node.look("o0")
    time_major = bool(node.operator.settings.number(3, 1))
    hidden, cell = node.input(18), node.input(19)
    batch = _size(node, node.input(0), 1 if time_major else 0)
    if cell.dtype not in ("float32", "int16"):
        raise node.refuse(f"has a cell state of {cell.dtype}")
    for _ in range(4):
        node.scratch(batch * _size(node, hidden, 1) * (4 if cell.dtype == "float32" else 2))


def _batch_matmul(node: Node) -> None:
    """batch_matmul.cc, batch_matmul_common.cc"""
    node.look("i0 i1 o0")
    left, right, output = node.input(0), node.input(1), node.output()
    across, upright = (bool(node.operator.settings.number(field, 1)) for field in (0, 1))
    if left.rank < 2 or right.rank < 2:
        raise node.refuse(f"multiplies {list(left.shape)} with {list(right.shape)}")
    if left.dtype in ("int8", "int16"):
        node.keep(node.op_data("BATCH_MATMUL.quantization"))
    for cell, turned in ((left, across), (right, not upright)):
        if turned:
            node.keep(node.struct("TfLiteEvalTensor"))
            node.keep(4 + _INT * cell.rank)
            node.keep(cell.bytes)
    rows = left.shape[-1 if across else -2]
    columns = right.shape[-2 if upright else -1]
    rank = max(left.rank, right.rank)
    if output.rank < rank:
        raise node.refuse(f"has a result of shape {list(output.shape)}")
    batches = _broadcast(left.shape[:-2], right.shape[:-2])
    node.own_shape(output, (*batches, rows, columns))


def _broadcast(left: tuple[int, ...], right: tuple[int, ...]) -> list[int]:
    rank = max(len(left), len(right))
    pairs = zip((1,) * (rank - len(left)) + left, (1,) * (rank - len(right)) + right, strict=True)
    return [b if a == 1 else a for a, b in pairs]


def _reshape(node: Node) -> None:
    """reshape_common.cc"""
    node.look("i0 o0")
    output = node.output()
    if len(node.inputs) == 1 and output.shape == (0,):
        # The interpreter overwrites the rank in the model itself, which thus must be in RAM.
        output.shape = ()
    open_ends = [axis for axis, size in enumerate(output.shape) if size == -1]
    if not open_ends:
        return
    others = 1
    for axis, size in enumerate(output.shape):
        others *= 1 if axis == open_ends[0] else size
    elements = node.input(0).elements
    if len(open_ends) > 1 or others <= 0 or elements % others:
        raise node.refuse(f"makes {list(output.shape)} of {elements:,} elements")
    shape = list(output.shape)
    shape[open_ends[0]] = elements // others
    node.own_shape(output, shape)


def _depth_to_space(node: Node) -> None:
    """depth_to_space.cc, space_to_depth.cc"""
    node.look("i0 o0")
    block = node.operator.settings.number(0)
    if block < 1 or node.input(0).rank != 4:
        raise node.refuse(f"has blocks of {block}")
    batch, height, width, depth = node.input(0).shape
    if node.name == "DEPTH_TO_SPACE":
        shape = (batch, height * block, width * block, depth // block // block)
    else:
        shape = (batch, height // block, width // block, depth * block * block)
    node.own_shape(node.output(), shape)


def _l2_pool(node: Node) -> None:
    """l2_pool_2d.cc; the shape is worked out anew, whatever the file says. Padding 0 is SAME."""
    node.look("o0 i0")
    source, output = node.input(0), node.output()
    if source.rank != 4 or output.rank != 4:
        raise node.refuse("takes and gives four dimensions")
    same = node.operator.settings.number(0, 1) == 0
    sizes = []
    for axis, stride_at, window_at in ((1, 2, 4), (2, 1, 3)):
        stride = node.operator.settings.number(stride_at)
        window = 1 if same else node.operator.settings.number(window_at)
        sizes.append((source.shape[axis] + stride - window) // stride if stride else 0)
    node.own_shape(output, (source.shape[0], *sizes, source.shape[3]))


def _gather(node: Node) -> None:
    """gather.cc"""
    node.look("i0 i1 o0")
    source, positions = node.input(0), node.input(1)
    axis, dims = node.operator.settings.number(0), node.operator.settings.number(1)
    axis += source.rank if axis < 0 else 0
    dims += positions.rank if dims < 0 else 0
    if not 0 <= dims <= axis < source.rank or dims > positions.rank:
        raise node.refuse(f"gathers along axis {axis} with {dims} batch dimensions")
    shape = (*source.shape[:axis], *positions.shape[dims:], *source.shape[axis + 1 :])
    node.own_shape(node.output(), shape)


def _gather_nd(node: Node) -> None:
    """gather_nd.cc"""
    node.look("i0 i1 o0")
    source, indices = node.input(0), node.input(1)
    depth = indices.shape[-1] if indices.shape else -1
    if not 0 <= depth <= source.rank:
        raise node.refuse(f"has indices of shape {list(indices.shape)}")
    node.own_shape(node.output(), (*indices.shape[:-1], *source.shape[depth:]))


def _embedding_lookup(node: Node) -> None:
    """embedding_lookup.cc"""
    node.look("i0 i1 o0")
    lookup, value = node.input(0), node.input(1)
    if lookup.rank != 1 or value.rank < 2 or node.output().rank < value.rank:
        raise node.refuse(f"looks {list(lookup.shape)} up in {list(value.shape)}")
    rest = node.output().shape[value.rank :]
    node.own_shape(node.output(), (lookup.shape[0], *value.shape[1:], *rest))
    node.keep(node.op_data())


def _detection(node: Node) -> None:
    """detection_postprocess.cc"""
    node.look("i0 i1 i2")
    boxes = _size(node, node.input(0), 1)
    scores = node.input(1)
    most, classes = (node.operator.settings.entry(k) for k in ("max_detections", "num_classes"))
    node.scratch(boxes)
    node.scratch(4 * boxes * 4)
    node.scratch(4 * _size(node, scores, 1) * _size(node, scores, 2))
    for count in (1, 1, most, most, 1, most, max(classes, most), min(boxes, most)):
        node.scratch(4 * boxes * count)


def _variable_handle(node: Node) -> None:
    """var_handle.cc: the output is the number of the variable, kept with the operator."""
    node.output().placed = True
    settings = node.operator.settings
    node.names[node.output().tensor.index] = f"{settings.text(0)}/{settings.text(1)}"


def _assign_variable(node: Node) -> None:
    """assign_variable.cc, micro_resource_variable.cc: memory comes with the first value, unless
    the handle is an argument of the subgraph and thus not known yet."""
    node.look("i1")
    handle = node.input(0)
    if not handle.placed:
        return
    name = node.names.get(handle.tensor.index, "")
    if name not in node.allocated:
        node.allocated.add(name)
        node.keep(node.input(1).bytes)


def _decode(node: Node) -> None:
    """decode.cc, decode_state.cc, decode_state_prune.cc"""
    node.keep(node.target.pointer * len(node.outputs))
    for number, output in enumerate(node.outputs):
        node.look(f"i{2 * number} i{2 * number + 1} o{number}")
        scheme = node.content(node.input(2 * number + 1))[:1]
        if scheme not in _SCHEMES:
            raise node.refuse(f"decodes by a scheme {list(scheme)} that nobody knows")
        node.keep(node.struct(_SCHEMES[scheme]))
        quantization = output.tensor.quantization if output and scheme == b"\2" else None
        if quantization and len(quantization.scales) > 1 and any(quantization.zero_points):
            node.keep(len(quantization.scales))


_SCHEMES = {b"\0": "DecodeStateLut", b"\1": "DecodeStateHuffman", b"\2": "DecodeStatePrune"}


def _size(node: Node, cell: Cell, axis: int) -> int:
    if axis >= cell.rank:
        raise node.refuse(f"gets a tensor of shape {list(cell.shape)}, which lacks axis {axis}")
    return cell.shape[axis]


VENDORS = {
    library: frozenset(names.split())
    for library, names in {
        "cmsis_nn": "ADD BATCH_MATMUL CONV_2D DEPTHWISE_CONV_2D FULLY_CONNECTED MAXIMUM MINIMUM "
        "MUL PAD PADV2 AVERAGE_POOL_2D MAX_POOL_2D SOFTMAX SVDF TRANSPOSE TRANSPOSE_CONV "
        "UNIDIRECTIONAL_SEQUENCE_LSTM",
        "esp_nn": "ADD CONV_2D DEPTHWISE_CONV_2D FULLY_CONNECTED MUL AVERAGE_POOL_2D MAX_POOL_2D "
        "SOFTMAX",
        "xtensa": "ADD CONV_2D TFLM_DECODE DEPTHWISE_CONV_2D DEQUANTIZE FULLY_CONNECTED LEAKY_RELU "
        "LOGISTIC PAD PADV2 AVERAGE_POOL_2D MAX_POOL_2D QUANTIZE MEAN SUM REDUCE_MAX REDUCE_MIN "
        "REDUCE_ALL RESHAPE SOFTMAX STRIDED_SLICE SUB SVDF TRANSPOSE_CONV SignalFftAutoScale "
        "UNIDIRECTIONAL_SEQUENCE_LSTM SignalFilterBankSquareRoot SignalRfft",
        "arc_mli": "ADD CONV_2D DEPTHWISE_CONV_2D FULLY_CONNECTED AVERAGE_POOL_2D MAX_POOL_2D",
        "ceva": "CONV_2D DEPTHWISE_CONV_2D FULLY_CONNECTED LOGISTIC QUANTIZE SOFTMAX",
        "hexagon": "SignalRfft SignalFilterBankSquareRoot",
    }.items()
}
"""Operators for which a library brings its own kernels. Source: the folders of the libraries in
tensorflow/lite/micro/kernels/ and signal/micro/kernels/ of tflite-micro 90b983c; esp_nn: the folder
of that name in github.com/espressif/esp-tflite-micro."""

_LATE = frozenset({"ADD_N", "CUMSUM", "LOG_SOFTMAX", "EMBEDDING_LOOKUP"})
"""Operators that ask for their structure when they prepare, if at all."""

_INIT: dict[str, Callable[[Node], None]] = {name: pair[0] for name, pair in SIGNAL.items()}

PREPARE: dict[str, Callable[[Node], None]] = {
    **{name: _look(positions) for positions, group in _LOOKS.items() for name in group.split()},
    **{name: pair[1] for name, pair in SIGNAL.items()},
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _convolution,
    "TRANSPOSE_CONV": _transposed_convolution,
    "FULLY_CONNECTED": _fully_connected,
    "SOFTMAX": _softmax,
    "LOG_SOFTMAX": _log_softmax,
    "CUMSUM": _cumulated_sum,
    "ADD_N": _sum_of_many,
    "CONCATENATION": _joined,
    "MEAN": _mean_or_sum,
    "SUM": _mean_or_sum,
    "REDUCE_MAX": _extreme_or_all,
    "REDUCE_MIN": _extreme_or_all,
    "REDUCE_ALL": _extreme_or_all,
    "MIRROR_PAD": _mirror_pad,
    "SVDF": _svdf,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _lstm,
    "BATCH_MATMUL": _batch_matmul,
    "RESHAPE": _reshape,
    "DEPTH_TO_SPACE": _depth_to_space,
    "SPACE_TO_DEPTH": _depth_to_space,
    "L2_POOL_2D": _l2_pool,
    "GATHER": _gather,
    "GATHER_ND": _gather_nd,
    "EMBEDDING_LOOKUP": _embedding_lookup,
    "TFLite_Detection_PostProcess": _detection,
    "VAR_HANDLE": _variable_handle,
    "ASSIGN_VARIABLE": _assign_variable,
    "TFLM_DECODE": _decode,
}
"""What each operator does when it prepares; the table of what is known."""

__all__ = ["PREPARE", "VENDORS", "init", "known", "prepare"]
