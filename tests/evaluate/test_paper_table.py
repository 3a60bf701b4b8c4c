"""The re-analysis of the 2023 paper's table: figures worked out by hand before, and a page that nobody edits."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from pandallm.evaluate.paper_table import CLAIMS, analyse, page
from pandallm.evaluate.published import RIGHT

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    return analyse()


def claim(figures: dict[str, Any], a: str, b: str) -> dict[str, dict[str, Any]]:
    return {row["task"]: row for row in figures["claims"] if (row["a"], row["b"]) == (a, b)}


def test_instruction_tuning_by_hand(figures: dict[str, Any]) -> None:
    # Without passages: LogiQA z = 72/1594 / .0161813 = 2.79 (p .005); C3-d 81/1890 = .0429, pooled 1707/3780 = .4516, se
    # .016189: z = 2.65 (p .008); C3-m 268/2002 = .1339, pooled .5035, se .015803: z = 8.47 (p < 1e-15).
    rows = claim(figures, "Panda-7B", "Panda-Instruct-7B, 9k steps")
    plain = {task: row["by_correlation"][0] for task, row in rows.items()}
    assert [round(100 * rows[t]["difference"], 1) for t in ("logiqa2-zh", "c3-d", "c3-m")] == [4.5, 4.3, 13.4]
    assert plain["logiqa2-zh"]["z"] == pytest.approx(2.79, abs=0.005)
    assert plain["c3-d"]["z"] == pytest.approx(2.65, abs=0.005)
    assert plain["c3-m"]["z"] == pytest.approx(8.47, abs=0.005)
    assert (round(plain["logiqa2-zh"]["p"], 3), round(plain["c3-d"]["p"], 3)) == (0.005, 0.008)
    assert plain["c3-m"]["p"] < 1e-15
    # Passages: z shrinks by the root of the design effect, 1.91 for C3-m at .5.
    clustered = rows["c3-m"]["by_correlation"][2]
    assert clustered["z"] == pytest.approx(plain["c3-m"]["z"] / 1.911**0.5, abs=0.005)


def test_verdicts(figures: dict[str, Any]) -> None:
    def verdicts(a: str, b: str) -> list[str]:
        return [row["verdict"] for row in claim(figures, a, b).values()]  # LogiQA, C3-d, C3-m

    nine = "Panda-Instruct-7B, 9k steps"
    assert verdicts("Panda-Instruct-7B, 6k steps", nine) == ["noise"] * 3
    assert verdicts("Panda-7B", nine)[1:] == ["uncorrected", "better"]
    assert verdicts("BELLE-LLaMA-Ext-7B", "Panda-7B") == ["noise", "better", "better"]
    assert verdicts("Panda-7B", "Panda-13B")[0] == "noise"
    constant = {(r["model"], r["task"]): r["against_constant"] for r in figures["models"]}
    assert constant["BELLE-LLaMA-Ext-7B", "logiqa2-zh"] == constant["BELLE-LLaMA-Ext-7B", "c3-d"] == "noise"
    chance = {(r["model"], r["task"]): r["against_chance"] for r in figures["models"]}
    assert chance["Panda-13B", "logiqa2-zh"] == "noise"
    assert chance[nine, "logiqa2-zh"] == "better"


def test_a_verdict_follows_from_the_corrected_p_at_every_correlation(figures: dict[str, Any]) -> None:
    for row in figures["claims"]:
        found = [e["p_holm"] < 0.05 for e in row["by_correlation"]]
        raw = any(e["p"] < 0.05 for e in row["by_correlation"])
        expected = "better" if all(found) else "depends" if any(found) else "uncorrected" if raw else "noise"
        assert row["verdict"] == expected
    for k in range(3):
        # Holm's smallest p is the smallest p times the size of the family.
        least = min(figures["claims"], key=lambda row: row["by_correlation"][k]["p"])["by_correlation"][k]
        assert least["p_holm"] == pytest.approx(15 * least["p"])


def test_groups_agree_with_the_order(figures: dict[str, Any]) -> None:
    for entry in figures["groups"]:
        assert {m for group in entry["groups"] for m in group} == set(RIGHT)
        for group in entry["groups"]:
            counts = [RIGHT[m][entry["task"]] for m in group]
            assert counts == sorted(counts, reverse=True)
    loose = {e["task"]: e["groups"] for e in figures["groups"] if e["correlation"] == 0.5}
    pairs = {frozenset(p) for g in loose["c3-m"] for p in itertools.combinations(g, 2)}
    assert frozenset(("Panda-Instruct-7B, 6k steps", "Panda-Instruct-7B, 9k steps")) in pairs
    assert frozenset(("BELLE-LLaMA-Ext-7B", "Panda-13B")) not in pairs


def test_the_committed_page_is_what_the_command_writes(figures: dict[str, Any]) -> None:
    told = "docs/paper-table.md differs: run python benchmarks/paper_table.py --page docs/paper-table.md"
    assert (ROOT / "docs" / "paper-table.md").read_text(encoding="utf-8") == page(figures), told


def test_the_committed_result_holds_these_figures(figures: dict[str, Any]) -> None:
    (path,) = (ROOT / "benchmarks" / "results").glob("paper_table-*.json")
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert kept["met"] is True
    for ours, theirs in zip(figures["claims"], kept["figures"]["claims"], strict=True):
        assert (ours["a"], ours["b"], ours["task"], ours["verdict"]) == tuple(
            theirs[k] for k in ("a", "b", "task", "verdict")
        )
        for one, other in zip(ours["by_correlation"], theirs["by_correlation"], strict=True):
            assert one == pytest.approx(other)
    assert kept["figures"]["groups"] == figures["groups"]
    assert len(CLAIMS) * 3 == len(figures["claims"])
