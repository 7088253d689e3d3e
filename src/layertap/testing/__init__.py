"""The conformance suites that every runtime and store must pass. They need pytest and hypothesis.

Inherit one in a test module and implement what its docstring names::

    from layertap.testing.runtime import Case, RuntimeSuite

    class TestMyRuntime(RuntimeSuite):
        runtime = "mine"

        def make_case(self) -> Case: ...
"""
