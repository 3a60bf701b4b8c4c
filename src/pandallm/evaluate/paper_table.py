"""The 2023 paper's table re-analysed: from counts of right answers, with what shared passages cost.

Only counts exist, so no two models can be compared question by question: every test here is unpaired, with each variance
inflated by the design effect of the passages. `analyse` computes, `page` writes the figures as Markdown.
"""

import itertools
from collections.abc import Sequence
from typing import Any

from pandallm.evaluate.published import CHANCE, CONSTANT, PASSAGES, QUESTIONS, RIGHT, passage_sizes
from pandallm.stats.groups import tied_groups
from pandallm.stats.paired import holm
from pandallm.stats.power import design_effect, detectable_paired, detectable_unpaired
from pandallm.stats.unpaired import against_fixed, proportion, unpaired_difference

#: Correlations within a passage. The counts do not tell which holds; a claim is confirmed only if it stands at all three.
CORRELATIONS = (0.0, 0.2, 0.5)
#: The correlation of the figures shown where only one is.
SHOWN = 0.2
ALPHA = 0.05
DISCORDANCE = 0.2
TITLES = {"logiqa2-zh": "LogiQA-v2", "c3-d": "C3-d", "c3-m": "C3-m"}
#: (a, b, what one reads in the table of b against a): the family over which Holm corrects, on all three tasks.
CLAIMS = (
    ("Panda-7B", "Panda-Instruct-7B, 9k steps", "instruction tuning helps"),
    ("Panda-Instruct-7B, 6k steps", "Panda-Instruct-7B, 9k steps", "more steps help"),
    ("BELLE-LLaMA-Ext-7B", "Panda-7B", "Panda-7B is better than BELLE"),
    ("Linly-Chinese-LLaMA-7b-hf", "Panda-7B", "Panda-7B is better than Linly"),
    ("Panda-7B", "Panda-13B", "the larger model is better"),
)


def analyse() -> dict[str, Any]:
    """All figures of the page: {"tasks", "models", "claims", "groups"}; accuracies and differences in [0, 1]."""
    return {
        "alpha": ALPHA,
        "correlations": list(CORRELATIONS),
        "shown": SHOWN,
        "tasks": [_task(task) for task in QUESTIONS],
        "models": _models(),
        "claims": _claims(),
        "groups": [_groups(task, icc) for task in QUESTIONS for icc in CORRELATIONS],
    }


def _deff(task: str, icc: float) -> float:
    return design_effect(passage_sizes(task), icc)


def _task(task: str) -> dict[str, Any]:
    n = QUESTIONS[task]
    accuracy = sum(counts[task] for counts in RIGHT.values()) / (n * len(RIGHT))
    letter, right = CONSTANT[task]
    return {
        "task": task,
        "questions": n,
        "passages": PASSAGES[task],
        "chance": list(CHANCE[task]),
        "constant": {"letter": letter, "right": right, "accuracy": right / n},
        "mean_accuracy": accuracy,
        "by_correlation": [
            {
                "correlation": icc,
                "design_effect": _deff(task, icc),
                "detectable_unpaired": detectable_unpaired(n, accuracy, _deff(task, icc)),
                "detectable_paired": detectable_paired(n, DISCORDANCE, _deff(task, icc)),
            }
            for icc in CORRELATIONS
        ],
    }


def _models() -> list[dict[str, Any]]:
    """Every model on every task against guessing and against the best constant answer; Holm over all of them."""
    cells = [(model, task) for model in RIGHT for task in QUESTIONS]
    found: list[dict[str, Any]] = []
    for model, task in cells:
        n, right = QUESTIONS[task], RIGHT[model][task]
        found.append(
            {
                "model": model,
                "task": task,
                "right": right,
                "n": n,
                "accuracy": right / n,
                "by_correlation": [_one(right, n, task, icc) for icc in CORRELATIONS],
            }
        )
    for k in range(len(CORRELATIONS)):
        at = [row["by_correlation"][k] for row in found]
        for key in ("chance", "constant"):
            for entry, p in zip(at, holm([entry[key]["p"] for entry in at]), strict=True):
                entry[key]["p_holm"] = p
    for row in found:
        row["against_chance"] = _verdict([e["chance"] for e in row["by_correlation"]])
        row["against_constant"] = _verdict([e["constant"] for e in row["by_correlation"]])
    return found


def _one(right: int, n: int, task: str, icc: float) -> dict[str, Any]:
    deff = _deff(task, icc)
    e = proportion(right, n, deff)
    # Chance is known up to a range: the test is against its nearest point, and inside the range there is nothing to find.
    low, high = CHANCE[task]
    level = min(max(right / n, low), high)
    z, p = against_fixed(right, n, level, deff)
    u = unpaired_difference(CONSTANT[task][1], n, right, n, deff)
    return {
        "correlation": icc,
        "low": e.low,
        "high": e.high,
        "chance": {"z": z, "p": p},
        "constant": {"z": u.z, "p": u.p},
    }


