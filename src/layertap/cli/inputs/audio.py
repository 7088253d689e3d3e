"""``.wav`` files as samples: 16-bit PCM."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from layertap.cli.inputs.arrays import windows
from layertap.cli.inputs.given import Given, Wanted
from layertap.cli.inputs.stacks import Stack
from layertap.core.dtypes import Array
from layertap.errors import FeedError


def read_wav(path: Path, given: Given, wanted: Wanted) -> Stack:
    """The sound as int16 for an int16 input, else as real numbers from -1 up to 1.

    With a scaling of the user's, 16-bit numbers go through that instead. Raises FeedError for
    other encodings, and when the model takes another number of values; the message says both.
    """
    pcm, kind = _pcm(path, wanted)
    whole = wanted.dtype == np.int16 or given.scaling.given
    return windows(pcm, path, given, wanted, kind=kind, scaling=None if whole else _real)


def _real(pcm: Array) -> Array:
    return (pcm / np.float32(32768)).astype(np.float32)


def _pcm(path: Path, wanted: Wanted) -> tuple[Array, str]:
    """Interleaved int16 numbers, and what they are, for messages."""
    try:
        with wave.open(str(path), "rb") as sound:
            channels, width = sound.getnchannels(), sound.getsampwidth()
            # The header may say any number of frames; so many can be there.
            most = path.stat().st_size // (channels * width)
            rate, frames = sound.getframerate(), sound.readframes(min(sound.getnframes(), most))
    except (wave.Error, EOFError) as error:
        raise FeedError(
            f"cannot read {path}: {str(error) or 'it ends before the sound begins'}",
            hint="save it as 16-bit PCM, mono",
        ) from error
    if len(frames) % (channels * width):
        raise FeedError(f"{path} ends within a sample", hint="it is cut off; copy it again")
    if width != 2:
        raise FeedError(f"{path} has {8 * width}-bit samples", hint="save it as 16-bit PCM")
    last = wanted.shape[-1] if wanted.shape else None
    if channels > 1 and last != channels:
        raise FeedError(f"{path} has {channels} channels, {wanted}", hint="save it as mono")
    numbers = np.frombuffer(frames, "<i2")
    seconds = len(numbers) / channels / max(rate, 1)
    return numbers, f" ({seconds:.3g} s at {rate} Hz, {channels} channel{'s' * (channels > 1)})"


__all__ = ["read_wav"]
