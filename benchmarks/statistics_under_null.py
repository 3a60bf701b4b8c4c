"""How often every procedure of the room `stats` errs where there is nothing to find, or misses the truth with its interval.

    python benchmarks/statistics_under_null.py [--quick] [--json FILE]

10,000 simulations of each case (`--quick`: 400), 5 % nominal. Acceptable, decided beforehand: at most 5 % plus three Monte
Carlo standard errors; fewer is allowed (a procedure may be careful). Cases marked `warned` are those that docs/statistics.md
warns of: procedures that ignore the passages, the prompts or the number of tests, and some with few passages; they show what
that costs and are no goals. The clusters are those of C3-m (1,045 passages, 2,002 questions), C3-d, LogiQA and small sets
(200, 50 and 20 passages of 1 to 8 questions), at correlations 0, .2 and .5 within a passage. The shipped functions are called
as they are, but for fewer resamples: a sign-flip test has its level at any number. `--table` prints the table of
docs/statistics.md from a result, without simulating.
"""

import argparse
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pandallm.evaluate.published import passage_sizes
from pandallm.stats.equivalence import equivalence
from pandallm.stats.groups import tied_groups
from pandallm.stats.intervals import clustered_mean, ratio_estimate
from pandallm.stats.paired import holm, mcnemar, paired_bootstrap, paired_difference
from pandallm.stats.power import design_effect
from pandallm.stats.prompts import prompt_effect
from pandallm.stats.unpaired import against_fixed, proportion, unpaired_difference

sys.path.insert(0, str(Path(__file__).parent))
from common import result, write

Array = NDArray[np.float64]
NOMINAL = 0.05
SIMULATIONS = 10_000
CHUNK = 100  # simulations of every case that a process does at a time
ACCURACY = 0.4
DISCORDANCE = 0.2  # share of the questions that two compared systems answer differently
FEW = 50  # passages (documents) below which only the sign-flip test is to be trusted
FEW_FOR_SOME = 500  # passages below which the bootstrap and equivalence are not to be trusted
RESAMPLES = 240  # of the sign-flip test, so that 12 of 241 is just below 5 %; the default is 10,000
BOOTSTRAP_RESAMPLES = 600  # of the bootstrap; the default is 2000
GOALS = {"nominal": NOMINAL, "rate_at_most": "nominal + 3 sqrt(nominal (1 - nominal) / simulations)"}
SIZES = {
    "C3-m": passage_sizes("c3-m"),
    "C3-d": passage_sizes("c3-d"),
    "LogiQA": passage_sizes("logiqa2-zh"),
    "200 passages": [1, 3, 4, 8] * 50,
    "50 passages": [1] * 13 + [3] * 12 + [4] * 13 + [8] * 12,
    "20 passages": [1] * 5 + [3] * 5 + [4] * 5 + [8] * 5,
}
CORRELATIONS = (0.0, 0.2, 0.5)
MARGINS = {"C3-m": 0.03, "200 passages": 0.05, "50 passages": 0.1, "20 passages": 0.1}


class Clusters:
    """Questions in passages whose answers correlate by `icc`: a passage's level is beta distributed."""

    def __init__(self, structure: str, icc: float, seed: int) -> None:
        self.structure, self.icc = structure, icc
        self.sizes = SIZES[structure]
        self.index = np.repeat(np.arange(len(self.sizes)), self.sizes)
        self.list = self.index.tolist()
        self.few = len(self.sizes) < FEW
        self.deff = design_effect(self.sizes, icc)
        self.rng = np.random.default_rng([seed, list(SIZES).index(structure), round(100 * icc)])

    def answers(self, accuracy: float = ACCURACY) -> Array:
        """Right (1) or wrong (0) per question."""
        return (self.rng.random(self.index.size) < self.levels(accuracy)).astype(np.float64)

    def levels(self, accuracy: float = ACCURACY) -> Array:
        if not self.icc:
            return np.full(self.index.size, accuracy)
        strength = 1 / self.icc - 1  # alpha + beta of the beta distribution
        return self.rng.beta(accuracy * strength, (1 - accuracy) * strength, len(self.sizes))[self.index]

    def moved(self, a: Array, difference: float = 0.0) -> Array:
        """A second system: answers afresh in so many passages that DISCORDANCE of the questions differ, else as `a`.

        Its differences from `a` correlate within a passage by `icc`, as the answers do.
        """
        share = DISCORDANCE / (2 * ACCURACY * (1 - ACCURACY))
        fresh = (self.rng.random(len(self.sizes)) < share)[self.index]
        return np.where(fresh, self.answers(ACCURACY + difference / share), a)