def _claims() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for (a, b, says), task in itertools.product(CLAIMS, QUESTIONS):
        n, entries = QUESTIONS[task], []
        for icc in CORRELATIONS:
            u = unpaired_difference(RIGHT[a][task], n, RIGHT[b][task], n, _deff(task, icc))
            d = u.difference
            entries.append({"correlation": icc, "low": d.low, "high": d.high, "z": u.z, "p": u.p})
        difference = (RIGHT[b][task] - RIGHT[a][task]) / n
        found.append({"a": a, "b": b, "says": says, "task": task, "difference": difference, "by_correlation": entries})
    for k in range(len(CORRELATIONS)):
        for row, p in zip(found, holm([row["by_correlation"][k]["p"] for row in found]), strict=True):
            row["by_correlation"][k]["p_holm"] = p
    for row in found:
        row["verdict"] = _verdict(row["by_correlation"])
    return found


def _verdict(entries: Sequence[dict[str, Any]]) -> str:
    """better or worse: after Holm at every correlation; depends: at some only; uncorrected: only without Holm; noise."""
    found = [entry["p_holm"] < ALPHA for entry in entries]
    if all(found):
        return "better" if entries[0]["z"] > 0 else "worse"
    if any(found):
        return "depends"
    return "uncorrected" if any(entry["p"] < ALPHA for entry in entries) else "noise"


def _groups(task: str, icc: float) -> dict[str, Any]:
    """Models that the counts cannot tell apart: Holm over the pairs of one task."""
    n, deff = QUESTIONS[task], _deff(task, icc)
    pairs = list(itertools.combinations(RIGHT, 2))
    p = holm([unpaired_difference(RIGHT[a][task], n, RIGHT[b][task], n, deff).p for a, b in pairs])
    apart = {frozenset(pair) for pair, value in zip(pairs, p, strict=True) if value < ALPHA}
    means = [RIGHT[model][task] / n for model in RIGHT]
    groups = tied_groups(list(RIGHT), means, lambda x, y: frozenset((x, y)) in apart)
    return {"task": task, "correlation": icc, "groups": groups}


_WORDS = {
    "better": "confirmed",
    "worse": "confirmed the other way",
    "depends": "depends on r",
    "uncorrected": "only before correction",
    "noise": "within noise",
}
_LEVELS = {
    "better": "above",
    "worse": "below",
    "depends": "depends on r",
    "uncorrected": "only before correction",
    "noise": "not told apart",
}


