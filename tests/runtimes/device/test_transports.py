"""Transports: real serial semantics on a pseudo terminal, sockets, FIFOs, files, programs."""

from __future__ import annotations

import errno
import grp
import logging
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
import serial

from layertap.errors import LayertapError, MissingRuntime, RuntimeFailure, SourceError
from layertap.runtimes.device.transport import Ended, Transport, open_transport
from layertap.runtimes.registry import find_runtime

pytestmark = pytest.mark.slow

Pair = tuple[int, str]


def opened(port: str | Path, *, patience: float = 30.0, baud: int = 115200) -> Transport:
    return open_transport(port, baud=baud, patience=patience)


def gathered(transport: Transport, count: int, seconds: float = 30.0) -> bytes:
    """What comes until ``count`` bytes are there."""
    data, deadline = b"", time.monotonic() + seconds
    while len(data) < count and time.monotonic() < deadline:
        data += transport.read(0.2)
    return data


def until_the_end(transport: Transport) -> None:
    for _ in range(50):
        transport.read(0.2)


def alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def gone(pid: int, seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


@pytest.fixture
def terminal() -> Iterator[Pair]:
    """The board's end of a pseudo terminal, and the path of the host's."""
    board, host = pty.openpty()
    tty.setraw(host)
    path = os.ttyname(host)
    os.close(host)
    yield board, path
    try:
        os.close(board)
    except OSError:
        assert True, "closed by the test"


def test_serial_port_carries_every_byte_both_ways(terminal: Pair) -> None:
    board, path = terminal
    every = bytes(range(256))
    port = opened(path)
    assert (port.two_way, port.replays, port.name) == (True, False, path)
    os.write(board, every)
    assert gathered(port, 256) == every
    port.write(every)
    assert os.read(board, 1024) == every
    start = time.monotonic()
    assert port.read(0.1) == b""
    assert 0.1 <= time.monotonic() - start < 10
    port.close()
    port.close()


def test_serial_port_is_set_to_the_given_rate(terminal: Pair) -> None:
    board, path = terminal
    port = opened(path, baud=460800)
    assert termios.tcgetattr(board)[4] == termios.B460800
    port.close()


def test_busy_port_tells_who_has_it(terminal: Pair) -> None:
    _, path = terminal
    first = opened(path)
    with pytest.raises(SourceError, match=r"in use by this process") as caught:
        opened(path)
    assert "monitor" in caught.value.hint
    first.close()
    opened(path).close()


@pytest.mark.parametrize(
    "opens",
    [
        pytest.param("import serial; p = serial.Serial({path!r}, exclusive=True)", id="lock"),
        pytest.param("p = open({path!r}, 'rb', 0)", id="no lock"),
    ],
)
def test_busy_port_names_another_program(terminal: Pair, opens: str) -> None:
    _, path = terminal
    code = f"{opens.format(path=path)}; import time; print('open', flush=True); time.sleep(30)"
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(SourceError, match=rf"in use by python\S* \(process {holder.pid}\)"):
            opened(path)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    opened(path).close()


def test_absent_port_lists_those_there_are() -> None:
    with pytest.raises(SourceError, match="there is no port /dev/ttyNONE9") as caught:
        opened("/dev/ttyNONE9")
    assert re.search("there is /dev|no serial port", caught.value.hint)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no port and no file") as caught:
        opened(tmp_path / "recorded.bin")
    assert "check the path" in caught.value.hint


def test_port_without_permission_names_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = tmp_path / "ttyACM0"
    node.touch()
    node.chmod(0o660)
    group = next(g for g in grp.getgrall() if g.gr_gid and g.gr_gid not in os.getgroups())
    try:
        os.chown(node, -1, group.gr_gid)
    except PermissionError:
        pytest.skip("only root may give a file to a group that it is not in")

    def refuse(*args: object, **options: object) -> None:
        raise serial.SerialException(errno.EACCES, f"could not open port {node}")

    monkeypatch.setattr("serial.serial_for_url", refuse)
    from layertap.runtimes.device.serial_port import SerialPort

    with pytest.raises(SourceError, match="may not be opened by you") as caught:
        SerialPort(str(node), baud=9600, patience=1)
    assert f"usermod -aG {group.gr_name} " in caught.value.hint
    node.chmod(0o600)
    with pytest.raises(SourceError) as caught:
        SerialPort(str(node), baud=9600, patience=1)
    assert "udev" in caught.value.hint


def test_rate_that_no_port_has(terminal: Pair) -> None:
    with pytest.raises(SourceError, match="baud") as caught:
        opened(terminal[1], baud=-5)
    assert "115200" in caught.value.hint


def test_port_that_is_no_serial_port() -> None:
    with pytest.raises(SourceError, match="/dev/null cannot be opened"):
        opened("/dev/null")


def test_unplugged_while_reading(terminal: Pair) -> None:
    board, path = terminal
    port = opened(path)
    threading.Timer(0.2, os.close, [board]).start()
    with pytest.raises(Ended, match="gone|broke") as caught:
        until_the_end(port)
    assert caught.value.hint
    port.close()


def test_board_that_takes_no_bytes(terminal: Pair) -> None:
    port = opened(terminal[1], patience=0.3)
    with pytest.raises(RuntimeFailure, match=r"takes no bytes within 0\.3 s"):
        port.write(bytes(1 << 20))
    port.close()


def test_urls_of_pyserial_are_let_through() -> None:
    port = opened("loop://")
    port.write(b"\x00\xf5abc")
    assert gathered(port, 5) == b"\x00\xf5abc"
    port.close()
    with pytest.raises(SourceError, match="nosuch"):
        opened("nosuch://x")


def test_without_pyserial_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serial", None)
    monkeypatch.delitem(sys.modules, "layertap.runtimes.device.serial_port", raising=False)
    with pytest.raises(MissingRuntime) as caught:
        opened("/dev/ttyACM0")
    assert "layertap[device]" in caught.value.hint
    assert find_runtime("x.tflite", "device").extra == "device"


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(5)
        yield listening


def test_tcp_carries_bytes_both_ways_and_tells_its_end(server: socket.socket) -> None:
    url = f"tcp://localhost:{server.getsockname()[1]}"
    port = opened(url)
    board, _ = server.accept()
    with board:
        board.sendall(b"abc")
        assert gathered(port, 3) == b"abc"
        port.write(b"xyz")
        assert board.recv(16) == b"xyz"
    with pytest.raises(Ended, match="ended") as caught:
        port.read(1)
    assert url in caught.value.message
    port.close()


def test_both_may_send_much_at_the_same_time(server: socket.socket) -> None:
    port = opened(f"tcp://127.0.0.1:{server.getsockname()[1]}")
    board, _ = server.accept()
    much = os.urandom(8 << 20)
    heard = bytearray()

    def talk() -> None:
        board.sendall(much)  # before it reads a byte
        while len(heard) < len(much) and (data := board.recv(1 << 16)):
            heard.extend(data)

    thread = threading.Thread(target=talk)
    thread.start()
    port.write(much)
    assert gathered(port, len(much)) == much
    thread.join(10)
    board.close()
    port.close()
    assert heard == much


def test_refused_connection(server: socket.socket) -> None:
    number = server.getsockname()[1]
    server.close()
    with pytest.raises(SourceError, match="refused") as caught:
        opened(f"tcp://127.0.0.1:{number}")
    assert "OpenOCD" in caught.value.hint


@pytest.mark.parametrize("url", ["tcp://localhost", "tcp://:80", "tcp://host:port", "tcp://"])
def test_url_without_host_or_port(url: str) -> None:
    with pytest.raises(SourceError, match="names no host and port"):
        opened(url)


def test_unix_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "qemu.sock"))
        listening.listen()
        port = opened(tmp_path / "qemu.sock")
        board, _ = listening.accept()
        with board:
            board.sendall(b"abc")
            assert gathered(port, 3) == b"abc"
        port.close()


