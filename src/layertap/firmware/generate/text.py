"""Foreign text inside generated files: names of tensors, files and operators."""

from __future__ import annotations

import re
from collections.abc import Mapping

_PLACEHOLDER = re.compile(r"@([a-z]+(?:_[a-z]+)*)@")

_MOST = 100
"""Characters of a name in a comment."""


def filled(template: str, values: Mapping[str, str]) -> str:
    """``template`` with each ``@name@`` replaced. Raises KeyError for a name without a value."""
    return _PLACEHOLDER.sub(lambda found: values[found[1]], template)


def comment(text: str) -> str:
    """``text`` on one line, so that it can neither end a comment nor go on behind its line."""
    plain = "".join(c if c.isprintable() and c != "\\" else "?" for c in text)
    plain = plain.replace("*/", "* /").replace("@", "(at)")
    return plain if len(plain) <= _MOST else f"{plain[: _MOST - 3]}..."


def c_string(data: bytes) -> str:
    """``data`` as a string literal; what is not plain ASCII becomes three octal digits."""
    plain = (
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}"
        for byte in data
    )
    return f'"{"".join(plain)}"'


__all__ = ["c_string", "comment", "filled"]
