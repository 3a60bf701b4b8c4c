"""Rows into micro-batches."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pandallm.data.packs import PackedRow
from pandallm.train.batch import group_rows, micro_batch, padded_batch, split_examples


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 100), min_size=1, max_size=30), st.integers(1, 150))
def test_groups_hold_every_row_once_within_the_limit(lengths: list[int], limit: int) -> None:
    groups = group_rows(lengths, limit)
    assert [r for g in groups for r in g] == list(range(len(lengths)))
    for group in groups:
        assert group
        assert sum(lengths[r] for r in group) <= limit or len(group) == 1


def test_by_hand() -> None:
    """Two rows; the second goes on with example 1, whose part is an example of its own."""
    first = PackedRow(np.array([10, 11, 12, 13, 14], np.uint16), np.array([1, 1, 1, 0, 1], np.uint8), np.array([0, 0, 0, 1, 1], np.int32), np.array([0, 0, 0, 1, 1], np.uint8))  # fmt: skip
    second = PackedRow(np.array([15, 16], np.uint16), np.array([1, 1], np.uint8), np.array([1, 1], np.int32), np.array([1, 1], np.uint8))  # fmt: skip
    batch = micro_batch([first, second], sources=3)
    assert batch.input_ids_1N.tolist() == [[10, 11, 12, 13, 14, 15, 16]]
    assert batch.layout.position_ids_1N.tolist() == [[0, 1, 2, 0, 1, 0, 1]]
    assert batch.targets_M.tolist() == [11, 12, 14, 16]  # never the first of an example
    assert batch.predictors_M.tolist() == [0, 1, 3, 5]
    assert batch.source_ids_M.tolist() == [0, 0, 1, 1]
    assert batch.trained_by_source.tolist() == [2, 2, 0]
    assert (batch.tokens, batch.trained_tokens, batch.example_ids) == (7, 4, (0, 1, 1))
    assert split_examples(first.example_ids) == [slice(0, 3), slice(3, 5)]


def test_static_shapes_add_examples_that_nothing_reads() -> None:
    batch = micro_batch(
        [
            PackedRow(
                np.arange(5, 12).astype(np.uint16),
                np.ones(7, np.uint8),
                np.array([0, 0, 0, 1, 1, 1, 1], np.int32),
                np.zeros(7, np.uint8),
            )
        ],
        sources=1,
    )
    padded = padded_batch(batch, multiple=16, longest=5, slots=6)
    assert padded is not None
    assert padded.input_ids_1N.tolist() == [[5, 6, 7, 8, 9, 10, 11] + [0] * 9]
    assert padded.layout.starts_E1.tolist() == [0, 3, 7, 12, 16, 16, 16]
    assert padded.layout.starts_E1.dtype == batch.layout.starts_E1.dtype
    assert padded.layout.position_ids_1N.tolist() == [[0, 1, 2, 0, 1, 2, 3, 0, 1, 2, 3, 4, 0, 1, 2, 3]]
    assert padded.layout.longest == 5
    assert padded.predictors_M is batch.predictors_M
    assert padded_batch(batch, multiple=16, longest=5, slots=3) is None  # two examples, two fillers
    whole = padded_batch(batch, multiple=7, longest=7, slots=4)
    assert whole is not None
    assert whole.layout.starts_E1.tolist() == [0, 3, 7, 7, 7]
    assert torch.equal(whole.input_ids_1N, batch.input_ids_1N)
