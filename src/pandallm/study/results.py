"""results.json: everything that a study's report prints, computed from the rows of its finished runs."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from pandallm.errors import BadInput
from pandallm.stats.paired import holm
from pandallm.stats.seeds import SeedEffect, SeedPair, seed_effect
from pandallm.store import read_json, write_json
from pandallm.study.budgets import budgets
from pandallm.study.effects import Sides, least_squares, mean_of_pairs, pairs_of
from pandallm.study.folder import STUDY, outcome
from pandallm.study.measure import Measured, Run, common, rounded
from pandallm.study.power import power_curves

RESULTS = "results.json"
Json = dict[str, Any]


def write_results(folder: Path) -> Json:
    """Compute and write results.json of a study's folder, finished or not; returns it. Raises BadInput where there is no study."""
    results = compute_results(folder)
    write_json(folder / RESULTS, results)
    return results


def compute_results(folder: Path) -> Json:
    """The content of results.json, from study.json and the run folders."""
    if not (folder / STUDY).is_file():
        raise BadInput(f"{folder} is no study's folder: {STUDY} is missing; run `panda study run FILE` first.")
    if (folder / RESULTS).is_file() and not (folder / "arms").is_dir():
        raise BadInput(
            f"{folder} holds the published results of a study without its runs (arms/), from which alone its numbers can be computed."
        )
    return _Study(folder).results()