def test_file_is_replayed_to_its_end(tmp_path: Path) -> None:
    recorded = os.urandom(1 << 20)
    (tmp_path / "log.bin").write_bytes(recorded)
    port = opened(tmp_path / "log.bin")
    assert (port.two_way, port.replays) == (False, True)
    assert gathered(port, len(recorded)) == recorded
    with pytest.raises(Ended):
        port.read(1)
    with pytest.raises(RuntimeFailure, match="one way only"):
        port.write(b"x")
    port.close()
    with pytest.raises(SourceError, match="is a folder"):
        opened(tmp_path)


def test_fifo_waits_for_its_writer_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    port = opened(path)
    assert port.read(0.05) == b""
    with path.open("wb", buffering=0) as writer:
        writer.write(b"abc")
        assert gathered(port, 3) == b"abc"
    with pytest.raises(Ended):
        port.read(1)
    port.close()


def test_program_answers_and_its_errors_go_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    code = "import sys; print('ready', file=sys.stderr); sys.stdout.write(sys.stdin.read(3))"
    with caplog.at_level(logging.INFO, logger="layertap.device"):
        port = opened(f"exec:{python(code)}")
        port.write(b"abc")
        port.process.stdin.close()  # type: ignore[attr-defined]
        assert gathered(port, 3) == b"abc"
        with pytest.raises(Ended):
            port.read(5)
    assert "ready" in caplog.messages
    port.close()


