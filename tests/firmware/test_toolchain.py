"""A missing tool is a test less, by name, or a failure where the tools are required."""

from __future__ import annotations

import pytest
import toolchain


def test_a_missing_tool_skips_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(toolchain.REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-compiler is not installed"):
        toolchain.tool("no-such-compiler")


def test_a_missing_tool_fails_where_tools_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(toolchain.REQUIRED, "1")
    with pytest.raises(pytest.fail.Exception, match="no-such-compiler is not installed"):
        toolchain.tool("no-such-compiler")
