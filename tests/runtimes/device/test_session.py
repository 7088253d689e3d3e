"""The session: values, faults of every kind, state, forms, refusals; on boards of this machine."""

from __future__ import annotations

import logging
import os
import pty
import shlex
import socket
import subprocess
import threading
import time
import tty
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import boardmodel
import numpy as np
import pytest
import testboard
from boardtaps import assert_same, expected
from testboard import Fault, Orders

import layertap
from layertap.core.dtypes import Array
from layertap.core.graph import COMPUTED
from layertap.errors import (
    FeedError,
    LayertapError,
    NoSuchTap,
    PlanError,
    RunError,
    RuntimeFailure,
    SourceError,
    Untappable,
    WireError,
)
from layertap.firmware.wire.messages import Answer, Hello, pack
from layertap.runtimes.worker.axes import NOT_PROVEN
from layertap.testing.tflite import OperatorSpec, SubgraphSpec, TensorSpec, write_tflite
from layertap.testing.tflite_cases import known_model

pytestmark = pytest.mark.slow  # starts a board per test

Opener = Callable[..., layertap.Model]
FEED = boardmodel.FEED


def feeds(count: int) -> dict[str, Array]:
    """Several samples, each other."""
    x = np.stack([FEED["x"] * (i + 1) % 5 for i in range(count)])
    return {"x": x.astype(np.float32), "steps": np.arange(count, dtype=np.int32)[:, None] % 4}


def one(given: Mapping[str, Array], i: int) -> dict[str, Array]:
    return {name: value[i] for name, value in given.items()}


def check(run: layertap.Run, given: Mapping[str, Array], *, keeps_state: bool = False) -> None:
    """Every row of every tap is what NumPy computes."""
    memory = None
    samples = len(given["x"])
    assert run.samples == samples
    for i in range(samples):
        values, state = expected(run.taps, one(given, i), memory)
        memory = state if keeps_state else None
        for name, capture in run.items():
            assert_same(capture[i : i + 1].raw[0], values[name], f"{name}, sample {i}")


def everything(model: layertap.Model) -> list[str]:
    return [tap.name for tap in model.graph if tap.kind != "weight"]


def test_every_tap_of_every_kind(on_board: Opener) -> None:
    with on_board() as model:
        assert [tap.name for tap in model.graph if tap.untappable] == []
        given = feeds(3)
        check(model.capture(given, everything(model)), given)
        run = model.capture(given, "cast/int4 | s2/body/doubled", keep_inputs=True)
        check(run, given)
        assert run["s2/body/doubled"].tap.shape == (None, 2, 3, 4)
        assert [len(row) for row in run["s2/body/doubled"].raw] == [0, 1, 2]


def test_names_are_those_of_the_micro_interpreter() -> None:
    with (
        layertap.open(boardmodel.MODEL, "device") as device,
        layertap.open(boardmodel.MODEL, "tflm") as tflm,
    ):
        assert [(t.name, t.native) for t in device.graph] == [
            (t.name, t.native) for t in tflm.graph
        ]


def test_provenance_tells_model_board_and_link(on_board: Opener) -> None:
    with on_board(orders=Orders(name="my board", arena=9000, used=8000)) as model:
        provenance = model.capture(FEED, "scalar").provenance
    assert provenance["runtime"] == "device"
    assert provenance["board"] == {"name": "my board", "arena": 9000, "arena_used": 8000}
    observed = provenance["observed"]
    assert observed["frames"] == 2
    assert observed["payload"] == 4
    assert (observed["lost"], observed["damaged"], observed["retried"]) == (0, 0, 0)


