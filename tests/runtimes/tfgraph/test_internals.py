"""Where a private member of TensorFlow fails its test, a public way gives the same values."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
pytest.importorskip("tensorflow")

WITHOUT = """
import sys, numpy as np, tensorflow as tf
from tensorflow.python.framework import ops
if sys.argv[1] == "without":
    before = ops._EagerTensorBase._numpy
    def changed(tensor):
        value = before(tensor)
        if isinstance(value, np.ndarray):
            value.flags.writeable = False
        return value
    ops._EagerTensorBase._numpy = changed
import layertap
function = tf.function(
    lambda x: tf.nn.relu(x, name="up") + 1.0, input_signature=[tf.TensorSpec((None, 3))]
)
x = np.arange(6, dtype=np.float32).reshape(2, 3) - 3
with layertap.open(function) as model:
    run = model.capture(x)
np.testing.assert_array_equal(run["up"].raw, np.maximum(x, 0))
assert run["up"].raw.flags.writeable
print(sorted(run.provenance.get("internals", {})))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("way", "told"), [("with", "[]"), ("without", "['EagerTensor._numpy']")])
def test_a_member_that_changed_is_told_and_replaced(way: str, told: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, way], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == told
