"""Archives of arrays: unpacked sample by sample, and refused before they are unpacked."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layertap.core.feeds import InputSpec
from layertap.errors import FeedError

ONE = [InputSpec("x", "float32", (1, 2, 3))]
OPEN = [InputSpec("x")]


def gathered(inputs):
    return np.concatenate([batch["x"] for batch in inputs])


def header(shape, dtype="|u1", fortran=False, version=(1, 0)):
    """The header of a .npy that says this, whatever follows."""
    described = {"descr": dtype, "fortran_order": fortran, "shape": shape}
    out = io.BytesIO()
    write = {
        (1, 0): np.lib.format.write_array_header_1_0,
        (2, 0): np.lib.format.write_array_header_2_0,
    }
    write[version](out, described)
    return out.getvalue()


def pretending(path: Path, shape, dtype="|u1") -> str:
    """An archive of a few bytes that says it unpacks to an array of this shape."""
    head = header(shape, dtype)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", head)
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        archive.getinfo("x.npy").file_size = len(head) + size
    return str(path)


def packed(path: Path, data: bytes, method=zipfile.ZIP_DEFLATED) -> str:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("x.npy", data)
    return str(path)


def peak(run):
    tracemalloc.start()
    try:
        return run(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_sample_however_it_is_packed(read, tmp_path, save, order):
    x = np.asarray(np.random.default_rng(0).random((7, 2, 3), np.float32), order=order)
    save(tmp_path / "x.npz", x=x)
    inputs = read(ONE, files=[str(tmp_path / "x.npz")], batch_size=3)
    assert inputs.samples == 7
    for _ in range(2):  # from the beginning again
        np.testing.assert_array_equal(gathered(inputs), x)
    save(tmp_path / "one.npz", x=x[0])
    assert gathered(read(ONE, files=[str(tmp_path / "one.npz")])).tolist() == [x[0].tolist()]


def test_what_unpacks_to_much_is_read_in_little_memory(read, tmp_path):
    rows = 64
    data = header((rows, 1 << 20)) + bytes(rows << 20)
    path = packed(tmp_path / "x.npz", data)
    assert Path(path).stat().st_size < 100_000
    inputs = read([InputSpec("x", "uint8", (None, 1 << 20))], files=[path], batch_size=2)
    count, most = peak(lambda: sum(len(batch["x"]) for batch in inputs))
    assert count == rows
    assert most < 16 << 20


def test_a_sample_that_unpacks_to_gigabytes_is_refused_before(read, tmp_path):
    path = pretending(tmp_path / "x.npz", (1, 3_000_000_000))
    inputs = read(OPEN, files=[path])
    with pytest.raises(FeedError, match=r"x.npy unpacks to 2.79 GiB at once") as caught:
        peak(lambda: list(inputs))
    assert ".npy" in caught.value.hint
    path = pretending(tmp_path / "y.npz", (3000, 1_000_000))
    with pytest.raises(FeedError, match="unpacks to") as caught:
        list(read(OPEN, files=[path], batch_size=3000))
    assert caught.value.hint.startswith("--batch-size 1073, or ")


def test_what_does_not_fit_the_model_is_refused_before(read, tmp_path):
    path = pretending(tmp_path / "x.npz", (1, 3_000_000_000), "<f4")
    with pytest.raises(FeedError, match=r"shape 1x3000000000, the input 'x' takes 2x3 float32"):
        read(ONE, files=[path])


def test_what_is_not_fed_is_not_unpacked(read, tmp_path):
    x = np.ones((4, 2, 3), np.float32)
    np.savez_compressed(tmp_path / "x.npz", x=x, other=np.arange(1000))
    data = bytearray((tmp_path / "x.npz").read_bytes())
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        start = archive.getinfo("other.npy").header_offset + 300
    data[start : start + 20] = bytes(20)
    (tmp_path / "x.npz").write_bytes(data)
    inputs = read(ONE, files=[str(tmp_path / "x.npz")])
    np.testing.assert_array_equal(gathered(inputs), x)
    assert "other not used" in inputs.notes[0]


def encrypted(path: Path) -> str:
    """An archive that says its member is encrypted."""
    packed(path, header((1, 2, 3)) + bytes(6))
    data = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(mark) + flags] |= 1
    path.write_bytes(data)
    return str(path)


def lied_about(path: Path) -> str:
    head = header((4, 2, 3))
    return packed(path, head + bytes(12))


@pytest.mark.parametrize(
    "made",
    [
        encrypted,
        lied_about,
        lambda path: packed(path, header((1, 2, 3)) + bytes(6), zipfile.ZIP_LZMA),
        lambda path: packed(path, b"nothing of the kind"),
        lambda path: packed(path, b""),
        lambda path: packed(path, header((-1, 2, 3)) + bytes(6)),
        lambda path: packed(path, header((1, 2, 3), "|O") + bytes(48)),
        lambda path: packed(path, b"\x93NUMPY\2\0\xff\xff\xff\x7f" + bytes(1000)),
        lambda path: packed(path, b"\x93NUMPY\3\0" + header((1, 2, 3))[8:]),
    ],
)
def test_what_is_no_archive_of_plain_arrays(read, tmp_path, made):
    path = made(tmp_path / "x.npz")
    with pytest.raises(FeedError, match="cannot read .+x.npz: .+") as caught:
        list(read(ONE, files=[path]))
    assert caught.value.hint


def test_a_header_that_unpacks_to_much_is_not_unpacked(read, tmp_path):
    path = packed(tmp_path / "x.npz", b"\x93NUMPY\2\0\0\0\0\4" + bytes(64 << 20))

    def attempt():
        with pytest.raises(FeedError, match="cannot read"):
            read(ONE, files=[path])

    assert peak(attempt)[1] < 8 << 20


def test_a_member_that_is_damaged(read, tmp_path):
    x = np.random.default_rng(0).random((40, 2, 3), np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[400] ^= 255
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(FeedError, match="Bad CRC"):
        list(read(ONE, files=[str(tmp_path / "x.npz")], batch_size=7))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_gives_values_of_the_right_shape_or_one_clear_error(read, tmp_path, data):
    name = data.draw(st.sampled_from(["x.npz", "x.npy"]))
    save = np.savez_compressed if name == "x.npz" else lambda path, x: np.save(path, x)
    save(tmp_path / name, x=np.arange(24, dtype=np.float32).reshape(4, 2, 3))
    content = bytearray((tmp_path / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    (tmp_path / name).write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        batches = list(read(ONE, files=[str(tmp_path / name)]))
    except FeedError as error:
        assert error.hint
        return
    assert all(batch["x"].shape[1:] == (2, 3) for batch in batches)
