"""What a firmware prints between frames, told apart from noise."""

from __future__ import annotations

import codecs
import re

LINE_LIMIT = 1024
"""Bytes of a line after which it is passed on without its end."""
_NOISE = re.compile("[\ufffd\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]")
_PRINTED = bytes((*range(0x20, 0x7F), *b"\t\r\n"))
_LETTER = re.compile(b"[A-Za-z]")
_SALVAGED = 16
"""Bytes that text behind a broken frame has at least; fewer may be numbers that look like it."""


class Lines:
    """Bytes in, lines of text out; bytes that are no text are counted and left out. ``text`` and
    ``noise`` are the bytes of each so far.

    A character that a frame cuts in two is put together again.
    """

    def __init__(self) -> None:
        self.text = 0
        self.noise = 0
        self._open = bytearray()
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")

    def take(self, data: bytes) -> list[str | int]:
        """The lines that ``data`` completes, and in their place counts of bytes of noise."""
        self._open += data
        cut = self._open.rfind(b"\n") + 1
        if len(self._open) - cut > LINE_LIMIT:
            cut = len(self._open)
        return self._pass_on(cut) if cut else []

    def flush(self) -> list[str | int]:
        """What is there of a line that has not ended: a frame begins, or the stream is over."""
        return self._pass_on(len(self._open)) if self._open else []

    def _pass_on(self, cut: int) -> list[str | int]:
        lines = bytes(self._open[:cut]).split(b"\n")
        del self._open[:cut]
        found: list[str | int] = []
        for number, line in enumerate(lines, 1):
            if number < len(lines):
                line += b"\n"
            for at in range(0, len(line), LINE_LIMIT):
                self._line(line[at : at + LINE_LIMIT], found)
        return found

    def _line(self, line: bytes, found: list[str | int]) -> None:
        if is_text(line):
            self.text += len(line)
            text = self._characters.decode(line).rstrip("\r\n")
            if text or line.endswith(b"\n"):
                found.append(text)
            return
        self.noise += len(line)
        self._characters.reset()
        if found and isinstance(found[-1], int):
            found[-1] += len(line)
        else:
            found.append(len(line))


def is_text(data: bytes) -> bool:
    """Whether ``data`` reads as UTF-8 text, a character cut at either end allowed."""
    if not data.translate(None, _PRINTED):
        return True
    start = 0
    while start < min(3, len(data)) and 0x80 <= data[start] < 0xC0:
        start += 1
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(data[start:])
    return 8 * len(_NOISE.findall(text)) <= len(text)


def salvaged(damaged: bytes) -> bytes:
    """The text at the end of a frame that was broken off, such as the last words of a crash."""
    tail = damaged[len(damaged.rstrip(_PRINTED)) :]
    words = len(tail) >= _SALVAGED and 2 * len(_LETTER.findall(tail)) >= len(tail)
    return tail if words and b"\n" in tail else b""


__all__ = ["LINE_LIMIT", "Lines", "is_text", "salvaged"]