class _Study:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.study: Json = read_json(folder / STUDY)
        self.arms: list[Json] = self.study["arms"]
        self.seeds: list[int] = self.study["seeds"]
        self.alpha = 1 - self.study["confidence"]
        self._measured: dict[tuple[str, int, str], Measured | None] = {}
        self.notes: dict[str, None] = {}

    @cached_property
    def outcomes(self) -> dict[str, dict[int, Json]]:
        return {
            arm["name"]: {
                seed: outcome(self._run_folder(arm, seed), arm["digest"], any_version=True) for seed in self.seeds
            }
            for arm in self.arms
        }

    @cached_property
    def runs(self) -> dict[tuple[str, int], Run]:
        """The finished runs."""
        return {
            (arm["name"], seed): Run(self._run_folder(arm, seed), arm)
            for arm in self.arms
            for seed in self.seeds
            if self.outcomes[arm["name"]][seed]["state"] == "complete"
        }

    def _run_folder(self, arm: Mapping[str, Any], seed: int) -> Path:
        return self.folder / "arms" / f"{arm['name']}-seed{seed}"

    def results(self) -> Json:
        contrasts, effects = self._contrasts(), self._effects()
        states = [o["state"] for by_seed in self.outcomes.values() for o in by_seed.values()]
        return {
            **{k: self.study[k] for k in ("name", "description", "recipe", "confidence", "margin", "seeds", "factors")},
            "description_zh": self.study.get("description_zh", ""),
            "subject": self.study.get("subject"),
            "metrics": self.study["metrics"],
            "primary": self.study["primary"],
            "world": self.study["own_questions"],
            "runs": {"total": len(states), **{s: states.count(s) for s in dict.fromkeys(states)}},
            "arms": [
                {
                    "name": arm["name"],
                    "levels": arm["levels"],
                    "runs": [{"seed": seed, **o} for seed, o in self.outcomes[arm["name"]].items()],
                    "values": {metric: self._value(arm["name"], metric) for metric in self.study["metrics"]},
                    "floors": {metric: self._floors(arm["name"], metric) for metric in self.study["metrics"]},
                }
                for arm in self.arms
            ],
            "contrasts": contrasts,
            "effects": effects,
            "power": self._power(contrasts, effects),
            "doses": self._doses(),
            "prompts": self._prompts(),
            "bits_per_byte": self._bits(),
            "forgetting": self._forgetting(),
            **budgets(self._first_runs()),
            "notes": list(self.notes),
            "made": self._made(),
        }

    def _first_runs(self) -> dict[str, tuple[int, Path]]:
        """Each arm's first finished run: its seed and folder."""
        found: dict[str, tuple[int, Path]] = {}
        for arm, seed in self.runs:
            found.setdefault(arm, (seed, self._run_folder({"name": arm}, seed)))
        return found

    def _made(self) -> Json:
        """Where and with what the finished runs were made, and what sharing saved: seconds of all their stages, made once and in every run."""
        manifests = [read_json(self._run_folder({"name": arm}, seed) / "manifest.json") for arm, seed in self.runs]
        once = {s["key"]: s["made_in_seconds"] for m in manifests for s in m["stages"]}
        return {
            "pandallm": sorted({m["pandallm"] for m in manifests}),
            "versions": _same([m["versions"] for m in manifests]),
            "machines": sorted({_machine(m["machine"]) for m in manifests}),
            "seconds": round(sum(once.values()), 1),
            "seconds_without_sharing": round(sum(m["work_seconds"] for m in manifests), 1),
        }

    # Values ---------------------------------------------------------------------------------------------------------------------

    def measured(self, arm: str, seed: int, metric: str) -> Measured | None:
        key = (arm, seed, metric)
        if key not in self._measured:
            run = self.runs.get((arm, seed))
            self._measured[key] = run.measure(self.study["metrics"][metric]) if run else None
        return self._measured[key]

    def _value(self, arm: str, metric: str) -> Json:
        by_seed = {s: m.value for s in self.seeds if (m := self.measured(arm, s, metric)) is not None}
        return self._mean(by_seed)

    def _floors(self, arm: str, metric: str) -> Json | None:
        """What an accuracy is to be held against, mean over seeds: chance, best constant answer, share without an answer."""
        found = [r.floors(self.study["metrics"][metric]) for (name, _), r in self.runs.items() if name == arm]
        told = [f for f in found if f is not None]
        return {key: rounded(float(np.mean([f[key] for f in told]))) for key in told[0]} if told else None

    def _mean(self, by_seed: Mapping[int, float]) -> Json:
        """Mean over seeds with Student's t interval; none with fewer than two seeds."""
        values = np.array(list(by_seed.values()))
        mean = float(values.mean()) if values.size else math.nan
        reach = math.nan
        if values.size > 1:
            t = float(special.stdtrit(values.size - 1, 1 - self.alpha / 2))
            reach = t * float(values.std(ddof=1)) / math.sqrt(values.size)
        return {
            "mean": rounded(mean),
            "low": rounded(mean - reach),
            "high": rounded(mean + reach),
            "by_seed": {str(s): rounded(v) for s, v in by_seed.items()},
        }

    # Comparisons ----------------------------------------------------------------------------------------------------------------

    def _contrasts(self) -> list[Json]:
        """The study's claims, with Holm's correction over them and a verdict each."""
        declared: Mapping[str, Json] = self.study["contrasts"] or self._by_default()
        made = []
        for name, c in declared.items():
            sides = [c[side] if isinstance(c[side], dict) else {c["factor"]: c[side]} for side in ("a", "b")]
            metric = c["metric"] or self.study["primary"]
            margin = c["margin"] or self.study["margin"][self.study["metrics"][metric]["kind"]]
            told = {"name": name, "claim": c["claim"], "claim_zh": c.get("claim_zh", "")}
            told |= {"expect": c["expect"], "margin": margin}
            made.append((told, *self._compare(sides[0], sides[1], metric)))
        tested = [effect.p for _, _, effect in made if effect is not None and math.isfinite(effect.p)]
        adjusted = iter(holm(tested))
        contrasts = []
        for told, row, effect in made:
            p_holm = next(adjusted) if effect is not None and math.isfinite(effect.p) else None
            row |= {"p_holm": rounded(p_holm) if p_holm is not None else None}
            row["verdict"] = self._verdict(told, row, effect, p_holm, len(tested))
            contrasts.append(told | row)
        return contrasts

    def _by_default(self) -> dict[str, Json]:
        """Each level against its factor's baseline."""
        return {
            f"{factor}: {level}": {
                "claim": "",
                "factor": factor,
                "a": f["baseline"],
                "b": level,
                "expect": "different",
                "metric": None,
                "margin": None,
            }
            for factor, f in self.study["factors"].items()
            for level in f["levels"]
            if level != f["baseline"]
        }

    def _effects(self) -> list[Json]:
        """Main effects: every level against its baseline, on every metric; Holm within a metric."""
        rows: list[Json] = []
        for metric in self.study["metrics"]:
            found = []
            for factor, f in self.study["factors"].items():
                for level in f["levels"]:
                    if level != f["baseline"]:
                        row, effect = self._compare({factor: f["baseline"]}, {factor: level}, metric)
                        found.append((row | {"factor": factor, "level": level, "p_holm": None}, effect))
            tested = [(r, e.p) for r, e in found if e is not None and math.isfinite(e.p)]
            for (row, _), p in zip(tested, holm([p for _, p in tested])):
                row["p_holm"] = rounded(p)
            rows += [row for row, _ in found]
        return rows

    def _power(self, contrasts: Sequence[Json], effects: Sequence[Json]) -> Json:
        """Power curves of the claims on the primary metric, of every level's effect on it where none is claimed."""
        primary = self.study["primary"]
        rows = [(c["name"], c) for c in contrasts if c["metric"] == primary]
        rows = rows or [(f"{e['factor']}: {e['level']}", e) for e in effects if e["metric"] == primary]
        compared = [(name, row, self._compare(row["a"], row["b"], primary)[1]) for name, row in rows]
        margin = self.study["margin"][self.study["metrics"][primary]["kind"]]
        return power_curves(compared, primary, margin, self.study["confidence"])

    def _doses(self) -> list[Json]:
        """Every metric at every level of every factor: each seed's mean over the arms of the level, where all of them are there."""
        rows = []
        for (factor, f), metric in itertools.product(self.study["factors"].items(), self.study["metrics"]):
            for level in f["levels"]:
                arms = [arm["name"] for arm in self.arms if arm["levels"][factor] == level]
                by_seed = {}
                for seed in self.seeds:
                    measured = [self.measured(arm, seed, metric) for arm in arms]
                    values = [m.value for m in measured if m is not None]
                    if len(values) == len(arms):
                        by_seed[seed] = float(np.mean(values))
                rows.append({"factor": factor, "level": level, "metric": metric, **self._mean(by_seed)})
        return rows

    def _prompts(self) -> list[Json]:
        """Each accuracy of several prompts, prompt by prompt: mean over seeds, and how far the means lie apart."""
        rows = []
        for metric, arm in itertools.product(self.study["metrics"], self.arms):
            found: dict[str, dict[int, float]] = {}
            for seed in self.seeds:
                run = self.runs.get((arm["name"], seed))
                for prompt, value in (run.by_prompt(self.study["metrics"][metric]) if run else {}).items():
                    found.setdefault(prompt, {})[seed] = value
            if len(found) > 1:
                means = {prompt: self._mean(by_seed) for prompt, by_seed in found.items()}
                values = [m["mean"] for m in means.values()]
                spread = rounded(max(values) - min(values))
                rows.append({"metric": metric, "arm": arm["name"], "spread": spread, "prompts": means})
        return rows

    def _compare(self, a: Mapping[str, str], b: Mapping[str, str], metric: str) -> tuple[Json, SeedEffect | None]:
        """b against a on one metric, as JSON and as computed (None where no seed has both sides)."""
        kind = self.study["metrics"][metric]["kind"]
        sides, planned = self._sides(a, b, metric)
        seeds = [s for s in self.seeds if sides and self._all(sides.arms, s, metric)]
        row: Json = {
            "metric": metric,
            "a": dict(a),
            "b": dict(b),
            "relative": kind == "bits_per_byte",
            "by": "least_squares" if self._fitted(a) else "pairs",
            "of": sides.count if sides else 0,
            "of_planned": planned,
            "seeds": seeds,
        }
        numbers = ("effect", "low", "high", "se", "p", "detectable", "units", "clusters")
        if sides is None or not seeds:
            return row | dict.fromkeys(numbers) | {"by_seed": {}}, None
        effect = seed_effect(
            [self._pair(sides, seed, metric) for seed in seeds],
            relative=kind == "bits_per_byte",
            crossed=not self.study["own_questions"],
            confidence=self.study["confidence"],
        )
        found = [effect.effect, effect.low, effect.high, effect.se, effect.p]
        found.append(effect.detectable(len(self.seeds), self.study["confidence"]))
        row |= dict(zip(numbers, [*map(rounded, found), effect.units, effect.clusters]))
        row["by_seed"] = {str(s): rounded(d) for s, d in zip(seeds, effect.by_seed)}
        return row, effect

    def _fitted(self, a: Mapping[str, str]) -> bool:
        """Whether a comparison of these factors rests on a fit to all arms: a fraction of a grid has few pairs that differ in nothing else."""
        return self.study.get("grid") == "fractional" and len(a) < len(self.study["factors"])

    def _sides(self, a: Mapping[str, str], b: Mapping[str, str], metric: str) -> tuple[Sides | None, int]:
        """The arms of both sides, and of how many pairs (of a fit: arms) they should be.

        What no seed has (a failed arm) is left out; then those seeds count that have all that remains.
        """
        levels = {arm["name"]: arm["levels"] for arm in self.arms}
        groups: list[tuple[str, ...]] = [(n,) for n in levels] if self._fitted(a) else list(pairs_of(levels, a, b))
        usable = [g for g in groups if any(self._all(g, seed, metric) for seed in self.seeds)]
        for group in groups:
            if group not in usable and any(o["state"] == "failed" for n in group for o in self.outcomes[n].values()):
                missing = "no seed has it" if len(group) == 1 else "no seed has both"
                self.notes[f"{' against '.join(reversed(group))} is left out: {missing}."] = None
        for name in dict.fromkeys(n for group in groups for n in group):
            if any((name, s) in self.runs and self.measured(name, s, metric) is None for s in self.seeds):
                self.notes[f"{metric}: {name} has no such model, question or text."] = None
        if not self._fitted(a):
            return mean_of_pairs([(x, y) for x, y in usable]), len(groups)
        factors = {name: f["levels"] for name, f in self.study["factors"].items()}
        return least_squares({n: levels[n] for (n,) in usable}, factors, a, b) if usable else None, len(groups)

    def _all(self, arms: Sequence[str], seed: int, metric: str) -> bool:
        return all(self.measured(arm, seed, metric) is not None for arm in arms)

    def _pair(self, sides: Sides, seed: int, metric: str) -> SeedPair:
        """One seed's measurements of both sides: the weighted sums of their arms, on the units that all of them have."""
        names = sides.arms
        measured = [m for name in names if (m := self.measured(name, seed, metric)) is not None]
        same, left_out = common(measured)
        if left_out:
            self.notes[f"{metric}, seed {seed}: {left_out} units are not in every arm and are left out."] = None
        tops = np.array([m.tops for m in same])
        a, b = (np.array([side.get(n, 0.0) for n in names]) @ tops for side in (sides.a, sides.b))
        return SeedPair(a, b, same[0].clusters)

    def _verdict(self, told: Json, row: Json, effect: SeedEffect | None, p_holm: float | None, family: int) -> str:
        """reproduced, refuted or inconclusive; docs/studies.md says when."""
        if effect is None or p_holm is None or effect.seeds < 2:
            return "inconclusive"
        lower_is_better = row["relative"]
        margin, expect = told["margin"], told["expect"]
        settled = p_holm < self.alpha
        # One-sided p that the effect is at least the margin, in either direction; Bonferroni over the claims.
        small_above = effect.p_above(margin) * family < self.alpha
        small_below = effect.p_below(-margin) * family < self.alpha
        equivalent = small_above and small_below
        if expect == "same":
            if equivalent:
                return "reproduced"
            # Surely beyond the margin on one of the sides; twice the smaller p, for either side may be the one.
            beyond = 2 * min(effect.p_below(margin), effect.p_above(-margin)) * family < self.alpha
            return "refuted" if beyond else "inconclusive"
        if expect == "different":
            return "refuted" if equivalent else "reproduced" if settled else "inconclusive"
        up = (expect == "better") != lower_is_better
        # What is surely too small to matter is refuted, also where it surely is not 0.
        if small_above if up else small_below:
            return "refuted"
        return "reproduced" if settled and (effect.effect > 0) == up else "inconclusive"

    # Bits per byte --------------------------------------------------------------------------------------------------------------

    def _bits(self) -> list[Json]:
        """Bits per byte of each arm's last model, per corpus and source: mean over seeds."""
        rows = []
        for arm in self.arms:
            for corpus, source, language in self._texts(arm["name"]):
                metric = {"corpus": corpus, "source": source, "language": language}
                found = self._bits_of(arm, metric, arm["models"][-1])
                by_seed = {s: m.value for s, m in found.items()}
                rows.append({"arm": arm["name"], **metric, **self._mean(by_seed)})
        return rows

    def _forgetting(self) -> list[Json]:
        """Bits per byte of every model of every arm, per language; `change`: relative to the arm's first model."""
        rows = []
        for arm in self.arms:
            languages = dict.fromkeys(language for _, _, language in self._texts(arm["name"]))
            for language in languages:
                first = self._bits_of(arm, {"language": language}, arm["models"][0])
                for model in arm["models"]:
                    here = self._bits_of(arm, {"language": language}, model)
                    row = {"arm": arm["name"], "model": model, "language": language}
                    row |= self._mean({s: m.value for s, m in here.items()})
                    seeds = [s for s in here if s in first]
                    change = None
                    if model != arm["models"][0] and seeds:
                        pairs = []
                        for s in seeds:
                            (x, y), _ = common([first[s], here[s]])
                            pairs.append(SeedPair(x.tops, y.tops, x.clusters))
                        effect = seed_effect(
                            pairs,
                            relative=True,
                            crossed=not self.study["own_questions"],
                            confidence=self.study["confidence"],
                        )
                        change = {n: rounded(getattr(effect, n)) for n in ("effect", "low", "high")}
                    rows.append(row | {"change": change})
        return rows

    def _texts(self, arm: str) -> Iterator[tuple[str, str, str]]:
        """(corpus, source, language) of the held-out text that an arm's runs scored."""
        for seed in self.seeds:
            if run := self.runs.get((arm, seed)):
                found = {(r["corpus"], r["source"], r["language"]) for r in run.bits_rows()}
                yield from sorted(found)
                return

    def _bits_of(self, arm: Json, metric: Mapping[str, Any], model: str) -> dict[int, Measured]:
        found = {s: run.bits(metric, model) for s in self.seeds if (run := self.runs.get((arm["name"], s)))}
        return {s: m for s, m in found.items() if m is not None}


def _same(found: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Versions of packages; several where runs differ."""
    names = dict.fromkeys(name for versions in found for name in versions)
    return {name: ", ".join(sorted({v[name] for v in found if name in v})) for name in names}


def _machine(info: Mapping[str, Any]) -> str:
    return ", ".join(
        str(part) for part in (info.get("gpu"), info.get("processor"), f"{info.get('cores')} cores") if part
    )
