"""Batches that the user's own code yields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from layertap.errors import FeedError, LayertapError


class UserBatches:
    """What ``module:function`` gave, with its failures told as such."""

    def __init__(self, batches: Any, text: str) -> None:
        if not isinstance(batches, Iterable) or isinstance(batches, str | bytes):
            raise FeedError(
                f"{text} is a {type(batches).__name__}, which does not yield batches",
                hint="name a generator function, a list of arrays or a DataLoader",
            )
        self._batches, self._text = batches, text

    @property
    def samples(self) -> int | None:
        """The number of samples, where the user's object knows it."""
        known = getattr(self._batches, "samples", None)
        return known if isinstance(known, int) else None

    def __len__(self) -> int:
        """Raises TypeError where the number of batches is unknown, as for a generator."""
        return len(self._batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        number = 0
        try:
            for number, batch in enumerate(self._batches, 1):  # noqa: B007
                yield batch
        except LayertapError:
            raise
        except Exception as error:
            raise FeedError(
                f"{self._text} failed in batch {number + 1}: {type(error).__name__}: {error}",
                hint="layertap --debug shows where",
            ) from error


__all__ = ["UserBatches"]
