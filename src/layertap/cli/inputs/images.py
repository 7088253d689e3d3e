"""Images as samples."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from layertap.cli.inputs.given import Given, Wanted
from layertap.core.dtypes import Array
from layertap.core.graph import format_shape
from layertap.core.messages import abridged, brief
from layertap.errors import FeedError

SUFFIXES = frozenset({".png", ".bmp", ".jpg", ".jpeg", ".gif", ".pgm", ".ppm", ".tif", ".tiff"}) | {
    ".webp"
}
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
WIDER = frozenset({"I", "F", "I;16", "I;16L", "I;16B"})
"""Modes with more than 8 bits a pixel, which a conversion would clip."""

CODED = {"P": "RGB", "PA": "RGBA", "1": "L"}
"""Modes whose pixels are no brightness, and those that show the same."""


class ImageStack:
    """One sample per image: greyscale or colour as the model's channels say, never resized unless
    asked. Images are read when their batch is. Where the model leaves the dtype open, numbers are
    float32.

    Raises FeedError when the model does not take images.
    """

    def __init__(self, paths: list[Path], given: Given, wanted: Wanted) -> None:
        self._paths, self._given, self._wanted = paths, given, wanted
        self._height, self._width, self._channels, self._first = _layout(wanted, paths[0])
        if wanted.dtype == np.int8 and not given.scaling.given:
            raise FeedError(
                f"pixels are 0 to 255, {wanted}",
                hint="--offset -128 feeds pixel - 128; --scale 1/255 feeds real numbers from 0 "
                "to 1, quantized for the input",
            )

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, start: int, stop: int) -> Array:
        images = [self._image(path) for path in self._paths[start:stop]]
        shapes = {image.shape for image in images}
        if len(shapes) > 1:
            told = ", ".join(map(format_shape, sorted(shapes)))
            raise FeedError(
                f"the images have different shapes: {abridged(told)}",
                hint="--batch-size 1 feeds them one by one",
            )
        numbers = self._wanted.scaling(self._given)(np.stack(images))
        return numbers.astype(np.float32) if self._wanted.dtype is None else numbers

    def _image(self, path: Path) -> Array:
        with _opened(path, self._check_size) as image:
            upright = ImageOps.exif_transpose(image)
            if self._channels is not None and not (self._channels == 1 and upright.mode in WIDER):
                upright = upright.convert(MODES[self._channels])
            elif upright.mode in CODED:
                upright = upright.convert(CODED[upright.mode])
            pixels = np.asarray(self._sized(upright, path))
        if self._wanted.shape is not None and len(self._wanted.shape) == 2:
            return pixels
        pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
        return np.moveaxis(pixels, 2, 0) if self._first else pixels

    def _check_size(self, image: Image.Image, path: Path) -> None:
        """Refuse an image that does not fit, whichever way it is turned, before it is decoded."""
        width, height = image.size
        fits = self._takes(width, height) or self._takes(height, width)
        if not fits and not self._given.resize:
            raise self._misfit(image, path)

    def _takes(self, width: int, height: int) -> bool:
        return self._width in (None, width) and self._height in (None, height)

    def _sized(self, image: Image.Image, path: Path) -> Image.Image:
        if self._takes(*image.size):
            return image
        if not self._given.resize:
            raise self._misfit(image, path)
        size = (self._width or image.width, self._height or image.height)
        return image.resize(size, Image.Resampling.BILINEAR)

    def _misfit(self, image: Image.Image, path: Path) -> FeedError:
        return FeedError(
            f"{path} is {image.height}x{image.width} (height x width), {self._wanted}",
            hint="--resize scales it to fit",
        )


def _layout(wanted: Wanted, path: Path) -> tuple[int | None, int | None, int | None, bool]:
    """Height, width and channels (None where open), and whether channels come first."""
    shape = wanted.shape
    if shape is None:
        with _opened(path) as image:
            grey = image.mode not in CODED and len(image.getbands()) <= 2
        return None, None, 1 if grey else 3, wanted.channels_first
    if len(shape) == 2:
        return shape[0], shape[1], 1, False
    if len(shape) == 3:
        last = shape[2] in MODES
        first = shape[0] in MODES
        if last and not (first and wanted.channels_first):
            return shape[0], shape[1], shape[2], False
        if first:
            return shape[1], shape[2], shape[0], True
        if shape[2] is None:
            return shape[0], shape[1], None, False
    raise FeedError(
        f"{path} is an image, {wanted}",
        hint="an image needs height, width and 1, 3 or 4 channels; pass other inputs as .npy",
    )


def _opened(path: Path, check: Callable[[Image.Image, Path], None] | None = None) -> Image.Image:
    """The image, decoded once ``check`` has seen what the file says about it. Raises FeedError."""
    try:
        with warnings.catch_warnings():
            # A file of a few kilobytes may hold as many pixels as it likes.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = Image.open(path)
        with opened as image:
            if check is not None:
                check(image, path)
            image.load()
            return image
    except FeedError:
        raise
    except Exception as error:  # what decoders raise of damaged files has no common base
        raise FeedError(
            f"cannot read the image {path}: {brief(error)}", hint="check the file, or save it anew"
        ) from error


__all__ = ["SUFFIXES", "ImageStack"]
