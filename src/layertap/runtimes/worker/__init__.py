"""Native interpreters in a process of their own: what the .tflite runtimes share.

Interpreters of .tflite files end the process on a damaged model, a small arena or a bad kernel.
So they run in a worker; the caller gets an error that says what the native code printed.
"""
