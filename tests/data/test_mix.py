"""Mixing: amounts and copies worked by hand."""

import numpy as np

from pandallm.data.mix import example_copies, source_amounts, unmet_shares


def test_amounts_by_hand() -> None:
    unique, shares, caps = np.array([100, 1000]), np.array([0.5, 0.5]), np.array([2.0, 2.0])
    assert source_amounts(unique, shares, caps, 300, fill=True).tolist() == [150, 150]
    assert source_amounts(unique, shares, caps, 1000, fill=False).tolist() == [200, 500]
    assert source_amounts(unique, shares, caps, 1000, fill=True).tolist() == [200, 800]
    assert source_amounts(unique, shares, caps, 9000, fill=True).tolist() == [200, 2000]


def test_unmet_shares_by_hand() -> None:
    unique, shares, caps = np.array([100, 1000]), np.array([0.5, 0.5]), np.array([2.0, 2.0])
    amounts = source_amounts(unique, shares, caps, 1000, fill=True)
    assert unmet_shares(["small", "big"], unique, shares, caps, amounts, 1000) == [
        "Source small is to be 50.0% of the tokens (500), but 100 tokens at most 2 times give 200, 20.0%; raise its max_epochs to 5, "
        "lower its share, or take a smaller budget."
    ]
    met = source_amounts(unique, shares, caps, 300, fill=True)
    assert unmet_shares(["small", "big"], unique, shares, caps, met, 300) == []


def test_copies_by_hand() -> None:
    lengths, sources = np.array([10, 10, 0, 5, 5]), np.array([0, 0, 0, 1, 1])
    copies = example_copies(lengths, sources, np.array([50.0, 5.0]), seed=3)
    assert sorted(copies[:2].tolist()) == [2, 3]
    assert copies[2] == 0, "what fits into no row is not read"
    assert sorted(copies[3:].tolist()) == [0, 1]
