"""Files and folders, whole and damaged; what each error says."""

from __future__ import annotations

import gc
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
tf = pytest.importorskip("tensorflow")

from google.protobuf import text_format  # noqa: E402
from tensorflow.core.protobuf import saved_model_pb2  # noqa: E402

import layertap  # noqa: E402
from layertap.errors import (  # noqa: E402
    CorruptModel,
    FeedError,
    RunError,
    SourceError,
    UnknownSource,
    Untappable,
)
from layertap.runtimes.registry import find_runtime  # noqa: E402

v1 = tf.compat.v1
ROWS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
W = np.arange(8, dtype=np.float32).reshape(4, 2)


class Net(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(W, name="w")
        self.table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(["a", "b"], [1.0, 2.0]), -1.0
        )
        self.optimizer = tf.Module()
        self.momentum = tf.Variable(W, name="momentum")

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="row")])
    def double(self, row: Any) -> Any:
        return {"doubled": tf.matmul(row, self.w, name="product") * 2.0}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="word")])
    def look_up(self, word: Any) -> Any:
        return {"number": self.table.lookup(word)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model"
    net = Net()
    tf.saved_model.save(net, str(path), signatures={"double": net.double, "look_up": net.look_up})
    return path


@pytest.fixture
def damaged(saved: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    shutil.copytree(saved, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="module")
def frozen() -> Any:
    """x (?, 4) @ w, then ReLU as y, as a GraphDef."""
    graph = tf.Graph()
    with graph.as_default():
        x = v1.placeholder(tf.float32, (None, 4), name="x")
        tf.nn.relu(tf.matmul(x, tf.constant(W, name="w"), name="product"), name="y")
    return graph.as_graph_def()


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    def write(data: bytes, name: str = "graph.pb") -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write


def test_no_framework_is_needed_to_recognise_files_and_folders(saved: Path) -> None:
    assert find_runtime(saved).name == "tensorflow"
    assert find_runtime(f"{saved}#double").name == "tensorflow"
    assert find_runtime("graph.pb").name == "tensorflow"
    assert find_runtime("model.ckpt.meta").name == "tensorflow"
    with pytest.raises(UnknownSource) as caught:
        layertap.open(saved.parent)
    assert "saved_model.pb" in caught.value.hint


def test_a_signature_by_either_way(saved: Path) -> None:
    for source, options in ((f"{saved}#double", {}), (saved, {"signature": "double"})):
        with layertap.open(source, **options) as model:
            run = model.capture({"row": ROWS})
            assert list(run) == ["product", "mul", "Identity_1", "doubled"]
            np.testing.assert_allclose(run["product"].raw, ROWS @ W, rtol=1e-5)
            np.testing.assert_array_equal(model.read("w"), W)
            assert model.session.provenance["signature"] == "double"
            assert len(model.session.provenance["model"]["sha256"]) == 64


def test_signatures_that_are_not_there(saved: Path) -> None:
    with pytest.raises(SourceError, match="2 signatures") as caught:
        layertap.open(saved)
    assert "double, look_up" in caught.value.hint
    with pytest.raises(SourceError, match="no signature 'doubel'") as caught:
        layertap.open(f"{saved}#doubel")
    assert "did you mean 'double'?" in caught.value.hint


def test_a_table_is_filled_before_it_is_asked(saved: Path) -> None:
    with layertap.open(saved, signature="look_up") as model:
        run = model.capture({"word": np.array(["b", "x", "a"])}, "number")
        np.testing.assert_array_equal(run["number"].raw, [2, -1, 1])


def test_a_model_that_tensorflow_itself_refuses_to_load(damaged: Path) -> None:
    """As models with the slots of old optimizers are refused."""
    file = damaged / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    nodes = saved.meta_graphs[0].object_graph_def.nodes
    ids = {child.local_name: child.node_id for child in nodes[0].children}
    nodes[ids["optimizer"]].slot_variables.add(
        original_variable_node_id=ids["w"], slot_name="m", slot_variable_node_id=ids["momentum"]
    )
    file.write_bytes(saved.SerializeToString())
    with pytest.raises(AttributeError, match="add_slot"):
        tf.saved_model.load(str(damaged))
    with layertap.open(damaged, signature="double") as model:
        run = model.capture({"row": ROWS}, "doubled")
        np.testing.assert_allclose(run["doubled"].raw, ROWS @ W * 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("what", "name", "says"),
    [
        ("remove", "variables/variables.index", "variables.index is missing"),
        ("remove", "variables/variables.data-00000-of-00001", "data file"),
        ("cut", "variables/variables.index", "cannot read the checkpoint"),
        ("cut", "variables/variables.data-00000-of-00001", "does not give"),
        ("cut", "saved_model.pb", "no SavedModel"),
    ],
)
def test_damaged_models(damaged: Path, what: str, name: str, says: str) -> None:
    if what == "remove":
        (damaged / name).unlink()
    else:
        data = (damaged / name).read_bytes()
        (damaged / name).write_bytes(data[:20])
    with (
        pytest.raises(CorruptModel, match=says) as caught,
        layertap.open(damaged, signature="double") as model,
    ):
        model.read("w")
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_a_frozen_graph_as_bytes_and_as_text(frozen: Any, file: Callable[..., Path]) -> None:
    paths = [file(frozen.SerializeToString())]
    paths.append(file(text_format.MessageToString(frozen).encode(), "graph.pbtxt"))
    for path in paths:
        with layertap.open(path) as model:
            assert [tap.kind for tap in model.graph] == ["input", "weight", "activation", "output"]
            run = model.capture(ROWS)
            np.testing.assert_allclose(run["y"].raw, np.maximum(ROWS @ W, 0), rtol=1e-5)
            np.testing.assert_array_equal(model.read("w"), W)


def test_every_way_to_cut_a_file_off(frozen: Any, file: Callable[..., Path]) -> None:
    data = frozen.SerializeToString()
    whole = len(frozen.node)
    for end in range(0, len(data), 7):
        try:
            with layertap.open(file(data[:end])) as model:
                assert len(model.graph) < whole  # cut between two nodes, with nothing missing
        except CorruptModel as error:
            assert error.hint
            assert "\n" not in str(error)


def test_what_is_no_graph(frozen: Any, file: Callable[..., Path]) -> None:
    with pytest.raises(UnknownSource, match="pickle"):
        layertap.open(file(pickle.dumps({"weights": 1})))
    with pytest.raises(CorruptModel, match="no GraphDef"):
        layertap.open(file(b"node {", "graph.pbtxt"))
    changed = type(frozen).FromString(frozen.SerializeToString())
    changed.node[-1].op = "FromALibraryOfMine"
    with pytest.raises(SourceError, match="FromALibraryOfMine") as caught:
        layertap.open(file(changed.SerializeToString()))
    assert "load_op_library" in caught.value.hint
    changed.node[-1].op = "Relu"
    changed.node[1].attr["value"].tensor.tensor_content = b"abc"
    with (
        layertap.open(file(changed.SerializeToString())) as model,
        pytest.raises(CorruptModel, match="'w'"),
    ):
        model.read("w")


def test_constants_are_not_copied_to_list_them(
    file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = tf.Graph()
    with graph.as_default():
        x = v1.placeholder(tf.float32, (None, 512), name="x")
        tf.matmul(x, np.ones((512, 512), np.float32), name="y")
    path = file(graph.as_graph_def().SerializeToString())
    sizes: list[int] = []
    original = tf.graph_util.import_graph_def

    def counted(definition: Any, *args: Any, **kwargs: Any) -> Any:
        sizes.append(definition.ByteSize())
        return original(definition, *args, **kwargs)

    monkeypatch.setattr(tf.graph_util, "import_graph_def", counted)
    monkeypatch.setattr(tf, "make_ndarray", None)
    with layertap.open(path) as model:
        assert "512x512" in str(model.graph)
    assert sizes
    assert max(sizes) < 10_000


@pytest.fixture(scope="module", params=[False, True], ids=["reference", "resource"])
def checkpoint(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A meta graph with a checkpoint, and the value of y for ROWS."""
    prefix = tmp_path_factory.mktemp("checkpoint") / "model.ckpt"
    graph = tf.Graph()
    with graph.as_default():
        x = v1.placeholder(tf.float32, (None, 4), name="x")
        w = v1.get_variable(
            "w",
            (4, 2),
            use_resource=request.param,
            partitioner=v1.fixed_size_partitioner(2) if request.param else None,
        )
        y = tf.matmul(x, tf.convert_to_tensor(w), name="y")
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            v1.train.Saver().save(session, str(prefix))
            return prefix, session.run(y, {x: ROWS})


def test_a_meta_graph_takes_its_values_from_the_checkpoint(checkpoint: tuple[Path, Any]) -> None:
    prefix, expected = checkpoint
    with layertap.open(f"{prefix}.meta") as model:
        np.testing.assert_array_equal(model.capture(ROWS, "y")["y"].raw, expected)
        everything = model.capture(ROWS)
        assert not [name for name in everything if "save" in name or "Assign" in name]


def test_a_meta_graph_without_checkpoint_can_be_listed(
    checkpoint: tuple[Path, Any], tmp_path: Path
) -> None:
    prefix, expected = checkpoint
    alone = tmp_path / "alone.meta"
    shutil.copy(f"{prefix}.meta", alone)
    with layertap.open(alone) as model, pytest.raises(Untappable, match="no checkpoint"):
        model.capture(ROWS, "y")
    with layertap.open(alone, checkpoint=prefix) as model:
        np.testing.assert_array_equal(model.capture(ROWS, "y")["y"].raw, expected)


@pytest.mark.parametrize("resource", [False, True])
def test_a_saved_model_of_tensorflow_1(tmp_path: Path, resource: bool) -> None:
    graph = tf.Graph()
    with graph.as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, (None, 4), name="x")
        w = v1.get_variable("w", (4, 2), use_resource=resource)
        words = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a"], [7.0]), -1.0)
        y = tf.multiply(tf.matmul(x, w), words.lookup(tf.constant("a")), name="y")
        tables = v1.tables_initializer()
        session.run([v1.global_variables_initializer(), tables])
        expected = session.run(y, {x: ROWS})
        builder = v1.saved_model.Builder(str(tmp_path / "saved"))
        signature = v1.saved_model.predict_signature_def({"rows": x}, {"scores": y})
        builder.add_meta_graph_and_variables(
            session, ["serve"], {"serving_default": signature}, main_op=tables
        )
        builder.save()
    with layertap.open(tmp_path / "saved") as model:
        run = model.capture({"rows": ROWS}, "y")
        assert run["y"].tap.kind == "output"
        np.testing.assert_array_equal(run["y"].raw, expected)


@pytest.fixture
def graph() -> Any:
    """c = a + b, d = c * k (a scalar), e = d @ w, f = tanh(u), of unknown rank."""
    graph = tf.Graph()
    with graph.as_default():
        a, b = (v1.placeholder(tf.float32, (None, 3), name=name) for name in "ab")
        k = v1.placeholder(tf.float32, (), name="k")
        d = tf.multiply(tf.add(a, b, name="c"), k, name="d")
        tf.matmul(d, v1.get_variable("w", (3, 3)), name="e")
        tf.tanh(v1.placeholder(tf.float32, None, name="u"), name="f")
    return graph


ONES = np.ones((2, 3), np.float32)


def test_only_what_the_taps_need_must_be_fed(graph: Any) -> None:
    with layertap.open(graph) as model:
        assert model.capture({"a": ONES, "b": ONES}, "c")["c"].raw.tolist() == [[2.0] * 3] * 2
        with pytest.raises(FeedError, match="'b', which is not fed") as caught:
            model.capture({"a": ONES}, "c")
        assert "?x3 float32" in caught.value.hint


def test_a_scalar_is_the_same_for_all_batches(graph: Any) -> None:
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    with layertap.open(graph) as model:
        run = model.capture({"a": x, "b": x, "k": 3.0}, "d", batch_size=2)
        np.testing.assert_array_equal(run["d"].raw, x * 6)
        with pytest.raises(FeedError, match="'k' has shape 2, expected scalar"):
            model.capture({"a": ONES, "b": ONES, "k": np.ones(2)}, "d")


def test_an_input_that_is_not_fed_has_no_row(graph: Any) -> None:
    with layertap.open(graph) as model:
        run = model.capture({"a": ONES, "b": ONES}, "c", keep_inputs=True)
        assert {name: len(one) for name, one in run.items()} == {
            "a": 2,
            "b": 2,
            "k": 0,
            "u": 0,
            "c": 2,
        }


def test_an_input_of_unknown_rank_takes_any(graph: Any) -> None:
    with layertap.open(graph) as model:
        for shape in ((2, 5), (2, 5, 5)):
            assert model.capture({"u": np.ones(shape)}, "f")["f"].raw.shape == shape


def test_a_graph_without_its_session_has_no_values(graph: Any) -> None:
    feed = {"a": ONES, "b": ONES, "k": 1.0}
    with layertap.open(graph) as model, pytest.raises(Untappable, match="session"):
        model.capture(feed, "e")
    session = v1.Session(graph=graph)
    with layertap.open(session) as model, pytest.raises(RunError, match="'w' has no value"):
        model.capture(feed, "e")
    session.close()
    with layertap.open(session) as model, pytest.raises(RunError, match="closed"):
        model.capture(feed, "e")


def test_the_session_is_read_anew_by_each_capture(graph: Any) -> None:
    with graph.as_default(), v1.Session() as session:
        (w,) = v1.global_variables()
        twice = w.assign(np.full((3, 3), 2.0))
        session.run(v1.global_variables_initializer())
        before = len(graph.get_operations())
        graph.finalize()
        with layertap.open(graph, session=session) as model:
            feed = {"a": ONES, "b": ONES, "k": 1.0}
            first = model.capture(feed, "e")["e"].raw
            np.testing.assert_allclose(first, 2 * ONES @ session.run(w), rtol=1e-5)
            session.run(twice)
            np.testing.assert_array_equal(model.capture(feed, "e")["e"].raw, np.full((2, 3), 12))
            np.testing.assert_array_equal(session.run(w), np.full((3, 3), 2.0))
        assert len(graph.get_operations()) == before


def test_named_inputs_and_outputs(graph: Any) -> None:
    with layertap.open(graph, outputs=["d"]) as model:
        assert [tap.name for tap in model.graph] == ["a", "b", "k", "c", "d"]
    with layertap.open(graph, outputs=["d"], inputs=["c", "k:0"]) as model:
        run = model.capture({"c": ONES, "k": 2.0}, "d")
        np.testing.assert_array_equal(run["d"].raw, ONES * 2)
    with layertap.open(graph, outputs="d") as model:
        assert model.graph.outputs == (model.graph["d"],)
    with pytest.raises(SourceError, match="no tensor 'prodcut'"):
        layertap.open(graph, outputs=["prodcut"])
    for wrong in ("d:1", "d:x"):
        for given in ({"outputs": [wrong]}, {"outputs": ["e"], "inputs": [wrong]}):
            with pytest.raises(SourceError, match=f"no tensor '{wrong}'") as caught:
                layertap.open(graph, **given)
            assert "'d' has 1 results" in caught.value.hint


def test_options_that_do_not_belong(frozen: Any, file: Callable[..., Path]) -> None:
    with pytest.raises(SourceError, match="no signatures"):
        layertap.open(file(frozen.SerializeToString()), signature="x")
    with pytest.raises(UnknownSource, match="EagerTensor"):
        layertap.open(tf.ones(3))


def test_bytes_that_flipped(frozen: Any, file: Callable[..., Path]) -> None:
    """Whatever is in a file: a model, or one clear error."""
    data = frozen.SerializeToString()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        flipped = bytearray(data)
        for _ in range(int(rng.integers(1, 4))):
            flipped[int(rng.integers(len(data)))] = int(rng.integers(256))
        try:
            with layertap.open(file(bytes(flipped))) as model:
                assert str(model.graph)
        except layertap.LayertapError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 100


def test_nothing_is_collected_while_a_graph_is_read() -> None:
    """The collector would look through all of TensorFlow several times."""
    graph = tf.Graph()
    with graph.as_default():
        x = v1.placeholder(tf.float32, (None, 4), name="x")
        for _ in range(1000):
            x = tf.nn.relu(x)
    open_graph = find_runtime(graph).load().open  # imported, which is not what is watched
    begun: list[int] = []

    def watch(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            begun.append(info["generation"])

    gc.collect()
    gc.callbacks.append(watch)
    try:
        assert len(open_graph(graph).graph) > 1000
    finally:
        gc.callbacks.remove(watch)
    assert gc.isenabled()
    assert len(begun) <= 3  # one was put off; one may begin on either side
