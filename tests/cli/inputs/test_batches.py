"""What the user's own code yields."""

from __future__ import annotations

import pytest

from layertap.cli.inputs.batches import UserBatches
from layertap.core.feeds import InputSpec, make_feeds
from layertap.errors import FeedError


class Counted:
    samples = 5

    def __iter__(self):
        yield [[1.0], [2.0], [3.0]]
        yield [[4.0], [5.0]]


def test_what_it_knows_of_its_length_is_known():
    inputs = (InputSpec("x", "float32", (None, 1)),)
    counted = make_feeds(UserBatches(Counted(), "m:f"), inputs)
    assert (counted.samples, counted.batches) == (5, None)
    listed = make_feeds(UserBatches(list(Counted()), "m:f"), inputs)
    assert (listed.samples, listed.batches) == (None, 2)
    assert [samples for _, samples in counted] == [3, 2]


def test_a_failure_says_in_which_batch():
    def failing():
        yield [1.0]
        raise KeyError("gone")

    with pytest.raises(FeedError, match="m:f failed in batch 2: KeyError"):
        list(UserBatches(failing(), "m:f"))
