"""Messages between a session and its worker: a JSON header, then bytes, over a socket."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any

_LENGTHS = struct.Struct("<IQ")

Header = dict[str, Any]


def send(channel: socket.socket, header: Mapping[str, Any], payload: bytes = b"") -> None:
    """Write one message. Raises ConnectionError when the other side is gone, and TimeoutError
    where the channel has a time-out."""
    text = json.dumps(header).encode()
    channel.sendall(_LENGTHS.pack(len(text), len(payload)) + text)
    if payload:
        channel.sendall(payload)


def receive(channel: socket.socket) -> tuple[Header, bytes]:
    """Read one message. Raises EOFError when the other side is gone, and TimeoutError."""
    lengths = _LENGTHS.unpack(_exactly(channel, _LENGTHS.size))
    text, payload = (_exactly(channel, length) for length in lengths)
    header: Header = json.loads(text)
    return header, payload


def _exactly(channel: socket.socket, length: int) -> bytes:
    """So many bytes; fewer mean that the other side is gone."""
    buffer = bytearray(length)
    view = memoryview(buffer)
    while view:
        try:
            count = channel.recv_into(view)
        except ConnectionError:
            count = 0
        if not count:
            raise EOFError
        view = view[count:]
    return bytes(buffer)


__all__ = ["Header", "receive", "send"]