FAULTS = {
    "a byte lost": (Fault("drop-byte", 6, 30), "damaged"),
    "a bit flipped": (Fault("flip-bit", 7, 9), "damaged"),
    "a frame lost": (Fault("drop-frame", 8), "lost"),
    "frames swapped": (Fault("swap", 9), "retried"),
    "a reset": (Fault("reset", 10, 11), "starts"),
    "a reset between frames": (Fault("reset", 11, 0), "starts"),
    "the end lost": (Fault("drop-frame", 27), "lost"),
    "the command lost": (Fault("deaf", byte=60), "retried"),
    "garbage at the start": (Fault("garbage", byte=3000), ""),
    "text in frames": (Fault("text", 5, 3, every=1), ""),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_was_damaged_is_run_again(on_board: Opener, fault: str) -> None:
    order, counted = FAULTS[fault]
    if fault == "text in frames":
        order = Fault("text", 5, 0, every=1)  # in front of each frame
    with on_board(orders=Orders(faults=[order])) as model:
        given = feeds(2)
        run = model.capture(given, "cast/* | s2/* | memory | state")
        check(run, given)
        observed = run.provenance["observed"]
        assert observed["retried"] == (counted != "")
        assert not counted or observed[counted] >= 1


def test_losses_again_and_again_end_in_an_error_and_nothing_half(on_board: Opener) -> None:
    with on_board(orders=Orders(faults=[Fault("drop-frame", 9, every=3)])) as model:
        with pytest.raises(RuntimeFailure, match="did not come whole in 4 attempts") as caught:
            model.capture(FEED, "cast/*")
        assert "retries=" in caught.value.hint
        session = model.session
        emitted: list[object] = []
        prepared = session.prepare([tap for tap in model.graph if tap.name.startswith("cast/")])
        with pytest.raises(RuntimeFailure):
            prepared(FEED, lambda tap, value: emitted.append(value))
        assert emitted == []


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layertap.runtimes.device.link._ASK_AGAIN", 0.2)
    monkeypatch.setattr("layertap.runtimes.device.inference._ASK_AFTER", 0.2)


def test_a_board_that_falls_silent_is_given_up_with_what_it_printed_last(on_board: Opener) -> None:
    orders = Orders(chatter=True, faults=[Fault("hang", 12)])
    with on_board(orders=orders, timeout=2) as model:
        with pytest.raises(RuntimeFailure, match="has not answered for 2 s.*booting") as caught:
            model.capture(FEED, "cast/*")
        assert "timeout=" in caught.value.hint


def test_a_board_that_never_speaks(on_board: Opener) -> None:
    with pytest.raises(RuntimeFailure, match="is silent: nothing of layertap"):
        on_board(orders=Orders(faults=[Fault("hang", 0)]), timeout=0.5)


def test_a_board_in_a_reboot_loop(on_board: Opener) -> None:
    orders = Orders(chatter=True, faults=[Fault("reset", 6, 5, every=5)])
    with on_board(orders=orders) as model:
        with pytest.raises(WireError, match=r"has started \d times in .* s") as caught:
            model.capture(FEED, "cast/*")
        assert "inference" in caught.value.message
        assert "watchdog" in caught.value.hint


def test_a_console_that_translates_line_ends(on_board: Opener) -> None:
    with (
        pytest.raises(WireError, match=r"\\r\\n"),
        on_board(orders=Orders(faults=[Fault("crlf")]), timeout=2) as model,
    ):
        model.capture(feeds(4), "*")


def test_a_wrong_baud_rate_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(np.random.default_rng(0).bytes(5000))
    port = "exec:" + shlex.join(["tail", "-c", "+1", "-f", str(tmp_path / "noise")])
    with pytest.raises(WireError, match="baud rate") as caught:
        layertap.open(boardmodel.MODEL, "device", port=port, timeout=2)
    assert "115200" in caught.value.hint


def test_a_recording_of_noise_is_recognised_at_its_end(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(os.urandom(5000))
    with pytest.raises(WireError, match="baud rate"):
        layertap.open(boardmodel.MODEL, "device", port=tmp_path / "log")


def test_a_program_that_ends_in_the_middle(on_board: Opener) -> None:
    with on_board(orders=Orders(faults=[Fault("leave", 9, 4)])) as model:
        with pytest.raises(RuntimeFailure, match="exit status 3; board: leaving with 3"):
            model.capture(FEED, "cast/*")
        # The program starts anew, and does so with each capture.
        run = model.capture(FEED, "scalar")
        assert run["scalar"].raw[0] == 3


def test_an_inference_that_fails_says_so(on_board: Opener) -> None:
    with on_board(orders=Orders(faults=[Fault("fail", 1)])) as model:
        with pytest.raises(RuntimeFailure, match="failed on the board with TfLiteStatus 1"):
            model.capture(feeds(3), "scalar")
        check(model.capture(feeds(1), "scalar"), feeds(1))


def test_a_board_with_another_model(board: testboard.Board) -> None:
    port = "exec:" + shlex.join(board.command(known_model().data, Orders(name="digits")))
    with pytest.raises(SourceError, match="another model: 'digits', ") as caught:
        layertap.open(boardmodel.MODEL, "device", port=port)
    assert f"{len(boardmodel.MODEL):,} bytes" in caught.value.message
    assert f"{len(known_model().data):,} bytes" in caught.value.message
    assert caught.value.message.count("CRC-32") == 2


def test_a_board_that_goes_one_way(on_board: Opener) -> None:
    with on_board(orders=Orders(able=6, pause=1)) as model:
        with pytest.raises(PlanError, match="takes no inputs") as caught:
            model.capture(FEED, "scalar")
        assert "layertap listen" in caught.value.hint


def test_a_board_whose_taps_are_fixed(on_board: Opener) -> None:
    with layertap.open(boardmodel.MODEL, "device") as model:
        bits = [model.graph["scalar"].index, model.graph["row"].index]
    with on_board(orders=Orders(able=1, taps=bits)) as model:
        check(model.capture(feeds(2), "row | scalar"), feeds(2))
        check(model.capture(feeds(2), "row"), feeds(2))
        with pytest.raises(Untappable, match="'cast/bool'.*are fixed"):
            model.capture(FEED, "row | cast/bool")
    with (
        on_board(orders=Orders(able=1, taps=bits), reduce="summary") as model,
        pytest.raises(PlanError, match="room for 0"),
    ):
        model.capture(FEED, "row")


def test_commands_fit_the_smallest_receiver(on_board: Opener) -> None:
    with on_board(orders=Orders(receive=32)) as model:
        check(model.capture(feeds(2), everything(model)), feeds(2))
    with pytest.raises(LayertapError), on_board(orders=Orders(receive=8), timeout=2) as model:
        model.capture(FEED, "row")


def test_state_is_reset_unless_kept(on_board: Opener) -> None:
    given = feeds(4)
    with on_board() as model:
        check(model.capture(given, "memory | state"), given)
    with on_board(keep_state=True) as model:
        check(model.capture(given, "memory | state"), given, keeps_state=True)
        check(model.capture(given, "memory | state"), given, keeps_state=True)
        assert model.session.provenance["keep_state"] is True


def test_what_a_board_repeats_now_and_then_is_no_loss(on_board: Opener) -> None:
    with on_board(keep_state=True) as model:
        given = feeds(40)
        run = model.capture(given, "memory | state")
        check(run, given, keeps_state=True)
        assert run.provenance["observed"]["retried"] == 0


@pytest.mark.parametrize("fault", [Fault("drop-frame", 10), Fault("reset", 10, 5)])
def test_kept_state_that_is_lost_cannot_be_had_again(on_board: Opener, fault: Fault) -> None:
    with (
        on_board(orders=Orders(faults=[fault]), keep_state=True) as model,
        pytest.raises(RuntimeFailure, match="variables held cannot be had again"),
    ):
        model.capture(feeds(9), "memory | state")


def test_inputs_that_did_not_arrive_do_not_cost_the_kept_state(on_board: Opener) -> None:
    orders = Orders(faults=[Fault("deaf", byte=700, every=1500)])
    with on_board(orders=orders, keep_state=True) as model:
        given = feeds(12)
        run = model.capture(given, "memory | state")
        check(run, given, keeps_state=True)
        assert run.provenance["observed"]["retried"] >= 1


def test_several_selections_share_a_board(on_board: Opener) -> None:
    with on_board() as model:
        graph = model.graph
        first, second = (model.session.prepare([graph[name]]) for name in ("row", "scalar"))
        for prepared, name in ((first, "row"), (second, "scalar"), (first, "row")):
            emitted = {}
            prepared(FEED, lambda tap, value, into=emitted: into.update({tap.name: value}))
            assert list(emitted) == [name]


def test_run_on_disk_goes_on_where_it_was_cut(on_board: Opener, tmp_path: Path) -> None:
    given = feeds(6)
    part = {name: value[:3] for name, value in given.items()}

    def broken() -> Iterator[Mapping[str, Array]]:
        yield part
        raise KeyboardInterrupt

    with on_board(orders=Orders(faults=[Fault("drop-frame", 9)])) as model:
        with pytest.raises(KeyboardInterrupt):
            model.capture(broken(), "cast/*", to=tmp_path / "run.zarr")
        assert layertap.load(tmp_path / "run.zarr").samples == 3
        run = model.capture(given, "cast/*", to=tmp_path / "run.zarr", resume=True)
    check(run, given)
    assert run.complete
    assert run.provenance["observed"]["lost"] == 1
    assert run.provenance["observed"]["frames"] > 6 * 16


def test_text_of_the_board_goes_to_the_log(
    on_board: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="layertap.device"):
        with on_board(orders=Orders(chatter=True)) as model:
            model.capture(feeds(2), "scalar")
        assert caplog.messages.count("booting") == 1
        assert caplog.messages.count("inference done") == 1  # that of the last one comes after


def test_without_a_port_taps_are_listed_and_weights_read() -> None:
    with layertap.open(boardmodel.MODEL, "device") as model:
        assert model.read("one").tolist() == [1]
        with pytest.raises(PlanError, match="no port") as caught:
            model.capture(FEED, "scalar")
        assert "/dev/" in caught.value.hint
    with pytest.raises(RunError, match="closed"):
        model.capture(FEED, "scalar")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"baud": 0}, "baud"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": "1"}, "timeout"),
        ({"retries": -1}, "retries"),
        ({"colour": 1}, "no such option"),
    ],
)
def test_options_that_mean_nothing(options: dict[str, object], what: str) -> None:
    with pytest.raises(SourceError, match=what) as caught:
        layertap.open(boardmodel.MODEL, "device", **options)
    assert caught.value.hint


