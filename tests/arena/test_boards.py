from __future__ import annotations

from pathlib import Path

import pytest

from layertap.arena.boards import TARGETS, board_names, load_board
from layertap.errors import LayertapError

GOOD = """
name = "Mine"
target = "cortex-m"
code = "90KiB"

[place]
model = "flash"
arena = "ram"

[memory.flash]
kind = "flash"
bytes = "512KiB"
reserved = 4096

[memory.ram]
kind = "ram"
bytes = 131072
external = true
note = "slow"
"""


@pytest.fixture
def write(tmp_path: Path):
    def write_board(text: str) -> Path:
        path = tmp_path / "board.toml"
        path.write_text(text)
        return path

    return write_board


def test_there_are_at_least_a_dozen_boards_each_with_its_datasheet() -> None:
    names = board_names()
    assert len(names) >= 12
    for name in names:
        board = load_board(name)
        assert len(board.source) > 30, name
        assert board.chip, name
        assert board.target in TARGETS[1:], name
        assert board[board.arena].kind == "ram", name
        assert all(region.usable > 0 for region in board.regions), name


@pytest.mark.parametrize(
    ("name", "flash", "ram"),
    [
        ("arduino-nano-33-ble-sense", (1024 - 64) << 10, 256 << 10),
        ("sparkfun-edge", (1024 - 48) << 10, 384 << 10),
        ("raspberry-pi-pico", 2 << 20, 256 << 10),
        ("b-l475e-iot01a", 1 << 20, 96 << 10),
    ],
)
def test_sizes_are_those_of_the_datasheets(name: str, flash: int, ram: int) -> None:
    board = load_board(name.upper())
    assert (board[board.model].usable, board[board.arena].usable) == (flash, ram)


def test_the_banks_of_a_chip_add_up_to_what_the_datasheet_says() -> None:
    def ram(name: str) -> int:
        regions = load_board(name).regions
        return sum(r.bytes for r in regions if r.kind == "ram" and not r.external)

    assert ram("raspberry-pi-pico") == 264 << 10
    assert ram("raspberry-pi-pico-2") == 520 << 10
    assert ram("stm32f746g-disco") == 320 << 10
    assert ram("lpcxpresso55s69") == 320 << 10
    assert ram("b-l475e-iot01a") == 128 << 10
    assert ram("frdm-k66f") == 256 << 10
    assert ram("teensy-4-1") == 1 << 20


def test_a_file_describes_a_board(write) -> None:
    board = load_board(write(GOOD))
    assert (board.name, board.code, board.program) == ("Mine", 90 << 10, "flash")
    assert board["flash"].usable == (512 << 10) - 4096
    assert (board["ram"].bytes, board["ram"].external, board["ram"].note) == (131072, True, "slow")


def test_a_k_of_memory_is_1024_bytes(write) -> None:
    board = load_board(write(GOOD.replace("512KiB", "512K").replace("131072", '"128 KB"')))
    assert (board["flash"].bytes, board["ram"].bytes) == (512 << 10, 128 << 10)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (('name = "Mine"', ""), "name is missing"),
        (('name = "Mine"', "name = 3"), "name is not a text"),
        (('"cortex-m"', '"avr"'), "target is 'avr', not one of host, cortex-m, ilp32"),
        (('"cortex-m"', '["cortex-m"]'), "target is not a text"),
        (('code = "90KiB"', "code = -1"), "code is -1, which is no size of a memory"),
        (('code = "90KiB"', 'code = "9e9"'), "code is '9e9'; write bytes"),
        (('code = "90KiB"', "code = true"), "code is True; write bytes"),
        (('code = "90KiB"', "code = nan"), "code is nan; write bytes"),
        (('code = "90KiB"', "colour = 1"), "colour is no key; there is chip, code"),
        (('arena = "ram"', 'arena = "sram"'), "place.arena is 'sram'; there is flash, ram"),
        (('arena = "ram"', ""), "place.arena is missing"),
        (('arena = "ram"', 'arena = "ram"\nstack = "ram"'), "place.stack is no key"),
        (('kind = "ram"', 'kind = "rom"'), "memory.ram.kind is 'rom', not flash or ram"),
        (("bytes = 131072", "bytes = -131072"), "memory.ram.bytes is -131,072, which is no size"),
        (("bytes = 131072", "bytes = 1.5"), "memory.ram.bytes is 1.5; write bytes"),
        (("bytes = 131072", ""), "memory.ram.bytes is missing; write bytes"),
        (("bytes = 131072", f"bytes = {1 << 60}"), "which is no size of a memory"),
        (("reserved = 4096", "reserved = 999999999"), "more than the 524,288 bytes there are"),
        (("external = true", 'external = "yes"'), "external is 'yes', not true or false"),
        (("[memory.ram]", "[memory.ram]\nspeed = 3"), "memory.ram.speed is no key"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_in_a_line(write, change, told: str) -> None:
    text = GOOD.replace(*change)
    assert text != GOOD
    with pytest.raises(LayertapError) as caught:
        load_board(write(text))
    assert told in caught.value.message
    assert "\n" not in caught.value.message


def test_a_memory_that_is_no_table(write) -> None:
    text = GOOD[: GOOD.index("[memory.flash]")] + "[memory]\nflash = 3\n"
    with pytest.raises(LayertapError, match=r"it has no table \[memory.flash\]"):
        load_board(write(text))


def test_files_that_are_no_boards(write, tmp_path: Path) -> None:
    with pytest.raises(LayertapError, match="it has no table"):
        load_board(write(""))
    with pytest.raises(LayertapError, match="it is no TOML"):
        load_board(write("= 3"))
    with pytest.raises(LayertapError, match="it is no TOML"):
        load_board(write("a = " + "[" * 20_000))
    with pytest.raises(LayertapError, match="No such file"):
        load_board(tmp_path / "none.toml")
    (tmp_path / "odd.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(LayertapError, match="not UTF-8"):
        load_board(tmp_path / "odd.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(LayertapError, match="Is a directory"):
        load_board(tmp_path / "folder.toml")


def test_a_name_that_is_not_known_gets_near_names() -> None:
    with pytest.raises(LayertapError) as caught:
        load_board("arduino-nano-33")
    assert "arduino-nano-33-ble-sense" in caught.value.hint
