import pytest

from pandallm.evaluate.preferences import rank_outcomes, win_rates


def test_a_hand_worked_pair() -> None:
    """Six wins, one tie, one loss: rate 6.5/8; sign test 2 * (1 + 7) / 2^7; flips of 7 units: the same."""
    scores = {f"p{i}": s for i, s in enumerate([1, 1, 1, 1, 1, 1, 0.5, 0])}
    (row,) = win_rates({("a", "b"): scores})
    assert (row["a_wins"], row["ties"], row["b_wins"], row["prompts"]) == (6, 1, 1, 8)
    assert row["win_rate"] == pytest.approx(6.5 / 8)
    assert row["p_sign"] == pytest.approx(2 * 8 / 128)
    assert row["p"] == pytest.approx(2 * 8 / 128)
    # variance 8/7 * (6 * .1875² + .3125² + .8125²) / 64 = .017299; t(7) = 2.3646
    assert row["low"] == pytest.approx(0.8125 - 2.3646 * 0.017299**0.5, abs=1e-4)
    assert row["high"] == 1.0


def test_holm_goes_over_the_pairs() -> None:
    clear = {f"p{i}": 1.0 for i in range(10)}
    rows = win_rates(
        {("a", "b"): clear, ("a", "c"): {f"p{i}": i % 2 for i in range(10)}, ("b", "c"): {}}, adjust="p_sign"
    )
    assert [(r["a"], r["b"]) for r in rows] == [("a", "b"), ("a", "c")]
    assert rows[0]["p_holm"] == pytest.approx(2 * 2 / 1024)
    assert rows[1]["p_holm"] == 1.0
    assert rows[0]["low"] < 1.0  # Wilson: ten prompts do not prove that b never wins


def test_ranks_are_read_in_the_order_shown_and_readers_averaged() -> None:
    order = {"p": ["b", "a", "c"], "q": ["a", "b", "c"]}
    ballots = [{"p": [1, 2, 2], "q": [1, 2, 3]}, {"p": [3, 1, 2]}]
    found = rank_outcomes(ballots, order, ["a", "b", "c"])
    assert found["a", "b"] == {"p": 0.5, "q": 1.0}  # first reader prefers b on p, second a
    assert found["a", "c"] == {"p": 0.75, "q": 1.0}
    assert found["b", "c"] == {"p": 0.5, "q": 1.0}