def test_feeds_are_checked_before_they_are_sent(on_board: Opener) -> None:
    with on_board() as model, pytest.raises(FeedError, match="shape"):
        model.capture({**FEED, "x": np.zeros((2, 2), np.float32)}, "scalar")


# Forms: slices, summaries, histograms.


def quantized_model() -> tuple[bytes, Mapping[str, Array]]:
    """x (1, 6) float32 becomes int8 codes of scale 0.5 and zero point 3, then floats again."""
    tensors = [
        TensorSpec("x", (1, 6)),
        TensorSpec("codes", (1, 6), "int8", scales=[0.5], zero_points=[3]),
        TensorSpec("back", (1, 6)),
    ]
    operators = [OperatorSpec("QUANTIZE", [0], [1]), OperatorSpec("DEQUANTIZE", [1], [2])]
    x = np.array([[-1, 0, 0.5, 2, 3, 30]], np.float32)
    return write_tflite(SubgraphSpec(tensors, [0], [2], operators)), {"x": x}


def test_summaries_are_real_numbers(on_board: Opener) -> None:
    data, feed = quantized_model()
    with on_board(data, reduce="summary") as model:
        tap = model.graph["codes"]
        assert (tap.shape, tap.dtype, tap.quantization, tap.per) == (
            (1, 3),
            "float32",
            None,
            "sample",
        )
        run = model.capture(feed)
    wanted = [[-1, 30, np.float32(34.5 / 6)]]
    np.testing.assert_allclose(run["codes"].values, wanted, rtol=1e-6)
    np.testing.assert_allclose(run["back"].values, wanted, rtol=1e-6)
    assert run.provenance["forms"] == {"codes": "summary", "back": "summary"}


