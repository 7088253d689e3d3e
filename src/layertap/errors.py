"""Every error layertap raises on purpose. Each says what happened and how to mend it."""

from __future__ import annotations

from typing import Any, Self


class LayertapError(Exception):
    """Base of all layertap errors.

    ``message`` says what happened in one line; ``hint`` says how to mend it. Errors can be copied
    and pickled, with all their attributes, whatever the arguments are that a subclass is made from.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own way is to call the class with ``args``, which a subclass may not take.
        return self._rebuilt, (self.message, self.hint), self.__dict__

    @classmethod
    def _rebuilt(cls, message: str, hint: str) -> Self:
        error = cls.__new__(cls)
        LayertapError.__init__(error, message, hint=hint)
        return error


class SourceError(LayertapError):
    """The thing to open cannot be opened."""


class UnknownSource(SourceError):
    """No runtime recognises the source."""


class CorruptModel(SourceError):
    """The model file is damaged or violates its format."""


class MissingRuntime(LayertapError, ImportError):
    """The framework that the source needs is not installed; the hint names the extra."""


class SelectionError(LayertapError):
    """A selector cannot be understood."""


class NoSuchTap(SelectionError, KeyError):
    """A selector matches no tap point; the hint lists near names."""


class PlanError(LayertapError):
    """The selected taps cannot be read as asked."""


class Untappable(PlanError):
    """A tap point exists but its value cannot be read; the message says why."""


class BudgetExceeded(PlanError):
    """The captures need more bytes than the budget allows."""

    def __init__(self, needed: int, available: int, *, hint: str = "") -> None:
        super().__init__(
            f"the captures need {needed:,} bytes, the budget is {available:,}",
            hint=hint or "select fewer taps, fewer samples, or raise the budget",
        )
        self.needed = needed
        self.available = available


class ArenaExceeded(PlanError):
    """A model, or a tap of it, needs a larger arena than there is; ``what`` names it."""

    def __init__(self, what: str, needed: int, available: int, *, hint: str = "") -> None:
        super().__init__(
            f"{what} needs an arena of {needed:,} bytes, {needed - available:,} more than the "
            f"{available:,} there are",
            hint=hint,
        )
        self.needed = needed
        self.available = available


class RunError(LayertapError):
    """A run could not be carried out."""


class FeedError(RunError):
    """An input is missing, unknown, or has the wrong shape or dtype."""


class RuntimeFailure(RunError):
    """The framework failed while running the model; the native error is the cause.

    ``execution``: in which of the executions of one call it failed, where that is known; those
    before it are complete.
    """

    execution: int | None = None


class StoreError(LayertapError):
    """A run or a model cannot be written to disk, or a run not read."""


class WireError(LayertapError):
    """Bytes from a device are not a valid message."""
