"""The .tflite file: read it, list its tap points, add outputs to it. No framework is needed."""
