"""Recording what boards send on their own, from programs, recorded files and late arrivals."""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import boardmodel
import numpy as np
import pytest
import testboard
from boardtaps import assert_same, expected
from testboard import Fault, Orders

import layertap
from layertap.core.dtypes import Array
from layertap.errors import (
    CorruptModel,
    LayertapError,
    NoSuchTap,
    PlanError,
    RuntimeFailure,
    SourceError,
    StoreError,
    Untappable,
    WireError,
)
from layertap.firmware.wire.frames import to_frame
from layertap.firmware.wire.messages import Done, Hello, Message, Tensor, mask_bytes, pack
from layertap.testing.tflite_cases import known_model
from layertap.tflite.model import parse

pytestmark = pytest.mark.slow  # starts boards

MODEL = boardmodel.MODEL
Recorder = Callable[..., Path]


def fed(inference: int) -> dict[str, Array]:
    """What a test board that runs on its own feeds itself."""
    return {
        "x": ((np.arange(24) + inference) % 7 - 3).astype(np.float32).reshape(boardmodel.SHAPE),
        "steps": np.array([inference % 7 - 3], np.int32),
    }


def check(run: layertap.Run, numbers: list[int], *, keeps_state: bool = True) -> None:
    """Row i of every tap is what inference ``numbers[i]`` computes."""
    memory, values = None, {}
    for number in range(max(numbers) + 1):
        values[number], memory = expected(run.taps, fed(number), memory)
    assert run.samples == len(numbers)
    for i, number in enumerate(numbers):
        for name, capture in run.items():
            what = f"{name}, inference {number}"
            assert_same(capture[i : i + 1].raw[0], values[number][name], what)


def alone(**orders: object) -> Orders:
    """A board that runs on its own and takes nothing."""
    return Orders(**{"able": 0, "receive": 0, "runs": 5, **orders})


@pytest.fixture
def recorded(board: testboard.Board, tmp_path: Path) -> Recorder:
    """Writes what a board sends on its own to a file."""

    def record(orders: Orders, model: bytes = MODEL) -> Path:
        path = tmp_path / "recorded.bin"
        with path.open("wb") as file:
            command = board.command(model, orders)
            subprocess.run(command, stdin=-3, stdout=file, check=True, timeout=30)
        return path

    return record


def test_everything_that_is_sent(recorded: Recorder, tmp_path: Path) -> None:
    run = layertap.listen(recorded(alone()), MODEL, to=tmp_path / "run.zarr")
    assert run.complete
    assert len(run) == len([tap for tap in run.taps if tap.kind != "weight"]) > 40
    check(run, [0, 1, 2, 3, 4])
    assert run.provenance["board"]["name"] == "test board"
    assert run.provenance["observed"]["dropped"] == 0
    check(layertap.load(tmp_path / "run.zarr"), [0, 1, 2, 3, 4])


def test_a_selection_in_memory_with_an_end(recorded: Recorder) -> None:
    seen: list[int] = []
    told: list[int | None] = []

    def each(number: int, values: Mapping[str, Array]) -> None:
        seen.append(number)
        assert sorted(values) == ["row", "scalar"]

    path = recorded(alone(runs=40))
    run = layertap.listen(
        path,
        MODEL,
        "row | scalar",
        samples=20,
        on_inference=each,
        progress=lambda progress: told.append(progress.total_samples),
    )
    assert run.complete
    check(run, list(range(20)))
    assert seen == list(range(20))
    assert told == [20] * 20


def test_a_stream_that_ends_before_the_samples_is_not_complete(recorded: Recorder) -> None:
    run = layertap.listen(recorded(alone()), MODEL, "scalar", samples=9)
    assert (run.samples, run.complete) == (5, False)


def test_a_batch_is_so_many_samples(recorded: Recorder) -> None:
    known = known_model()
    run = layertap.listen(recorded(alone(), known.data), known.data, "sum", samples=6)
    assert (run.samples, run["sum"].raw.shape) == (6, (6, 4))


