import pytest

from pandallm.pipeline.show import between, interval, print_scores


def test_intervals_are_shown_and_missing_ones_told() -> None:
    assert interval({"low": 0.251, "high": 0.5}) == "25.1 - 50.0"
    assert between({"low": None, "high": None}, ".3f") == "none"


def test_everything_an_evaluation_has_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    where = {"model": "m", "task": "t", "group": "", "prompt": "p", "method": "likelihood", "shots": 0, "chat": False}
    number = {"accuracy": 0.5, "low": None, "high": None, "n": 8, "clusters": 4, "chance": 0.25, "constant": 0.5}
    cell = {**where, **number, "order": 0, "unparsed": 0.125, "near_ties": 1, "truncated": 2, "accuracy_2023": None}
    generated = {**cell, "method": "generation", "chat": True, "accuracy_2023": 0.375}
    effect = {**where, "difference": -0.125, "low": None, "high": None, "p": 0.25}
    scores = {
        "confidence": 0.95,
        "table": [cell, {**cell, "order": 1, "accuracy": 0.987}, generated],
        "prompts": [{**where, **number, "prompts": 2, "se_sampling": 0.1, "spread": 0.2, "min": 0.3, "max": 0.7}],
        "normalizations": [{**where, "n": 8, "sum": 0.5, "characters": 0.61, "bytes": 0.5, "unconditional": None}],
        "chat_effect": [effect],
        "shots_effect": [{**effect, "from": 0, "to": 5}],
        "orders": [{**where, **number, "orders": 2, "consistent": 0.75, "by_position": [0.9, 0.1]}],
        "letters": [{**where, "chosen": [1.0, 0.0], "answers": [0.4, 0.6]}],
        "audit": [
            {**where, "n": 8, "agreement": 0.8, "low": 0.6, "high": 0.9, "unparsed": 0.1, "parsed_agreement": None}
        ],
    }
    print_scores(scores)
    out = capsys.readouterr().out
    assert "98.7" not in out  # rotated options have their own table
    for told in ("p chat", "37.5", "-12.5", "0 to 5 shots", "61.0", "90 10", "100 0", "75.0", "30.0 - 70.0", "80.0"):
        assert told in out
    assert "3 near ties" in out
    assert "6 prompts were longer" in out