def test_histograms_count_between_real_limits(on_board: Opener) -> None:
    data, feed = quantized_model()
    with on_board(data, reduce={"codes": "histogram 4 -1 3"}) as model:
        run = model.capture(feed)
    assert run["codes"].raw.dtype == np.uint32
    np.testing.assert_array_equal(run["codes"].values, [[1, 2, 0, 3]])
    np.testing.assert_array_equal(run["back"].values, feed["x"])


def test_slices_keep_type_and_scale(on_board: Opener) -> None:
    data, feed = quantized_model()
    with on_board(data, slices={"codes": "2:5"}, reduce={"back": "summary"}) as model:
        run = model.capture(np.concatenate([feed["x"]] * 3))
        assert model.graph["codes"].shape == (1, 3)
    np.testing.assert_array_equal(run["codes"].values, [[0.5, 2, 3]] * 3)
    assert run["codes"].raw.dtype == np.int8
    assert run["back"].values.shape == (3, 3)


def test_forms_inside_loops_have_a_row_for_each_iteration(on_board: Opener) -> None:
    forms = {"slices": {"s2/body/doubled": "3:5"}, "reduce": {"s1/while/x": "summary"}}
    with on_board(**forms) as model:
        assert model.graph["s2/body/doubled"].shape == (None, 2)
        run = model.capture(FEED, ["s2/body/doubled", "s1/while/x"])
    flat = FEED["x"].ravel()
    doubled = [flat[3:5] * 2**i for i in (1, 2, 3)]
    np.testing.assert_array_equal(run["s2/body/doubled"].raw[0], doubled)
    summary = [[flat.min() * 2**i, flat.max() * 2**i, flat.mean() * 2**i] for i in range(4)]
    np.testing.assert_allclose(run["s1/while/x"].raw[0], summary, rtol=1e-6)


