import pytest

from pandallm.evaluate.choices import NO_TOKENS, best, decide, near_tie, normalised


def test_every_way_of_normalising_by_hand() -> None:
    scores, options, alone = [-6.0, -4.0, -3.5], ["一二三四", "ab", "湖"], [-9.0, -1.0, -3.0]
    ways = normalised(scores, options, alone)
    assert ways["characters"] == [-1.5, -2.0, -3.5]
    assert ways["bytes"] == pytest.approx([-0.5, -2.0, -3.5 / 3])
    assert ways["unconditional"] == [3.0, -3.0, -0.5]
    found = decide(scores, alone, options, "characters")
    assert found["choices"] == {"sum": 2, "characters": 0, "bytes": 0, "unconditional": 0}
    assert found["choice"] == 0
    assert decide(scores, None, options, "sum")["choices"] == {"sum": 2, "characters": 0, "bytes": 0}


def test_letters_are_compared_by_their_sums_whatever_is_set() -> None:
    assert decide([-2.0, -1.0], None, None, "characters") == {"choice": 1, "choices": None, "near_tie": False}


def test_ties_go_to_the_first_and_near_ones_are_flagged() -> None:
    assert best([-1.0, -1.0, -2.0]) == 0
    assert near_tie([-1.0, -5.0, -1.0009])
    assert not near_tie([-1.0, -1.0011])
    assert decide([-4.0, -2.0005], None, ["ab", "a"], "characters")["near_tie"] is True
    assert decide([-4.0, -2.0005], None, ["ab", "a"], "sum")["near_tie"] is False
    assert decide([-1.0, 0.0], None, ["", "a"], "bytes")["choice"] == 1


def test_an_empty_option_is_never_chosen() -> None:
    found = decide([-9.0, NO_TOKENS], [-2.0, NO_TOKENS], ["甲", ""], "unconditional")
    assert set(found["choices"].values()) == {0}