class Table:
    """Errors counted per procedure and case."""

    def __init__(self, simulations: int) -> None:
        self.simulations = simulations
        self.errors: dict[tuple[str, str, float | None, bool], int] = {}

    def add(self, procedure: str, structure: str, icc: float | None, error: bool, warned: bool = False) -> None:
        key = (procedure, structure, icc, warned)
        self.errors[key] = self.errors.get(key, 0) + bool(error)

    def merge(self, other: "Table") -> None:
        self.simulations += other.simulations
        for key, count in other.errors.items():
            self.errors[key] = self.errors.get(key, 0) + count

    def rows(self) -> list[dict[str, Any]]:
        limit = NOMINAL + 3 * math.sqrt(NOMINAL * (1 - NOMINAL) / self.simulations)
        return [
            {
                "procedure": procedure,
                "clusters": structure,
                "correlation": icc,
                "warned": warned,
                "rate": count / self.simulations,
                "holds": count / self.simulations <= limit,
            }
            for (procedure, structure, icc, warned), count in sorted(
                self.errors.items(), key=lambda item: (item[0][3], item[0][0])
            )
        ]


def cases(seed: int, structures: tuple[str, ...], correlations: tuple[float, ...]) -> Iterator[Clusters]:
    for structure in structures:
        for icc in correlations:
            yield Clusters(structure, icc, seed)


def misses(low: float, high: float, truth: float) -> bool:
    return not low <= truth <= high


def one_system(table: Table, c: Clusters) -> None:
    """Intervals of one accuracy, and its test against a known level, from rows and from counts."""
    for _ in range(table.simulations):
        y = c.answers()
        e, right = clustered_mean(y, c.list), int(y.sum())
        counts = proportion(right, y.size, c.deff)
        table.add("clustered interval", c.structure, c.icc, misses(e.low, e.high, ACCURACY), c.few)
        table.add(
            "interval from counts, design effect", c.structure, c.icc, misses(counts.low, counts.high, ACCURACY), c.few
        )
        p = against_fixed(right, y.size, ACCURACY, c.deff)[1]
        table.add("against a level, design effect", c.structure, c.icc, p < NOMINAL, c.few)
        if c.icc:
            plain = clustered_mean(y)
            table.add("interval without clusters", c.structure, c.icc, misses(plain.low, plain.high, ACCURACY), True)


def two_systems(table: Table, c: Clusters) -> list[float]:
    """Paired procedures on systems that are equally good; the sign-flip p of every simulation."""
    p = []
    for k in range(table.simulations):
        a = c.answers()
        b = c.moved(a)
        both = paired_difference(a, b, c.list, resamples=RESAMPLES, seed=k)
        p.append(both.p)
        d = both.difference
        table.add("paired sign-flip", c.structure, c.icc, both.p < NOMINAL)
        table.add("paired clustered interval", c.structure, c.icc, misses(d.low, d.high, 0), c.few)
        table.add("McNemar", c.structure, c.icc, mcnemar(a, b).p < NOMINAL, c.few or c.icc > 0)
        few = len(c.sizes) < FEW_FOR_SOME
        if len(c.sizes) <= FEW or (c.icc == 0.5 and c.structure in ("C3-m", "200 passages")):
            boot = paired_bootstrap(a, b, c.list, resamples=BOOTSTRAP_RESAMPLES, seed=k)
            table.add("paired bootstrap interval", c.structure, c.icc, misses(boot.low, boot.high, 0), few)
    return p