def test_one_form_for_all_leaves_what_cannot_be_sent_so_whole(on_board: Opener) -> None:
    with on_board(slices="2:7") as model:
        shapes = {tap.name: tap.shape for tap in model.graph if tap.kind != "weight"}
        assert (shapes["cast/bool"], shapes["cast/int4"], shapes["five"]) == ((5,), (2, 3, 4), (5,))
        values = model.capture(FEED, "cast/int32 | cast/int4 | scalar")
    assert values["cast/int32"].raw.tolist() == [FEED["x"].ravel()[2:7].astype(int).tolist()]
    assert values["scalar"].raw[0] == 3


def test_the_axis_of_samples_is_proven_by_a_further_run(on_board: Opener) -> None:
    """Of a file with a batch of 3: products of samples with one another are of the batch."""
    kernel = np.arange(8, dtype=np.float32).reshape(2, 4)
    shapes = {"x": (3, 4), "dense": (3, 2), "products": (3, 3)}
    tensors = [TensorSpec(name, shape) for name, shape in shapes.items()]
    tensors.append(TensorSpec("kernel", (2, 4), data=kernel))
    operators = [
        OperatorSpec("FULLY_CONNECTED", [0, 3, -1], [1]),
        OperatorSpec("FULLY_CONNECTED", [0, 0, -1], [2]),
    ]
    data = write_tflite(SubgraphSpec(tensors, [0], [1, 2], operators))
    x = np.random.default_rng(0).integers(-9, 9, (6, 4)).astype(np.float32)
    for keep_state in (False, True):
        with on_board(data, keep_state=keep_state) as model:
            run = model.capture(x, keep_inputs=True)
        np.testing.assert_array_equal(run["x"].raw, x)
        np.testing.assert_array_equal(run["dense"].raw, x @ kernel.T)
        np.testing.assert_array_equal(run["products"].raw, [x[:3] @ x[:3].T, x[3:] @ x[3:].T])
        evidence = run.provenance["sample_axis"]
        assert evidence["dense"] == "a further run, in another order"
        assert evidence["products"] == NOT_PROVEN
    with on_board() as model:
        assert model.capture(FEED, "row").provenance["sample_axis"]["row"] == "one sample"


def test_forms_of_a_batch_are_one_for_all_of_it(on_board: Opener) -> None:
    known = known_model()
    with on_board(known.data, reduce={"dense": "summary"}) as model:
        tap = model.graph["dense"]
        assert (tap.per, tap.shape) == ("batch", (3,))
        run = model.capture(known.feed)
    values = known.oracle["dense"]
    wanted = [[values.min(), values.max(), values.mean()]]
    np.testing.assert_allclose(run["dense"].values, wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "error", "what"),
    [
        ({"reduce": "mean"}, PlanError, "no reduction"),
        ({"reduce": "histogram 0 0 1"}, PlanError, "no reduction"),
        ({"reduce": "histogram 4 1 1"}, PlanError, "no reduction"),
        ({"reduce": "histogram 4 nan 1"}, PlanError, "no reduction"),
        ({"reduce": "histogram 4 x 1"}, PlanError, "no reduction"),
        ({"reduce": 3}, PlanError, "reduce is 3"),
        ({"slices": "5:5"}, PlanError, "no slice"),
        ({"slices": {"row": "0:25"}}, PlanError, "has 24 elements"),
        ({"slices": {"cast/int4": "0:2"}}, PlanError, "int4 is sent whole"),
        ({"reduce": {"cast/complex64": "summary"}}, PlanError, "complex"),
        ({"slices": {"row": "0:2"}, "reduce": {"row": "summary"}}, PlanError, "two forms"),
        ({"slices": {"nothing": "0:2"}}, NoSuchTap, "nothing"),
    ],
)
def test_forms_that_cannot_be(
    options: dict[str, object], error: type[LayertapError], what: str
) -> None:
    with pytest.raises(error, match=what) as caught:
        layertap.open(boardmodel.MODEL, "device", **options)
    assert caught.value.hint


