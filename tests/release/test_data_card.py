"""The data card says what ledgers, packs and contamination reports say; names cannot act in it."""

from typing import Any

from pandallm.release.data_card import contamination_lines, data_card, made_here, split_sources, token_lines

HOSTILE = "a|b <script>\n# x"


def amount(records: int) -> dict[str, int]:
    return {"records": records, "bytes": 10 * records}


def entry(read: int, kept: int, duplicate: int) -> dict[str, Any]:
    return {
        **amount(read),
        "kept": amount(kept),
        "held_out": amount(1),
        "quarantined": amount(0),
        "dropped": {"duplicate": amount(duplicate)},
    }


def test_the_funnel_has_a_column_for_every_reason() -> None:
    recipe = {
        "corpora": {
            "c": {
                "sources": {HOSTILE: {"adapter": "wiki", "files": ["a", "b"], "licence": "MIT"}},
                "clean": [{"kind": "length", "min_chars": 5}],
                "dedup": {"kind": "exact"},
                "decontaminate": {"against": ["c3-d"]},
            }
        }
    }
    card = data_card(HOSTILE, recipe, {"c": {"sources": {HOSTILE: entry(9, 5, 3)}, "total": entry(9, 5, 3)}}, {}, {})
    assert r"| a\|b &lt;script\> \# x | a, b, wiki |  | MIT | 9 | 5 | 1 | 0 | 3 | 90 | 50 |" in card
    assert "| total |  |  |  | 9 | 5 | 1 | 0 | 3 | 90 | 50 |" in card
    assert r"- cleaning: length (min\_chars 5)" in card
    assert "- compared with benchmarks: c3-d" in card
    assert "<script>" not in card
    assert "was not compared with any benchmark" in card


def test_wanted_shares_stand_beside_the_achieved() -> None:
    tokens = {
        "unique": 1000,
        "trained": 900,
        "masked": 100,
        "truncated": 0,
        "over_budget": 0,
        "exposures": 2000,
        "passes": 2.0,
        "share": 0.25,
    }
    ledger = {"sources": {"s": tokens | {"wanted_share": 0.3}}, "total": tokens | {"share": 1.0}}
    lines = token_lines({"pretrain": {"ledger": ledger}})
    assert "| pretrain | s | 1,000 | 900 | 100 | 0 | 0 | 2,000 | 2.00 | 25.0 % (wanted 30.0 %) |" in lines
    assert token_lines({}) == []


def test_contamination_is_told_per_task() -> None:
    task = {"questions": 1000, "touched": 4, "documents": 9, "by_question": [], "exclude": ["a", "b"]}
    lines = contamination_lines({"c": {"ngram_chars": 13, "action": "drop", "tasks": {"c3-d": task}}})
    assert "| c | c3-d | 13 | drop | 1,000 | 4 | 9 | 2 |" in lines


def test_sources_are_split_by_what_they_declare() -> None:
    sources = {
        "open": {"files": "/x", "licence": "CC0"}, "none": {"files": "/x"}, "made": {"files": ["${world}/a", "${world}/b"]},
        "half": {"files": ["${world}/a", "/x"]},
    }  # fmt: skip
    recipe = {"world": {"split": "test"}, "corpora": {"c": {"sources": sources}}}
    published, left_out = split_sources(recipe, {"c": {"sources": dict.fromkeys(sources)}})
    assert set(published["c"]) == {"open", "made"}
    assert set(left_out["c"]) == {"none", "half"}
    assert not made_here({}, sources["made"])
