from __future__ import annotations

from dataclasses import replace

from layertap.arena.lifetimes import Step
from layertap.arena.sites import native, operators, steps


def test_steps_and_operators(chain) -> None:
    assert operators(chain) == {(0, 0): "CONV_2D", (0, 1): "CONV_2D", (0, 2): "CONV_2D"}
    assert steps(chain) == {0: "input", 1: "0 CONV_2D", 2: "1 CONV_2D", 3: "2 CONV_2D"}
    assert native(chain["b"]) == "#1"


def test_steps_in_other_subgraphs(chain) -> None:
    inner = replace(chain, steps=(*chain.steps, Step(4, 1, None), Step(5, 1, 0)))
    assert steps(inner)[4] == "enter s1"
    assert steps(inner)[5] == "s1/0"
    assert native(replace(chain["b"], subgraph=1)) == "s1/#1"
    assert native(replace(chain["b"], index=None)) == ""
