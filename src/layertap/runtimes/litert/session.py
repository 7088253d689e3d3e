"""The session of the LiteRT runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from layertap.core.graph import TapPoint
from layertap.core.protocols import Capabilities, Json
from layertap.errors import RuntimeFailure, SourceError
from layertap.runtimes.registry import BUILTIN
from layertap.runtimes.worker.process import WorkerFailure
from layertap.runtimes.worker.session import BLOCK, TfliteSession
from layertap.tflite.state import state_of

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
            block=BLOCK,
            bit_exact=exact,
            reason=""
            if exact
            else "XNNPACK may merge operators differently when a tensor between them is read",
        )

    def options(self) -> dict[str, Json]:
        return {"kernels": self.kernels, "threads": self.threads, "signature": self.signature}

    def load_model(self, model: bytes, slot: int, *, keep_state: bool) -> None:
        options = {
            **self.options(),
            "keep_state": keep_state,
            "state": state_of(self.model),
            "subgraph": self.main,
            "inputs": self.model.subgraphs[self.main].inputs,
        }
        try:
            self.worker.load(slot, model, options)
        except WorkerFailure as error:
            raise RuntimeFailure(
                f"LiteRT cannot load the model: {error.said}",
                hint=self._elsewhere,
            ) from error.__cause__

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
        """What may run a model that these kernels do not."""
        other = 'kernels="builtin"' if self.kernels == "reference" else 'runtime="tflm"'
        return f"{other} may run it"


__all__ = ["KERNELS", "LitertSession"]
