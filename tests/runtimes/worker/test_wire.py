from __future__ import annotations

import socket
import threading

import pytest

from layertap.runtimes.worker.wire import receive, send


def test_headers_and_bytes_come_back() -> None:
    ours, theirs = socket.socketpair()
    payload = bytes(range(256)) * 8192  # more than a socket holds
    with ours, theirs:
        sender = threading.Thread(target=send, args=(theirs, {"do": "it", "é": [1, None]}, payload))
        sender.start()
        assert receive(ours) == ({"do": "it", "é": [1, None]}, payload)
        sender.join()
        send(theirs, {})
        assert receive(ours) == ({}, b"")


def test_a_cut_message_is_the_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(theirs, {"do": "it"}, b"12345")
        whole = ours.recv(1000)
    for size in (0, 3, 12, len(whole) - 1):
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                theirs.sendall(whole[:size])
            with pytest.raises(EOFError):
                receive(ours)
