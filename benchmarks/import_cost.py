"""What `import layertap` costs against `import numpy`, each in a process of its own."""

from __future__ import annotations

import statistics
import subprocess
import sys

ROUNDS = 15
CLOCK = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def _seconds(module: str) -> float:
    code = CLOCK.format(module)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return float(done.stdout)


def rows() -> list[dict[str, object]]:
    """One row: the median of the ratios, pair by pair; bar: less than half."""
    _seconds("layertap"), _seconds("numpy")
    ratios = [_seconds("layertap") / _seconds("numpy") for _ in range(ROUNDS)]
    return [
        {
            "work": "import layertap / import numpy",
            "contender": "layertap",
            "ratio": statistics.median(ratios),
            "bar": 0.5,
        }
    ]
