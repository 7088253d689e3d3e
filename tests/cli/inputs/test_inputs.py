"""Which file feeds which input; folders, globs, several inputs; arrays and random numbers."""

from __future__ import annotations

import os

import numpy as np
import pytest

from layertap.core.feeds import InputSpec
from layertap.errors import FeedError

ONE = [InputSpec("x", "float32", (1, 2, 3))]
TWO = [InputSpec("a", "float32", (1, 2)), InputSpec("b", "int8", (1, 3))]


def gathered(inputs, name):
    return np.concatenate([batch[name] for batch in inputs])


def test_npy_in_batches(read, tmp_path):
    x = np.arange(42, dtype=np.float32).reshape(7, 2, 3)
    np.save(tmp_path / "x.npy", x)
    inputs = read(ONE, files=[str(tmp_path / "x.npy")], batch_size=3)
    assert [len(batch["x"]) for batch in inputs] == [3, 3, 1]
    assert (inputs.samples, len(inputs)) == (7, 3)
    np.testing.assert_array_equal(gathered(inputs, "x"), x)
    np.testing.assert_array_equal(gathered(inputs, "x"), x, err_msg="a second time")


def test_an_array_that_is_one_sample(read, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((2, 3), np.float32))
    assert read(ONE, files=[str(tmp_path / "x.npy")]).samples == 1


def test_several_files_a_folder_and_a_glob_are_the_same_samples(read, tmp_path):
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", np.full((2, 2, 3), i, np.float32))
    (tmp_path / "notes.txt").write_text("left out")
    one_by_one = [str(tmp_path / f"{i}.npy") for i in range(3)]
    for files in (one_by_one, [str(tmp_path)], [str(tmp_path / "*.npy")]):
        inputs = read(ONE, files=files, batch_size=4)
        assert [len(batch["x"]) for batch in inputs] == [4, 2]
        np.testing.assert_array_equal(gathered(inputs, "x")[:, 0, 0], [0, 0, 1, 1, 2, 2])


def test_npz_names_are_input_names(read, tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, a=np.ones((4, 2)), b=np.ones((4, 3), np.int8), label=np.arange(4))
    inputs = read(TWO, files=[str(path)])
    assert set(next(iter(inputs))) == {"a", "b"}
    assert inputs.notes == [f"{path}: label not used, the model has no such input"]
    assert read(TWO, files=[f"a={path}"]).notes == [f"{path}: b, label not used"]


def test_a_single_array_in_an_npz_needs_no_name(read, tmp_path):
    np.savez(tmp_path / "x.npz", whatever=np.ones((4, 2, 3)))
    assert read(ONE, files=[str(tmp_path / "x.npz")]).samples == 4


def test_names_for_several_inputs(read, tmp_path):
    np.save(tmp_path / "a.npy", np.ones((4, 2), np.float32))
    np.save(tmp_path / "b.npy", np.ones((4, 3), np.int8))
    inputs = read(TWO, files=[f"b={tmp_path}/b.npy", f"a={tmp_path}/a.npy"])
    (batch,) = inputs
    assert batch["a"].shape == (4, 2)
    assert batch["b"].shape == (4, 3)


def test_random_fills_what_no_file_gives(read, tmp_path):
    np.save(tmp_path / "a.npy", np.ones((4, 2), np.float32))
    inputs = read(TWO, files=[f"a={tmp_path}/a.npy"], random=0, samples=4)
    (batch,) = inputs
    assert batch["b"].dtype == np.int8
    assert (batch["a"] == 1).all()


def test_random_depends_on_seed_and_sample_only(read):
    few = gathered(read(ONE, random=5, samples=3, batch_size=2), "x")
    many = gathered(read(ONE, random=5, samples=9, batch_size=4), "x")
    np.testing.assert_array_equal(few, many[:3])
    assert not np.array_equal(many[0], many[1])
    assert not np.array_equal(few, gathered(read(ONE, random=6, samples=3), "x"))


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [("float32", 0, 1), ("int8", -128, 127), ("int64", 0, 1)]
)
def test_random_range(read, dtype, low, high):
    spec = [InputSpec("x", dtype, (1, 5000))]
    x = gathered(read(spec, random=0), "x")
    assert x.dtype == dtype
    assert low <= x.min() < low + 0.01
    assert high - 0.01 < x.max() <= high
    narrow = gathered(read(spec, random=0, value_range="2:3"), "x")
    assert narrow.min() >= 2
    assert narrow.max() <= 3


def test_open_shapes(read):
    spec = [InputSpec("x", None, None)]
    with pytest.raises(FeedError, match="does not say") as caught:
        read(spec, random=0)
    assert "--shape" in caught.value.hint
    assert gathered(read(spec, random=0, shapes=["3x4"]), "x").shape == (1, 3, 4)
    open_length = [InputSpec("x", "float32", (None, None, 4))]
    assert gathered(read(open_length, random=0), "x").shape == (1, 1, 4)
    assert gathered(read(open_length, random=0, shapes=["x=7x4"]), "x").shape == (1, 7, 4)


