"""The session of the LiteRT runtime."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from layertap.core.graph import TapPoint
from layertap.core.protocols import Capabilities, Json
from layertap.errors import RuntimeFailure, SourceError
from layertap.runtimes.registry import BUILTIN
from layertap.runtimes.worker.lacking import litert_lacks, micro_lacks, what_else
from layertap.runtimes.worker.process import WorkerFailure
from layertap.runtimes.worker.session import TfliteSession
from layertap.tflite.graph import MAIN
from layertap.tflite.state import state_of

_TRIAL = 0
"""The slot of models that are only loaded to see whether that is possible."""

KERNELS = ("default", "builtin", "reference")


_READABLE = """
bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128
"""


class LitertSession(TfliteSession):
    row = next(row for row in BUILTIN if row.name == "litert")
    engine = Path(__file__).with_name("engine.py")
    distribution = "ai-edge-litert"
    readable = frozenset(_READABLE.split())
    dynamic = True

    def __init__(
        self,
        source: str | Path | bytes,
        *,
        kernels: str = "default",
        threads: int = 1,
        signature: str | None = None,
        keep_state: bool = False,
        timeout: float | None = None,
    ) -> None:
        if kernels not in KERNELS:
            raise SourceError(
                f"there are no {kernels!r} kernels", hint=f"kernels are {', '.join(KERNELS)}"
            )
        if not isinstance(threads, int) or threads < 1:
            raise SourceError(f"{threads!r} threads are not possible", hint="give 1 or more")
        super().__init__(source, signature=signature, keep_state=keep_state, timeout=timeout)
        self.kernels, self.threads = kernels, threads

    @property
    def capabilities(self) -> Capabilities:
        exact = self.kernels != "default"
        return Capabilities(
            batch=self.batch,
            batched=self.batch is not None,
            block=self.block,
            bit_exact=exact,
            reason=""
            if exact
            else "XNNPACK may merge operators differently when a tensor between them is read",
        )

    def options(self) -> dict[str, Json]:
        return {"kernels": self.kernels, "threads": self.threads, "signature": self.signature}

    def load_model(self, model: bytes, slot: int, *, keep_state: bool) -> None:
        try:
            self._load_with(self.kernels, model, slot, keep_state)
        except WorkerFailure as error:
            raise self._refused(error, model) from error.__cause__

    def _load_with(self, kernels: str, model: bytes, slot: int, keep_state: bool) -> None:
        options = {
            **self.options(),
            "kernels": kernels,
            "keep_state": keep_state,
            "state": state_of(self.model),
            "subgraph": self.main,
            "inputs": self.model.subgraphs[self.main].inputs,
        }
        self.worker.load(slot, model, options)

    def _refused(self, error: WorkerFailure, model: bytes) -> RuntimeFailure:
        lacking = litert_lacks(self.model)
        if lacking:
            return RuntimeFailure(
                f"LiteRT has no operator {', '.join(lacking)}, which the model uses",
                hint='runtime="tflm" has what the model uses'
                if not micro_lacks(self.model)
                else what_else(self.model, self.graph, self.main, lacking),
            )
        return RuntimeFailure(
            f"LiteRT cannot load the model: {error.said}",
            hint=error.hint or self._loading(model),
        )

    def _loading(self, model: bytes) -> str:
        """What loads a model that these kernels do not, after trying."""
        for kernels in KERNELS:
            if kernels != self.kernels:
                with contextlib.suppress(WorkerFailure):
                    self._load_with(kernels, model, _TRIAL, keep_state=False)
                    self.worker.drop(_TRIAL)
                    return f'kernels="{kernels}" loads it'
        if self.main == MAIN and not micro_lacks(self.model):
            return 'no kernels of LiteRT load it; runtime="tflm" has all of its operators'
        return "no kernels of LiteRT load it; convert the model again, or update ai-edge-litert"

    def address(self, tap: TapPoint, outputs: Sequence[int]) -> int:
        return tap.index

    def needs_output(self, tap: TapPoint) -> bool:
        # A variable has memory of its own, which nothing else uses.
        return tap.kind != "state"

    def failed(self, error: WorkerFailure) -> RuntimeFailure:
        return RuntimeFailure(
            f"LiteRT failed while running the model: {error.said}",
            hint=error.hint
            or (self._elsewhere if error.crashed else "the session can be used again"),
        )

    @property
    def _elsewhere(self) -> str:
        """What may run a model on which these kernels crash."""
        others = [f'kernels="{kernels}"' for kernels in KERNELS if kernels != self.kernels]
        if self.main == MAIN and not micro_lacks(self.model):
            others.append('runtime="tflm"')
        return f"{', '.join(others[:-1])} or {others[-1]} may run it"


__all__ = ["KERNELS", "LitertSession"]