def families(table: Table, p: dict[tuple[str, float], list[float]]) -> None:
    """Holm over the sign-flip p of three tasks (C3-m, C3-d, LogiQA at .2) and of ten (those at all correlations, and the small set)."""
    three = [p[s, 0.2] for s in ("C3-m", "C3-d", "LogiQA")]
    ten = [p[s, i] for s in ("C3-m", "C3-d", "LogiQA") for i in CORRELATIONS] + [p["20 passages", 0.2]]
    for tasks in (three, ten):
        for values in zip(*tasks, strict=True):
            name = f"over {len(tasks)} tasks"
            table.add("Holm, family-wise", name, None, min(holm(values)) < NOMINAL)
            table.add("uncorrected, family-wise", name, None, min(values) < NOMINAL, True)


def at_the_margin(table: Table, c: Clusters, margin: float) -> None:
    """Systems that differ by exactly the margin must not be called equivalent more than 5 % of the time."""
    for _ in range(table.simulations):
        a = c.answers()
        d = paired_difference(a, c.moved(a, margin), c.list, resamples=1).difference
        name = f"equivalence at its margin ({100 * margin:.0f} points)"
        table.add(name, c.structure, c.icc, equivalence(d, margin).equivalent, len(c.sizes) < FEW_FOR_SOME)


def from_counts(table: Table, c: Clusters) -> None:
    """Two published counts, each over its own questions."""
    for _ in range(table.simulations):
        a, b, n = int(c.answers().sum()), int(c.answers().sum()), c.index.size
        u = unpaired_difference(a, n, b, n, c.deff)
        table.add("unpaired z, design effect", c.structure, c.icc, u.p < NOMINAL, c.few)
        table.add(
            "unpaired interval, design effect",
            c.structure,
            c.icc,
            misses(u.difference.low, u.difference.high, 0),
            c.few,
        )
        if c.icc:
            plain = unpaired_difference(a, n, b, n).p
            table.add("unpaired z without design effect", c.structure, c.icc, plain < NOMINAL, True)


def differ(adjusted: dict[tuple[str, str], float], x: str, y: str) -> bool:
    return adjusted[min(x, y), max(x, y)] < NOMINAL


def ties(table: Table, c: Clusters, systems: int) -> None:
    """Groups of equally good systems (sign-flip, Holm over the pairs): any that falls apart is an error."""
    names = [str(i) for i in range(systems)]
    for k in range(table.simulations):
        base = c.answers()
        values = {name: c.moved(base) for name in names}
        pairs = [(x, y) for i, x in enumerate(names) for y in names[i + 1 :]]
        p = holm([paired_difference(values[x], values[y], c.list, resamples=RESAMPLES, seed=k).p for x, y in pairs])
        adjusted = dict(zip(pairs, p, strict=True))
        means = [float(values[name].mean()) for name in names]
        groups = tied_groups(names, means, partial(differ, adjusted))
        table.add(f"tied groups of {systems}, family-wise", c.structure, c.icc, len(groups) > 1)


def many_prompts(table: Table, c: Clusters, spread: float, prompts: int = 4) -> None:
    """Prompts drawn from a population whose accuracies have this standard deviation; half of the answers depend on the prompt."""
    for _ in range(table.simulations):
        base, keep = c.answers(), 0.5
        effect = np.clip(c.rng.normal(0, spread / (1 - keep), prompts), -0.39, 0.39)
        afresh = c.rng.random((prompts, base.size)) < (ACCURACY + effect)[:, None]
        values = np.where(c.rng.random((prompts, base.size)) < keep, base, afresh)
        e = prompt_effect(values, c.list)
        name = f"{prompts} prompts, spread {100 * spread:.0f} points"
        table.add(f"prompt effect ({name})", c.structure, c.icc, misses(e.low, e.high, ACCURACY), c.few)
        if spread:
            only = clustered_mean(values.mean(axis=0), c.list)
            label = f"interval that takes prompts as fixed ({name})"
            table.add(label, c.structure, c.icc, misses(only.low, only.high, ACCURACY), True)


def bits(table: Table, documents: int, seed: int) -> None:
    """Bits per byte of documents of very unequal length."""
    rng = np.random.default_rng([seed, documents])
    for _ in range(table.simulations):
        size = rng.lognormal(6, 0.8, documents)
        e = ratio_estimate(size * rng.normal(1.2, 0.2, documents), size)
        missed = misses(e.low, e.high, 1.2)
        table.add("ratio interval (bits per byte)", f"{documents} documents", None, missed, documents < FEW)