def test_program_that_ends_leaves_its_status_and_last_words() -> None:
    code = "import sys; print('no model\\nout of memory', file=sys.stderr); sys.exit(3)"
    port = opened(f"exec:{python(code)}")
    with pytest.raises(Ended, match=r"exit status 3; out of memory"):
        gathered(port, 1)
    port.close()
    port = opened(f"exec:{python('import os; os.abort()')}")
    with pytest.raises(Ended, match="killed by SIGABRT"):
        gathered(port, 1)
    port.close()


@pytest.mark.parametrize(
    ("command", "what"),
    [("", "no command"), ("no-such-program-at-all", "no program"), ("echo 'x", "cannot be read")],
)
def test_command_that_cannot_be_started(command: str, what: str) -> None:
    with pytest.raises(SourceError, match=what) as caught:
        opened(f"exec:{command}")
    assert caught.value.hint


SLEEPER = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"


@pytest.mark.parametrize("code", [SLEEPER, STUBBORN])
def test_program_ends_with_its_transport(code: str) -> None:
    port = opened(f"exec:{python(code)}")
    pid = int(gathered(port, 2).split()[0])
    assert alive(pid)
    port.close()
    assert gone(pid)


def test_program_ends_with_a_forgotten_transport() -> None:
    port = opened(f"exec:{python(SLEEPER)}")
    pid = int(gathered(port, 2).split()[0])
    del port
    assert gone(pid)


@pytest.mark.parametrize("how", ["return", "raise", "terminated", "killed"])
def test_program_never_outlives_layertap(how: str) -> None:
    if how in ("terminated", "killed") and sys.platform != "linux":
        pytest.skip("only Linux ties a program to the one that started it")
    code = (
        "import sys, time\n"
        "from layertap.runtimes.device.transport import open_transport\n"
        f"port = open_transport({'exec:' + python(SLEEPER)!r}, baud=9600, patience=5)\n"
        "pid = b''\n"
        "while not pid.endswith(b'\\n'):\n"
        "    pid += port.read(1)\n"
        "print(pid.decode(), flush=True)\n"
        f"if {how!r} == 'raise':\n"
        "    raise SystemExit('as it goes')\n"
        f"if {how!r} != 'return':\n"
        "    time.sleep(60)\n"
    )
    host = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=-3)
    assert host.stdout is not None
    pid = int(host.stdout.readline())
    if how in ("terminated", "killed"):
        host.send_signal(signal.SIGTERM if how == "terminated" else signal.SIGKILL)
    host.wait(30)
    host.stdout.close()
    assert gone(pid)


def test_port_without_a_name() -> None:
    with pytest.raises(LayertapError, match="empty"):
        opened("")


def python(code: str) -> str:
    return shlex.join([sys.executable, "-c", code])