@pytest.mark.parametrize(
    ("fault", "left", "counted"),
    [
        (Fault("drop-byte", 60, 9), [0, 2, 3, 4], "damaged"),
        (Fault("drop-frame", 60), [0, 2, 3, 4], "lost"),
        (Fault("swap", 60), [0, 2, 3, 4], "dropped"),
        (Fault("fail", 2), [0, 1, 3, 4], "failed"),
        (Fault("garbage", byte=4000), [0, 1, 2, 3, 4], ""),
        (Fault("text", 60, 0), [0, 1, 2, 3, 4], ""),
    ],
)
def test_only_whole_inferences_count(
    recorded: Recorder, fault: Fault, left: list[int], counted: str
) -> None:
    run = layertap.listen(recorded(alone(faults=[fault])), MODEL, "cast/* | row", samples=9)
    check(run, left)
    observed = run.provenance["observed"]
    assert observed["dropped"] + observed["failed"] == 5 - len(left)
    assert not counted or observed[counted] >= 1


def test_a_reset_in_the_middle(recorded: Recorder) -> None:
    path = recorded(alone(runs=3, faults=[Fault("reset", 60, 20)]))
    run = layertap.listen(path, MODEL, "cast/*", samples=9)
    check(run, [0, 0, 1, 2])  # the board counts anew
    assert run.provenance["observed"]["starts"] == 2
    assert run.provenance["observed"]["dropped"] == 1