def simulate(job: tuple[int, int]) -> Table:
    """Every case, (simulations, seed) of it."""
    simulations, seed = job
    table = Table(simulations)
    for c in cases(seed, tuple(SIZES), CORRELATIONS):
        one_system(table, c)
        from_counts(table, c)
    p = {(c.structure, c.icc): two_systems(table, c) for c in cases(seed + 1, tuple(SIZES), CORRELATIONS)}
    families(table, p)
    for structure, margin in MARGINS.items():
        for c in cases(seed + 2, (structure,), CORRELATIONS):
            at_the_margin(table, c, margin)
    ties(table, Clusters("C3-m", 0.5, seed + 3), 4)
    ties(table, Clusters("20 passages", 0.2, seed + 3), 4)
    for spread in (0.0, 0.02, 0.05):
        for structure in ("C3-m", "50 passages", "20 passages"):
            many_prompts(table, Clusters(structure, 0.2, seed + 4), spread)
    for documents in (20, 50, 200):
        bits(table, documents, seed)
    return table


def show(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        correlation = "" if row["correlation"] is None else f"{row['correlation']:g}"
        word = ("warned: " if row["warned"] else "") + ("holds" if row["holds"] else "too often")
        print(f"{row['procedure']:62} {row['clusters']:14} {correlation:4} {100 * row['rate']:5.2f} %  {word}")


def markdown(rows: list[dict[str, Any]]) -> str:
    """The tables of docs/statistics.md: per cent, at correlations 0 / .2 / .5; bold where above the limit."""
    cells = {
        (row["procedure"], row["clusters"], row["correlation"]): (
            f"{100 * row['rate']:.1f}" if row["holds"] else f"**{100 * row['rate']:.1f}**"
        )
        for row in rows
    }
    lines = [f"| procedure | {' | '.join(SIZES)} |", "|---" * (1 + len(SIZES)) + "|"]
    for name in dict.fromkeys(row["procedure"] for row in rows if row["clusters"] in SIZES):
        texts = []
        for structure in SIZES:
            each = [cells.get((name, structure, icc)) for icc in CORRELATIONS]
            texts.append(" / ".join(x or "-" for x in each) if any(each) else "")
        lines.append(f"| {name} | {' | '.join(texts)} |")
    lines += ["", "| procedure | over | rate |", "|---|---|---|"]
    lines += [f"| {p} | {c.removeprefix('over ')} | {text} |" for (p, c, _), text in cells.items() if c not in SIZES]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="400 simulations of each case")
    parser.add_argument("--seed", type=int, default=20261124)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="stop after this time with what is simulated by then"
    )
    parser.add_argument("--json")
    parser.add_argument("--table", metavar="RESULT", help="print the Markdown table of this result and stop")
    arguments = parser.parse_args()
    if arguments.table:
        print(markdown(json.loads(Path(arguments.table).read_text(encoding="utf-8"))["figures"]["rows"]), end="")
        return
    jobs = [(CHUNK, arguments.seed + 10 * k) for k in range((400 if arguments.quick else SIMULATIONS) // CHUNK)]
    table, began = Table(0), time.monotonic()
    with multiprocessing.Pool(arguments.processes) as pool:
        for part in pool.imap(simulate, jobs):
            table.merge(part)
            print(f"{table.simulations} simulations, {time.monotonic() - began:.0f} s", flush=True)
            if time.monotonic() - began > 60 * arguments.minutes:
                pool.terminate()
                break
    rows = table.rows()
    show(rows)
    met = all(row["holds"] for row in rows if not row["warned"])
    print("all goals met" if met else "NOT all goals met")
    figures = {
        "simulations": table.simulations,
        "sign_flip_resamples": RESAMPLES,
        "bootstrap_resamples": BOOTSTRAP_RESAMPLES,
        "accuracy": ACCURACY,
        "discordance": DISCORDANCE,
        "rows": rows,
    }
    write(arguments.json, result("statistics_under_null", figures, GOALS, met, "python " + " ".join(sys.argv)))


if __name__ == "__main__":
    main()
