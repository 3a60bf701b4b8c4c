"""Rows: filled as the packing says, read as the budget says."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pandallm.data import rows as rows_file
from pandallm.data.rows import best_fit_decreasing, pack_rows, row_order


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=60), st.integers(50, 80))
def test_best_fit_never_overfills_and_wastes_less_than_half(lengths: list[int], room: int) -> None:
    rows = best_fit_decreasing(np.array(lengths, np.int64), room)
    used = np.bincount(rows, lengths) if lengths else np.zeros(0)
    assert (used <= room).all()
    assert (used > 0).all()
    assert len(used) <= 2 * sum(lengths) / room + 1


def test_concatenate_fills_rows() -> None:
    lengths = np.array([7, 9, 30, 4, 1], np.int64)
    segments = pack_rows(lengths, np.ones(5, np.bool_), 10, "concatenate", 0)
    assert np.bincount(segments.row, segments.length).tolist() == [10, 10, 10, 10, 10, 1]
    assert np.bincount(segments.entry, segments.length).tolist() == lengths.tolist()


@pytest.mark.parametrize("budget", [{"epochs": 3}, {"tokens": 1000}, {"steps": 7}])
def test_every_pass_is_a_permutation(budget: dict[str, Any]) -> None:
    order = row_order(np.full(10, 13), 4, 5, **budget)
    for start in range(0, len(order) - 9, 10):
        assert sorted(order[start : start + 10].tolist()) == list(range(10))


def test_documents_are_counted_where_they_begin() -> None:
    order = row_order(np.full(4, 100), 1, 0, documents=5, row_examples=np.array([3, 0, 2, 1]))
    begun = np.array([3, 0, 2, 1])[order]
    assert begun[:-1].sum() < 5 <= begun.sum()


def test_windows_fill_and_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_file, "WINDOW", 16)
    lengths = np.random.default_rng(0).integers(1, 90, 200)
    segments = pack_rows(lengths, np.ones(200, np.bool_), 40, "best_fit", 5)
    assert np.bincount(segments.entry, segments.length).tolist() == lengths.tolist()
    used = np.bincount(segments.row, segments.length)
    assert used.max() <= 40
    assert used.min() > 0
    assert (np.diff(segments.row) >= 0).all()
    whole = segments.begin == 0
    assert sorted(segments.entry[whole].tolist()) == list(range(200))
