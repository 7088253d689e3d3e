"""The prediction for Cortex-M against what the interpreter said there.

Measured with tflite-micro 90b983c, reference kernels, built by arm-none-eabi-g++ 12.2.1 for the
Cortex-M3 with -Os, in QEMU 7.2.22 (machine mps2-an385): head, tail, the smallest arena on a grid of
16 bytes, and the tail under the allocator that keeps statistics.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from layertap.sizing import memory

MEASURED = {
    "mlperf-tiny/ad01_float.tflite": (3072, 1456, 4528, 1568),
    "mlperf-tiny/ad01_int8.tflite": (768, 1492, 2704, 1604),
    "mlperf-tiny/kws_int8.tflite": (16000, 6772, 22784, 6868),
    "mlperf-tiny/resnet_float.tflite": (196608, 5152, 201760, 5248),
    "mlperf-tiny/resnet_int8.tflite": (49152, 5188, 54352, 5284),
    "tflm/hello_world_float.tflite": (128, 608, 1072, 720),
    "tflm/hello_world_int8.tflite": (32, 644, 1072, 756),
    "tflm/micro_speech_quantized.tflite": (5968, 820, 6800, 932),
    "tflm/mnist_lstm_int8.tflite": (1536, 1684, 3232, 1780),
    "tflm/person_detect.tflite": (55296, 26996, 82304, 27092),
    "tflm/simple_add_model.tflite": (49152, 452, 49616, 548),
}


@pytest.mark.parametrize("name", MEASURED)
def test_the_prediction_is_what_the_chip_says(shared: Path, name: str) -> None:
    path = shared / "models" / name
    plain = memory(path, "cortex-m", version="90b983c").arena
    recording = memory(path, "cortex-m", version="90b983c", recording=True).arena
    assert (plain.head, plain.tail, plain.minimum, recording.tail) == MEASURED[name]
    assert plain.exact