def test_more_parts_than_the_board_has_room_for_come_in_passes(on_board: Opener) -> None:
    forms = {"reduce": "summary"}
    with on_board(orders=Orders(rules=3), **forms) as model:
        taps = ["row", "scalar", *(tap.name for tap in model.graph if tap.name.startswith("cast/"))]
        plan = model.plan(taps)
        in_part = [name for name in taps if name in model.session.device.forms]
        assert len(in_part) > 3
        assert len(plan.passes) == -(-len(in_part) // 3)
        run = model.capture(feeds(2), taps)
    with layertap.open(boardmodel.MODEL, "device") as whole:
        row = [whole.graph["row"]]
    values = [expected(row, one(feeds(2), i), None)[0]["row"] for i in range(2)]
    for found, value in zip(run["row"].values, values, strict=True):
        np.testing.assert_allclose(found, [value.min(), value.max(), value.mean()], rtol=1e-6)


def test_a_state_that_is_kept_allows_one_pass(on_board: Opener) -> None:
    forms = {"slices": {"cast/float*": "0:2", "cast/int32": "0:2"}}
    with on_board(orders=Orders(rules=3), keep_state=True, **forms) as model:
        with pytest.raises(PlanError, match="4 taps are to be sent in part.*room for 3") as caught:
            model.capture(FEED, "cast/*")
        assert "--rules 4" in caught.value.hint
        run = model.capture(FEED, "cast/float* | row")  # those that are read count
    assert run["cast/float16"].raw.shape == (1, 2)
    assert run["row"].raw.shape == (1, 1, 24)


# Transports, with a board behind them.


@pytest.fixture
def serial_board(board: testboard.Board) -> Iterator[str]:
    """A board behind a pseudo terminal; the path of its port."""
    near, far = pty.openpty()
    tty.setraw(near)
    tty.setraw(far)
    process = subprocess.Popen(board.command(boardmodel.MODEL), stdin=near, stdout=near)
    os.close(near)
    path = os.ttyname(far)
    yield path
    os.close(far)
    process.kill()
    process.wait()


def test_over_a_serial_port(serial_board: str) -> None:
    with layertap.open(boardmodel.MODEL, "device", port=serial_board) as model:
        given = feeds(2)
        check(model.capture(given, everything(model)), given)


def test_unplugged_in_the_middle_and_plugged_in_again(
    board: testboard.Board, serial_board: str
) -> None:
    with layertap.open(boardmodel.MODEL, "device", port=serial_board) as model:
        check(model.capture(feeds(1), "row"), feeds(1))
        model.session.board().link.transport.close()
        with pytest.raises(RuntimeFailure, match="broke|gone") as caught:
            model.capture(FEED, "row")
        assert caught.value.hint
        check(model.capture(feeds(1), "row"), feeds(1))


def test_over_tcp(board: testboard.Board) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                subprocess.run(
                    board.command(boardmodel.MODEL), stdin=connection, stdout=connection, timeout=60
                )

        thread = threading.Thread(target=serve)
        thread.start()
        port = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with layertap.open(boardmodel.MODEL, "device", port=port) as model:
            check(model.capture(feeds(3), everything(model)), feeds(3))
        thread.join(10)


def test_another_wire_version(tmp_path: Path) -> None:
    hello = Hello(0, 7, 256, 0, 0, 1, 1, 0, 0, 1, "new", b"\x01")
    content = bytearray(b"\x01\x00" + hello.fields())
    content[2] = 2
    from layertap.firmware.wire.frames import to_frame

    (tmp_path / "log").write_bytes(to_frame(bytes(content)))
    with pytest.raises(WireError, match="wire version 2") as caught:
        layertap.open(boardmodel.MODEL, "device", port=tmp_path / "log")
    assert "update layertap" in caught.value.hint


def test_a_board_that_cannot_run_says_why(tmp_path: Path) -> None:
    words = Answer(0, 0, 5, "the arena is too small by 120 bytes")
    (tmp_path / "log").write_bytes(pack(words, 0))
    with pytest.raises(RuntimeFailure, match="cannot run the model: the arena is too") as caught:
        layertap.open(boardmodel.MODEL, "device", port=tmp_path / "log")
    assert "layertap firmware" in caught.value.hint
    with pytest.raises(RuntimeFailure, match="cannot run the model: the arena is too"):
        layertap.listen(tmp_path / "log", boardmodel.MODEL, samples=1)


@pytest.mark.parametrize(
    ("lines", "lacks"),
    [
        ("Failed to resize buffer. Requested: 3072, available 1472, missing: 1600", "1,600"),
        (
            "Failed to allocate tail memory. Requested: 80, available 48, missing: 32\r\n"
            "Failed to allocate temp memory. Requested: 64, available 16, missing: 48",
            "48",
        ),
        ("Arena size is too small for all buffers. Needed 55296 but only 43216 was", "12,080"),
    ],
)
def test_how_many_bytes_the_arena_lacks_is_told(tmp_path: Path, lines: str, lacks: str) -> None:
    """As TensorFlow Lite Micro prints it, between the frames."""
    words = pack(Answer(0, 0, 5, "AllocateTensors() failed: the arena may be too small"), 0)
    (tmp_path / "log").write_bytes(f"{lines}\r\n".encode() + words)
    with pytest.raises(RuntimeFailure, match=f"too small; .* {lacks} bytes are missing") as caught:
        layertap.open(boardmodel.MODEL, "device", port=tmp_path / "log")
    assert f"at least {lacks} bytes more: layertap firmware --arena" in caught.value.hint


def test_a_file_cannot_be_driven(tmp_path: Path) -> None:
    import zlib

    hello = Hello(
        0, 7, 256, 0, zlib.crc32(boardmodel.MODEL), len(boardmodel.MODEL), 8, 0, 0, 1, "x", b"\x01"
    )
    (tmp_path / "log").write_bytes(pack(hello, 0))
    with (
        layertap.open(boardmodel.MODEL, "device", port=tmp_path / "log") as model,
        pytest.raises(PlanError, match="takes no inputs"),
    ):
        model.capture(FEED, "row")


def test_emulated_cortex_m3_both_ways_with_every_fault(emulated_board: testboard.Board) -> None:
    given = feeds(3)
    faults = [Fault("drop-byte", 9, 40), Fault("drop-frame", 90), Fault("garbage", byte=500)]
    command = emulated_board.command(boardmodel.MODEL, Orders(chatter=True, faults=faults))
    port = "exec:" + shlex.join(command)
    start = time.monotonic()
    with layertap.open(boardmodel.MODEL, "device", port=port, timeout=20) as model:
        run = model.capture(given, everything(model))
        check(run, given)
        assert {tap.dtype for tap in run.taps if tap.kind in COMPUTED} >= set(testboard.DTYPES)
    observed = run.provenance["observed"]
    assert observed["damaged"] >= 1
    assert observed["retried"] == 2
    assert time.monotonic() - start < 60


def test_emulated_cortex_m3_one_way(emulated_board: testboard.Board) -> None:
    orders = Orders(able=0, receive=0, chatter=True, faults=[Fault("drop-byte", 60, 9)])
    port = "exec:" + shlex.join(emulated_board.command(boardmodel.MODEL, orders))
    run = layertap.listen(port, boardmodel.MODEL, "cast/* | scalar", samples=5, timeout=20)
    x = ((np.arange(24)[None] + np.array([0, 2, 3, 4, 5])[:, None]) % 7 - 3).astype(np.float32)
    np.testing.assert_array_equal(run["cast/float32"].raw.reshape(5, 24), x)
    assert run["scalar"].raw.tolist() == [-3, -1, 0, 1, 2]
    assert run.provenance["observed"]["dropped"] == 1
