from pandallm.pipeline.show import between, interval


def test_intervals_are_shown_and_missing_ones_told() -> None:
    assert interval({"low": 0.251, "high": 0.5}) == "25.1 - 50.0"
    assert between({"low": None, "high": None}, ".3f") == "none"
