"""Images as samples."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from layertap.cli.inputs.given import Scaling
from layertap.core.feeds import InputSpec
from layertap.errors import FeedError

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)
COLOUR = np.arange(144, dtype=np.uint8).reshape(6, 8, 3)


@pytest.fixture
def images(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a_grey.png")
    Image.fromarray(COLOUR).save(tmp_path / "b_colour.png")
    return tmp_path


def one(inputs):
    (batch,) = inputs
    return batch["x"]


def spec(dtype, *shape):
    return [InputSpec("x", dtype, shape)]


def test_pixels_as_they_are(read, images):
    grey, colour = str(images / "a_grey.png"), str(images / "b_colour.png")
    x = one(read(spec("float32", 1, 6, 8, 1), files=[grey]))
    np.testing.assert_array_equal(x, GREY[None, :, :, None])
    x = one(read(spec("uint8", 1, 6, 8, 3), files=[colour]))
    np.testing.assert_array_equal(x, COLOUR[None])
    x = one(read(spec("float32", 1, 6, 8), files=[grey]))
    np.testing.assert_array_equal(x, GREY[None])


def test_channels_of_the_model_decide(read, images):
    x = one(read(spec("float32", 1, 6, 8, 3), files=[str(images)]))
    np.testing.assert_array_equal(x, [np.stack([GREY] * 3, axis=-1), COLOUR])
    x = one(read(spec("float32", 1, 6, 8, 1), files=[str(images)]))
    luma = np.asarray(Image.fromarray(COLOUR).convert("L"))
    np.testing.assert_array_equal(x[..., 0], [GREY, luma])


def test_channels_first(read, images):
    x = one(read(spec("float32", 1, 3, 6, 8), files=[str(images / "b_colour.png")]))
    np.testing.assert_array_equal(x, COLOUR.transpose(2, 0, 1)[None])
    open_shape = [InputSpec("x", None, None)]
    x = one(read(open_shape, files=[str(images / "b_colour.png")], runtime="torch"))
    assert x.shape == (1, 3, 6, 8)
    assert x.dtype == np.float32


def test_int8_wants_a_scaling(read, images):
    int8 = spec("int8", 1, 6, 8, 1)
    files = [str(images / "a_grey.png")]
    with pytest.raises(FeedError, match="0 to 255") as caught:
        read(int8, files=files)
    assert "--offset -128" in caught.value.hint
    x = one(read(int8, files=files, scaling=Scaling(offset=Fraction(-128))))
    np.testing.assert_array_equal(x[0, :, :, 0], GREY.astype(int) - 128)


def test_another_size_is_an_error_unless_asked(read, images):
    small = spec("float32", 1, 3, 4, 1)
    files = [str(images / "a_grey.png")]
    inputs = read(small, files=files)
    with pytest.raises(FeedError, match=r"6x8 .* takes 3x4x1") as caught:
        one(inputs)
    assert "--resize" in caught.value.hint
    assert one(read(small, files=files, resize=True)).shape == (1, 3, 4, 1)


def test_a_model_that_takes_no_images(read, images):
    with pytest.raises(FeedError, match="takes 10"):
        read(spec("float32", 1, 10), files=[str(images / "a_grey.png")])


def test_numbers_of_colours_are_no_brightness(read, tmp_path):
    """Also where the model leaves the channels open."""
    path = tmp_path / "palette.png"
    Image.new("RGB", (8, 6), (200, 10, 30)).convert("P", palette=Image.Palette.ADAPTIVE).save(path)
    for inputs in (spec("uint8", 1, None, None, None), [InputSpec("x")]):
        x = one(read(inputs, files=[str(path)]))
        assert x.shape == (1, 6, 8, 3)
        assert x[0, 0, 0].tolist() == [200, 10, 30]
    Image.new("1", (8, 6), 1).save(path)
    x = one(read(spec("uint8", 1, None, None, None), files=[str(path)]))
    assert x[0, 0, 0].tolist() == [255]


def test_a_file_that_is_no_image(read, tmp_path):
    (tmp_path / "x.png").write_bytes(b"nothing of the kind")
    inputs = read(spec("float32", 1, 6, 8, 1), files=[str(tmp_path / "x.png")])
    with pytest.raises(FeedError, match="cannot read the image"):
        one(inputs)


def test_a_real_image(read, shared):
    path = shared / "inputs/person.bmp"
    shifted = Scaling(offset=Fraction(-128))
    x = one(read(spec("int8", 1, 96, 96, 1), files=[str(path)], scaling=shifted))
    pixels = np.asarray(Image.open(path).convert("L")).astype(int)
    np.testing.assert_array_equal(x[0, :, :, 0], pixels - 128)


def png(width, height, pixels=b""):
    """A grey PNG that says it is of this size, whatever its pixels are."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def test_an_image_that_unpacks_to_much_is_refused_before(read, tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(png(10_000, 10_000, zlib.compress(bytes(10_001 * 1000))))
    tracemalloc.start()
    with pytest.raises(FeedError, match="cannot read the image .*exceeds limit"):
        one(read([InputSpec("x")], files=[str(path)]))
    with pytest.raises(FeedError, match="exceeds limit"):
        one(read(spec("float32", 1, 6, 8, 1), files=[str(path)], resize=True))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_an_image_of_another_size_is_refused_before_it_is_decoded(read, tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(png(9000, 8000, b"no pixels"))
    with pytest.raises(FeedError, match=r"is 8000x9000 \(height x width\), .* takes 6x8x1"):
        one(read(spec("float32", 1, 6, 8, 1), files=[str(path)]))


def test_an_image_that_a_camera_turned_fits_by_what_it_shows(read, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(GREY).save(tmp_path / "x.png", exif=exif)
    x = one(read(spec("uint8", 1, 8, 6, 1), files=[str(tmp_path / "x.png")]))
    np.testing.assert_array_equal(x[0, :, :, 0], np.rot90(GREY, -1))
    with pytest.raises(FeedError, match="is 8x6"):
        one(read(spec("uint8", 1, 6, 8, 1), files=[str(tmp_path / "x.png")]))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_image_is_an_image_or_one_clear_error(read, tmp_path, data):
    form = data.draw(st.sampled_from(["png", "bmp", "jpeg", "gif", "tiff", "ppm", "webp"]))
    path, out = tmp_path / f"x.{form}", io.BytesIO()
    Image.fromarray(COLOUR).save(out, form)
    content = bytearray(out.getvalue())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        x = one(read(spec("uint8", 1, 6, 8, 3), files=[str(path)]))
    except FeedError as error:
        assert error.hint
        assert not error.message.endswith(":")
    else:
        assert x.shape == (1, 6, 8, 3)
