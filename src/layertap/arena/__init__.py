"""The memory of TensorFlow Lite Micro: lifetimes, planners, layouts, boards."""