def page(figures: dict[str, Any]) -> str:
    """The Markdown page of `analyse`'s figures, ending with a line break."""
    shown = figures["correlations"].index(figures["shown"])
    lines = [
        "# The paper's own table, re-analysed",
        "",
        "This page is written by `python benchmarks/paper_table.py --page docs/paper-table.md` from the counts in `evaluate/published.py`; do not edit it.",
        "",
        "The 2023 paper (arXiv 2305.03025) prints accuracies without intervals. The counts of right answers follow from them. They say more than the bare figures, and less than",
        "one may read into them.",
        "",
        "- **Unpaired.** Which questions a model got right is not known, so two models are compared as if they had answered different questions. Models that find the same questions hard",
        "  differ by less noise than that. So what is confirmed here stands; what is within noise may still be a difference, which these counts cannot show.",
        "- **Passages.** Questions of one passage are not independent. Every variance carries the design effect 1 + r (m - 1), m the mean size of a question's passage, r the correlation within",
        f"  it. The counts do not tell r, so every test is made at r = {_list(figures['correlations'])}. Tables show r = {figures['shown']:g}. A claim is confirmed only if it stands at all three.",
        f"- **Many tests.** p is corrected by Holm over its family: the {len(figures['claims'])} claims, the {len(figures['models'])} accuracies, the pairs of models of one task. Confirmed: corrected p < {figures['alpha']:g}.",
        "- Formulas and sources: [statistics](statistics.md).",
        "",
        "## Tasks",
        "",
        "The smallest difference that a comparison finds with 80 % power: unpaired at the models' mean accuracy, paired (on the same questions, as `panda compare` does) where 20 % of the",
        "questions are answered differently.",
        "",
        f"| task | questions | passages | chance | best constant answer | design effect at r = {_list(figures['correlations'])} | unpaired, points | paired, points |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for t in figures["tasks"]:
        constant, by = t["constant"], t["by_correlation"]
        lines.append(
            f"| {TITLES[t['task']]} | {t['questions']} | {t['passages']} | {_range(t['chance'])} | {100 * constant['accuracy']:.2f} ({constant['letter']}) | "
            f"{' / '.join(format(e['design_effect'], '.2f') for e in by)} | {' / '.join(_points(e['detectable_unpaired']) for e in by)} | "
            f"{' / '.join(_points(e['detectable_paired']) for e in by)} |"
        )
    lines += [
        "",
        "LogiQA has four options everywhere. C3 has two to four; of its test sets only the mean number of options is known, which leaves a range for chance. How the questions of C3-d spread",
        "over its passages is taken from its development and training sets.",
        "",
        "## Accuracies",
        "",
        f"Per cent, with 95 % intervals at r = {figures['shown']:g}. The last columns compare with guessing and with always naming the most frequent letter.",
        "",
        "| model | task | right | accuracy | interval | against guessing | against the constant answer |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in figures["models"]:
        e = row["by_correlation"][shown]
        lines.append(
            f"| {row['model']} | {TITLES[row['task']]} | {row['right']} of {row['n']} | {100 * row['accuracy']:.2f} | {100 * e['low']:.1f} to {100 * e['high']:.1f} | "
            f"{_LEVELS[row['against_chance']]} | {_LEVELS[row['against_constant']]} |"
        )
    lines += [
        "",
        "## What one reads in the table, and what the counts show",
        "",
        f"| claim | task | difference, points | interval | z | p | p by Holm at r = {_list(figures['correlations'])} | verdict |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in figures["claims"]:
        e = row["by_correlation"][shown]
        lines.append(
            f"| {row['says']} ({row['a']} → {row['b']}) | {TITLES[row['task']]} | {100 * row['difference']:+.1f} | {100 * e['low']:+.1f} to {100 * e['high']:+.1f} | "
            f"{e['z']:+.2f} | {_p(e['p'])} | {' / '.join(_p(at['p_holm']) for at in row['by_correlation'])} | {_WORDS[row['verdict']]} |"
        )
    lines += ["", "In words:", "", *(f"- {sentence}" for sentence in sentences(figures)), ""]
    lines += [
        "Without passages (r = 0) and uncorrected, instruction tuning has "
        + "; ".join(
            f"z = {row['by_correlation'][0]['z']:.2f}, p {_sign(row['by_correlation'][0]['p'])} on {TITLES[row['task']]}"
            for row in figures["claims"]
            if row["says"] == CLAIMS[0][2]
        )
        + ".",
        "",
        "What no test of counts can say: the 3k, 6k and 9k models lie on one decaying schedule, so they are no curve of dose and response; and much of the instruction data is exam questions of",
        "the same kind as the tasks, so a gain on them need not be a gain in following instructions.",
        "",
        "## Models that cannot be told apart",
        "",
        f"Best first, at r = {figures['shown']:g}, Holm over the {len(RIGHT) * (len(RIGHT) - 1) // 2} pairs of a task. A model may stand in several groups: two models differ only if they share none.",
        "",
        "| task | groups |",
        "|---|---|",
    ]
    for g in figures["groups"]:
        if g["correlation"] == figures["shown"]:
            text = "<br>".join(f"{i}. {'; '.join(group)}" for i, group in enumerate(g["groups"], 1))
            lines.append(f"| {TITLES[g['task']]} | {text} |")
    return "\n".join(lines) + "\n"


def sentences(figures: dict[str, Any]) -> list[str]:
    """One sentence a claim: on which tasks it is confirmed, on which it is not."""
    out = []
    for a, b, says in CLAIMS:
        rows = [row for row in figures["claims"] if (row["a"], row["b"]) == (a, b)]
        parts = []
        for verdict, words in _WORDS.items():
            tasks = [TITLES[row["task"]] for row in rows if row["verdict"] == verdict]
            if tasks:
                parts.append(f"{words} on {_list(tasks)}")
        out.append(f"{says[0].upper()}{says[1:]} ({b} against {a}): {'; '.join(parts)}.")
    standing = [
        f"{row['model']} on {TITLES[row['task']]}" for row in figures["models"] if row["against_constant"] != "better"
    ]
    out.append(f"Not confirmed to be better than one constant letter: {'; '.join(standing)}.")
    return out


def _list(items: Sequence[Any]) -> str:
    words = [f"{x:g}" if isinstance(x, float) else str(x) for x in items]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _range(pair: Sequence[float]) -> str:
    low, high = (f"{100 * x:.1f}" for x in pair)
    return low if low == high else f"{low} to {high}"


def _points(x: float) -> str:
    return f"{100 * x:.1f}"


def _sign(p: float) -> str:
    return _p(p) if p < 1e-15 else f"= {_p(p)}"


def _p(p: float) -> str:
    return "< 1e-15" if p < 1e-15 else f"{p:.1e}" if p < 0.0005 else f"{p:.3f}"
