"""SavedModels, frozen graphs, meta graphs with checkpoints."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf import text_format  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from layertap.core.messages import brief
from layertap.errors import CorruptModel, SourceError, UnknownSource
from layertap.runtimes.tensorflow.graphs import Interface, open_graph
from layertap.runtimes.tensorflow.opened import Opened
from layertap.runtimes.tensorflow.variables import Restored, Unknown, Variable, declared, stored
from layertap.runtimes.tfgraph.scope import Node, flatten

SAVED = ("saved_model.pb", "saved_model.pbtxt")
_INIT = "__saved_model_init_op"
_OF_ITS_OWN = (_INIT, "__saved_model_train_op")
_PICKLES = tuple(b"\x80" + bytes([protocol]) for protocol in range(2, 6))


def open_path(
    path: Path, signature: str | None, checkpoint: str | Path | None, given: Interface
) -> Opened:
    """Raises SourceError, UnknownSource or CorruptModel."""
    if path.name in SAVED:
        path = path.parent
    if path.is_dir():
        return _saved_model(path, signature, checkpoint, given)
    if signature is not None:
        raise SourceError(
            f"{str(path)!r} has no signatures", hint="only SavedModel folders have signatures"
        )
    facts = {"model": {"sha256": _sha256([path]), "path": str(path)}}
    if path.suffix.lower() == ".meta":
        prefix = str(checkpoint or path.with_suffix(""))
        meta = _parsed(path, meta_graph_pb2.MetaGraphDef(), lambda m: bool(m.graph_def.node))
        return open_graph(meta.graph_def, _started(meta, given), _variables(meta, prefix), facts)
    graph = _parsed(path, graph_pb2.GraphDef(), lambda g: bool(g.node))
    if checkpoint is not None:
        meta = meta_graph_pb2.MetaGraphDef(graph_def=graph)
        return open_graph(graph, given, _variables(meta, str(checkpoint)), facts)
    return open_graph(graph, given, _valueless, facts)


def _valueless(node: Node) -> Variable:
    return Unknown(*declared(node), "the file holds no values of variables; give a checkpoint")


def _saved_model(
    path: Path, signature: str | None, checkpoint: str | Path | None, given: Interface
) -> Opened:
    file = next((path / name for name in SAVED if (path / name).is_file()), None)
    if file is None:
        raise UnknownSource(
            f"{str(path)!r} is no SavedModel", hint="such a folder holds a file saved_model.pb"
        )
    saved = _parsed(file, saved_model_pb2.SavedModel(), lambda s: bool(s.meta_graphs))
    serving = (one for one in saved.meta_graphs if "serve" in one.meta_info_def.tags)
    meta = next(serving, saved.meta_graphs[0])
    prefix = path / "variables" / "variables"
    if checkpoint is None and _has_variables(meta) and not prefix.with_suffix(".index").is_file():
        raise CorruptModel(
            f"{str(path)!r} has variables, but their file variables/variables.index is missing",
            hint="copy the whole folder, with its folder 'variables'",
        )
    name = None if given.outputs is not None else _signature(meta, signature)
    values = sorted(prefix.parent.glob("variables.*"))
    facts = {"model": {"sha256": _sha256([file, *values]), "path": str(path)}, "signature": name}
    interface = _started(meta, given, path, name)
    return open_graph(meta.graph_def, interface, _variables(meta, str(checkpoint or prefix)), facts)


def _has_variables(meta: Any) -> bool:
    return any(node.op in ("VarHandleOp", "VariableV2") for node in meta.graph_def.node)


def _signature(meta: Any, wanted: str | None) -> str | None:
    """The signature asked for, or the usual one; None in a model without signatures."""
    names = [name for name in meta.signature_def if name not in _OF_ITS_OWN]
    there = ", ".join(sorted(names)) or "none"
    if wanted is None:
        if not names or "serving_default" in names:
            return "serving_default" if names else None
        if len(names) == 1:
            return str(names[0])
        raise SourceError(
            f"the model has {len(names)} signatures and none is the default",
            hint=f"name one with signature=NAME or SOURCE#NAME: {there}",
        )
    if wanted not in names:
        near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.4)
        raise SourceError(
            f"the model has no signature {wanted!r}",
            hint=f"did you mean {near[0]!r}? there is {there}" if near else f"there is {there}",
        )
    return wanted


def _started(
    meta: Any, given: Interface, path: Path | None = None, signature: str | None = None
) -> Interface:
    """What of a meta graph is wanted, with what fills its tables and where its assets are."""
    inputs, outputs = given.inputs, given.outputs
    if signature is not None:
        chosen = meta.signature_def[signature]
        inputs, outputs = _tensors(chosen.inputs), _tensors(chosen.outputs)
    starts = (
        [info.name for info in meta.signature_def[_INIT].outputs.values()]
        if (_INIT in meta.signature_def)
        else []
    )
    for collection in ("saved_model_main_op", "legacy_init_op", "table_initializer"):
        if collection in meta.collection_def and not starts:
            starts += meta.collection_def[collection].node_list.value
    texts = {}
    for asset in meta.asset_file_def:
        folder = (path or Path()) / "assets"
        texts[asset.tensor_info.name.partition(":")[0]] = str(folder / asset.filename)
    nodes = {node.name for node in meta.graph_def.node}
    named = [name.partition(":")[0] for name in starts]
    return Interface(inputs, outputs, tuple(n for n in named if n in nodes), texts)


def _tensors(infos: Mapping[str, Any]) -> dict[str, str]:
    """Names of tensors by key; those of a sparse or other composite value by part."""
    return {key: name for own in sorted(infos) for key, name in _parts(own, infos[own])}


def _parts(key: str, info: Any) -> Iterator[tuple[str, str]]:
    kind = info.WhichOneof("encoding")
    if kind == "coo_sparse":
        for part in ("values", "indices", "dense_shape"):
            yield f"{key}.{part}", getattr(info.coo_sparse, f"{part}_tensor_name")
    elif kind == "composite_tensor":
        for i, component in enumerate(info.composite_tensor.components):
            yield f"{key}.{i}", component.name
    else:
        yield key, info.name


def _variables(meta: Any, prefix: str) -> Callable[[Node], Variable]:
    """What finds variables in the checkpoint at ``prefix``. Raises CorruptModel for a damaged one;
    without any, variables have no values."""
    if not _has_variables(meta):
        return _valueless
    if not Path(f"{prefix}.index").is_file() and not Path(prefix).is_file():
        missing = f"there is no checkpoint {prefix!r} with its value"
        return lambda node: Unknown(*declared(node), missing)
    try:
        reader = tf.train.load_checkpoint(prefix)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise CorruptModel(
            f"TensorFlow cannot read the checkpoint {prefix!r}: {brief(error)}",
            hint="the file is damaged",
        ) from error
    if Path(f"{prefix}.index").is_file() and not _shards(prefix):
        raise CorruptModel(
            f"the data file of the checkpoint {prefix!r} is missing",
            hint="it lies beside the .index file and ends in .data-00000-of-00001",
        )
    return partial(stored, reader, _keys(meta))


def _shards(prefix: str) -> list[Path]:
    path = Path(prefix)
    return list(path.parent.glob(f"{path.name}.data-*"))


def _keys(meta: Any) -> dict[str, tuple[str, str]]:
    restore = meta.saver_def.restore_op_name.partition(":")[0]
    if restore not in {node.name for node in meta.graph_def.node}:
        return {}
    from layertap.runtimes.tensorflow.legacy import modernized

    return Restored(modernized(flatten(meta.graph_def, keep=[restore]))[0]).keys


def _parsed(path: Path, message: Any, whole: Callable[[Any], bool]) -> Any:
    """The file as a message of a type. Raises CorruptModel when it is none."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise SourceError(f"there is no file {str(path)!r}", hint="check the path") from error
    if data.startswith(_PICKLES):
        raise UnknownSource(
            f"{str(path)!r} is a Python pickle, not a TensorFlow graph",
            hint="pickles run code when they are read; save the model as a SavedModel instead",
        )
    kind = type(message).__name__
    try:
        if path.suffix.lower() == ".pbtxt":
            text_format.Parse(data.decode(), message)
        else:
            message.ParseFromString(data)
    except (DecodeError, text_format.ParseError, UnicodeDecodeError) as error:
        raise CorruptModel(
            f"{str(path)!r} is no {kind}: {brief(error)}", hint="the file is cut off or damaged"
        ) from error
    if not whole(message):
        raise CorruptModel(
            f"{str(path)!r} is no {kind}, or an empty one", hint="the file is cut off or damaged"
        )
    return message


def _sha256(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