def test_pickles_are_not_loaded(read, tmp_path):
    path = tmp_path / "evil.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(FeedError, match="cannot read"):
        read(ONE, files=[str(path)])
    np.savez(tmp_path / "evil.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(FeedError, match="cannot read"):
        read(ONE, files=[str(tmp_path / "evil.npz")])


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_a_file_that_is_not_what_it_is_called(read, tmp_path, name):
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(FeedError, match="cannot read"):
        read(ONE, files=[str(tmp_path / name)])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"files": ["nowhere.npy"]}, "no file"),
        ({"files": ["{}"]}, "no input"),
        ({"files": ["{}/x.txt"]}, "cannot tell"),
        ({"files": ["z={}/x.txt"]}, "no input 'z'"),
        ({}, "nothing to feed"),
        ({"random": 0, "samples": 0}, "too few"),
        ({"random": 0, "batch_size": 0}, "batch size"),
        ({"random": 0, "shapes": ["5"]}, "takes 2x3"),
        ({"random": 0, "shapes": ["z=5"]}, "no input 'z'"),
        ({"random": 0, "shapes": ["axb"]}, "not a shape"),
        ({"random": 0, "shapes": ["0x3"]}, "not a shape"),
        ({"random": 0, "shapes": ["2x-3"]}, "not a shape"),
        ({"random": 0, "value_range": "3:2"}, "not a range"),
        ({"random": 0, "value_range": "0:inf"}, "not a range"),
        ({"random": 0, "dtype": "int8", "value_range": "-1:128"}, "goes beyond int8"),
        ({"random": 0, "dtype": "int4", "value_range": "-9:0"}, "goes beyond int4"),
        ({"random": 0, "dtype": "uint64", "value_range": "0:1e40"}, "goes beyond uint64"),
        ({"random": 0, "dtype": "float31"}, "float31"),
        ({"random": 0, "dtype": "object"}, "'object'"),
    ],
)
def test_what_cannot_be_fed(read, tmp_path, given, told):
    folder = tmp_path / "empty"
    folder.mkdir()
    given = dict(given)
    if "x.txt" in str(given):
        (folder / "x.txt").write_text("text")
    if "files" in given:
        given["files"] = [text.format(folder) for text in given["files"]]
    with pytest.raises(FeedError, match=told) as caught:
        read(ONE, **given)
    assert caught.value.hint


def test_lengths_must_match(read, tmp_path):
    np.savez(tmp_path / "x.npz", a=np.ones((4, 2)), b=np.ones((5, 3), np.int8))
    with pytest.raises(FeedError, match="4 of 'a', 5 of 'b'"):
        read(TWO, files=[str(tmp_path / "x.npz")])


def test_a_file_for_no_input_in_particular(read, tmp_path):
    np.save(tmp_path / "a.npy", np.ones((4, 2), np.float32))
    with pytest.raises(FeedError, match="2 inputs: a, b"):
        read(TWO, files=[str(tmp_path / "a.npy")])


SEQUENCE = [InputSpec("x", "float32", (None, None, 3)), InputSpec("table", "float32", (2,))]


def test_sequence_first(read, tmp_path):
    x, table = np.arange(60, dtype=np.float32).reshape(5, 4, 3), np.float32([1, 2])
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", x=x, table=table)
        axes = {"x": 1, "table": None}
        inputs = read(SEQUENCE, files=[str(tmp_path / "x.npz")], batch_size=3, batch_axis=axes)
        assert (inputs.samples, len(inputs)) == (4, 2)
        first, second = inputs
        np.testing.assert_array_equal(first["x"], x[:, :3])
        np.testing.assert_array_equal(second["x"], x[:, 3:])
        assert first["table"].tolist() == second["table"].tolist() == [1, 2]
    np.save(tmp_path / "x.npy", x)
    files = [f"x={tmp_path}/x.npy", f"table={tmp_path}/x.npz"]
    (whole,) = read(SEQUENCE, files=files, batch_axis={"x": -2, "table": None})
    np.testing.assert_array_equal(whole["x"], x)


def test_random_numbers_along_another_axis_are_those_of_the_sample(read):
    spec = [InputSpec("x", "float32", (5, None, 3))]
    (along,) = read(spec, random=0, samples=4, batch_axis={"x": 1})
    assert along["x"].shape == (5, 4, 3)
    (first,) = read([InputSpec("x", "float32", (None, 5, 3))], random=0, samples=4)
    np.testing.assert_array_equal(np.moveaxis(along["x"], 1, 0), first["x"])


def test_axes_that_cannot_be(read, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((5, 4, 3), np.float32))
    files = [f"x={tmp_path}/x.npy"]
    with pytest.raises(FeedError, match="'x' has no axis 3, its shape is"):
        read(SEQUENCE, files=files, random=0, batch_axis={"x": 3})
    with pytest.raises(FeedError, match="'table' has no batch axis, and 2 values are given"):
        read(SEQUENCE, files=files, random=0, samples=2, batch_axis={"table": None, "x": 1})
    spec = [InputSpec("x", "float32", (None, 4, 2))]
    with pytest.raises(FeedError, match="shape 5x4x3, the input 'x' takes"):
        read(spec, files=files)


def test_a_npy_that_is_an_archive(read, tmp_path):
    np.savez(tmp_path / "x.npz", x=np.ones((1, 2, 3)))
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    with pytest.raises(FeedError, match="cannot read"):
        read(ONE, files=[str(tmp_path / "x.npy")])


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.bin", "x.wav", "x.png"])
@pytest.mark.timeout(20)
def test_a_pipe_is_no_input(read, tmp_path, name):
    os.mkfifo(tmp_path / name)
    for files in ([str(tmp_path / name)], [str(tmp_path / "*")]):
        with pytest.raises(FeedError, match="no file"):
            read([InputSpec("x", "float32", (1, 2, 3))], files=files)
    with pytest.raises(FeedError, match="no input|no file"):
        read([InputSpec("x", "float32", (1, 2, 3))], files=[str(tmp_path)])


def test_a_nul_in_a_path(read):
    for text in ("a\0b.npy", "x=a\0b.npy", "a\0*.npy"):
        with pytest.raises(FeedError, match="no file") as caught:
            read(ONE, files=[text])
        assert caught.value.hint