def test_late_arrival_waits_for_the_board_to_say_who_it_is(recorded: Recorder) -> None:
    path = recorded(alone(runs=20))
    stream = path.read_bytes()
    path.write_bytes(stream[len(stream) // 8 :])
    run = layertap.listen(path, MODEL, "scalar", samples=99)
    check(run, [16, 17, 18, 19])
    assert run.provenance["observed"]["early"] == 14  # inference 2 from its middle on, up to 15
    path.write_bytes(stream[len(stream) // 8 : len(stream) // 2])
    with pytest.raises(WireError, match="no word about the model") as caught:
        layertap.listen(path, MODEL, "scalar", samples=99)
    assert "every 16 inferences" in caught.value.hint


def test_every_and_forms_that_the_firmware_fixes(recorded: Recorder) -> None:
    run = layertap.listen(recorded(alone(runs=9, every=4)), MODEL, "scalar", samples=9)
    check(run, [0, 4, 8])
    with pytest.raises(PlanError, match="sends every 4"):
        layertap.listen(recorded(alone(every=4)), MODEL, "scalar", samples=9, every=2)


def test_a_board_that_listens_is_told_what_to_send(board: testboard.Board) -> None:
    orders = Orders(able=6, runs=60, pause=5, taps=[3])
    port = "exec:" + shlex.join(board.command(MODEL, orders))
    options = {"slices": {"row": "2:5"}, "reduce": {"cast/int8": "summary"}}
    taps = "row | cast/int8 | scalar"
    run = layertap.listen(port, MODEL, taps, samples=3, every=3, timeout=30, **options)
    assert sorted(run) == ["cast/int8", "row", "scalar"]
    steps = run["scalar"].raw
    first = next(n for n in range(0, 60, 3) if fed(n)["steps"][0] == steps[0])
    for i in range(3):
        x = fed(first + 3 * i)["x"]
        assert steps[i] == fed(first + 3 * i)["steps"][0]
        assert run["row"].raw[i].tolist() == x.ravel()[2:5].tolist()
        summary = np.array([x.min(), x.max(), x.mean()], np.float32)
        np.testing.assert_allclose(run["cast/int8"].raw[i], summary, rtol=1e-6)


def stream_of(tensors: list[Tensor], path: Path) -> Path:
    """A stream in which each inference has one of ``tensors``."""
    model = parse(MODEL)
    count = sum(len(subgraph.tensors) for subgraph in model.subgraphs)
    mask = mask_bytes([tensor.tensor for tensor in tensors], count)
    start = Hello(0, 0, 0, 0, zlib.crc32(MODEL), len(MODEL), count, 0, 0, 1, "fixed", mask)
    messages: list[Message] = [start]
    for number, tensor in enumerate(tensors):
        messages += [replace(tensor, inference=number), Done(number, 0, 1, 1)]
    path.write_bytes(b"".join(pack(message, i) for i, message in enumerate(messages)))
    return path


def index_of(name: str) -> int:
    with layertap.open(MODEL, "device") as model:
        return model.graph[name].index


def test_forms_that_the_firmware_fixes_are_found_out(tmp_path: Path) -> None:
    summary = np.array([-3, 9], np.int16).tobytes() + np.float32(1.5).tobytes()
    sent = Tensor(0, 0, index_of("cast/int16"), 0, "int16", (2, 3, 4), 0, summary, form=2)
    path = tmp_path / "log"
    run = layertap.listen(stream_of([sent, sent], path), MODEL, to=tmp_path / "a.zarr")
    assert list(run) == ["cast/int16"]
    assert run["cast/int16"].raw.tolist() == [[-3, 9, 1.5]] * 2
    bins = np.arange(4, dtype=np.uint32).tobytes()
    sent = replace(sent, payload=bins, form=3, count=4, low=-1, high=1)
    run = layertap.listen(stream_of([sent], path), MODEL, to=tmp_path / "b.zarr")
    assert run["cast/int16"].raw.tolist() == [[0, 1, 2, 3]]
    sent = replace(sent, payload=b"ab", form=1, first=3, count=1)
    with pytest.raises(RuntimeFailure, match="as a slice of int16, not as a summary"):
        layertap.listen(stream_of([sent], path), MODEL, samples=1, reduce="summary")


def test_a_state_that_is_sent_twice_is_what_it_was_last(tmp_path: Path) -> None:
    rows = [np.full((1, 4), i, np.float32) for i in range(2)]
    place = (0, 0, index_of("state"), 0, "float32", (1, 4), 0)
    first, last = (Tensor(*place, row.tobytes()) for row in rows)
    path = stream_of([first], tmp_path / "log")
    end = pack(Done(0, 0, 1, 1), 2)
    stream = path.read_bytes().removesuffix(end) + pack(last, 2) + pack(Done(0, 0, 2, 2), 3)
    path.write_bytes(stream)
    assert_same(layertap.listen(path, MODEL, samples=1)["state"].raw[0], rows[1], "state")


def test_appends_to_a_run(recorded: Recorder, tmp_path: Path) -> None:
    to = tmp_path / "run.zarr"
    path = recorded(alone())
    layertap.listen(path, MODEL, "scalar | row", to=to)
    with pytest.raises(StoreError, match="--resume"):
        layertap.listen(path, MODEL, "scalar | row", to=to)
    run = layertap.listen(path, MODEL, "scalar | row", to=to, samples=8, resume=True)
    assert run.complete
    check(run, [0, 1, 2, 3, 4, 0, 1, 2])
    assert run.provenance["observed"]["starts"] == 2
    again = layertap.listen(path, MODEL, "scalar | row", to=to, samples=8, resume=True)
    assert again.samples == 8
    with pytest.raises(StoreError, match="taps"):
        layertap.listen(path, MODEL, "scalar", to=to, resume=True)
    layertap.listen(path, MODEL, "scalar", to=to, overwrite=True)


def test_interrupted_leaves_a_run_that_goes_on(recorded: Recorder, tmp_path: Path) -> None:
    def stop(number: int, values: Mapping[str, Array]) -> None:
        if number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        layertap.listen(
            recorded(alone()), MODEL, "row", to=tmp_path / "run.zarr", on_inference=stop
        )
    run = layertap.load(tmp_path / "run.zarr")
    check(run, [0, 1, 2])
    assert not run.complete
    assert run.provenance["observed"]["frames"] > 0


def test_full_disk_keeps_what_was_committed(
    recorded: Recorder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recorded(alone(runs=30))
    from layertap.store import journal

    real, count = os.write, iter(range(100))

    def full(fd: int, data: bytes) -> int:
        if next(count) >= 12:
            raise OSError(28, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(journal.os, "write", full)
    with pytest.raises(StoreError, match="No space left on device") as caught:
        layertap.listen(path, MODEL, "row", to=tmp_path / "run.zarr")
    monkeypatch.undo()
    assert "resume" in caught.value.hint
    run = layertap.load(tmp_path / "run.zarr")
    assert 0 < run.samples < 30
    check(run, list(range(run.samples)))


def test_a_fifo(recorded: Recorder, tmp_path: Path) -> None:
    stream = recorded(alone()).read_bytes()
    os.mkfifo(tmp_path / "fifo")
    writer = threading.Thread(target=(tmp_path / "fifo").write_bytes, args=[stream])
    writer.start()
    run = layertap.listen(tmp_path / "fifo", MODEL, "scalar", samples=5, timeout=30)
    writer.join(10)
    check(run, [0, 1, 2, 3, 4])


REFUSED = {
    "no end and no place": ({"samples": None}, PlanError, "memory would fill up"),
    "no samples": ({"samples": 0}, PlanError, "0 samples"),
    "a weight": ({"taps": "one"}, PlanError, "is a weight"),
    "no such tap": ({"taps": "conv"}, NoSuchTap, "conv"),
    "every nothing": ({"every": 0}, SourceError, "every"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_before_anything_is_opened(what: str, tmp_path: Path) -> None:
    options, error, said = REFUSED[what]
    with pytest.raises(error, match=said) as caught:
        layertap.listen(tmp_path / "absent", MODEL, **{"samples": 1, **options})
    assert caught.value.hint


def test_a_tap_that_is_not_sent(recorded: Recorder) -> None:
    with pytest.raises(Untappable, match="does not send it") as caught:
        layertap.listen(recorded(alone(taps=[2])), MODEL, "cast/int32", samples=1)
    assert "layertap firmware" in caught.value.hint


def test_another_model_and_no_model(recorded: Recorder, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="another model"):
        layertap.listen(recorded(alone()), known_model().data, samples=1)
    with pytest.raises(CorruptModel):
        layertap.listen(recorded(alone()), b"not a model", samples=1)


def test_streams_that_are_none_of_layertap(tmp_path: Path) -> None:
    path = tmp_path / "log"
    cases: dict[bytes, tuple[type[LayertapError], str]] = {
        b"": (RuntimeFailure, "ended before a whole inference"),
        b"hello from a board\r\n" * 50: (WireError, "text came, and no frame"),
        os.urandom(9000): (WireError, "baud rate"),
        to_frame(bytes([1, 0, 9, 0])): (WireError, "wire version 9"),
    }
    for stream, (error, said) in cases.items():
        path.write_bytes(stream)
        with pytest.raises(error, match=said) as caught:
            layertap.listen(path, MODEL, samples=1)
        assert caught.value.hint


def test_a_program_that_fails_leaves_its_status() -> None:
    with pytest.raises(RuntimeFailure, match="exit status 4; oops"):
        layertap.listen("exec:sh -c 'echo hello; echo oops >&2; exit 4'", MODEL, samples=1)


def test_a_board_in_a_reboot_loop(board: testboard.Board) -> None:
    orders = alone(faults=[Fault("reset", 6, 5, every=5)], runs=0)
    port = "exec:" + shlex.join(board.command(MODEL, orders))
    with pytest.raises(WireError, match=r"has started \d+ times"):
        layertap.listen(port, MODEL, samples=1)


@pytest.mark.parametrize("timeout", [30, None])
def test_noise_without_end_is_no_board(
    timeout: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layertap.runtimes.device.listening._FIRST_LOOK", 0.4)
    port = "exec:cat /dev/urandom"
    with pytest.raises(WireError, match="baud rate"):
        layertap.listen(port, MODEL, samples=1, timeout=timeout)


def test_a_board_that_waits_for_inputs_is_told_of(
    board: testboard.Board, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("layertap.runtimes.device.listening._FIRST_LOOK", 0.4)
    port = "exec:" + shlex.join(board.command(MODEL))
    with (
        caplog.at_level("INFO", logger="layertap.device.link"),
        pytest.raises(RuntimeFailure, match="has not answered"),
    ):
        layertap.listen(port, MODEL, samples=1, timeout=2.5)
    assert [m for m in caplog.messages if "layertap capture" in m] == [
        "the board takes inputs and may wait for them: layertap capture"
    ]


def test_a_silent_board_is_given_up_where_that_is_asked_for(board: testboard.Board) -> None:
    orders = alone(faults=[Fault("hang", 60)], runs=0, pause=50)
    port = "exec:" + shlex.join(board.command(MODEL, orders))
    with pytest.raises(RuntimeFailure, match="not answered for 2 s"):
        layertap.listen(port, MODEL, "row", samples=99, timeout=2)
