"""What a study will do, before it does it: arms, what they share, what they can find."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy import special

from pandallm.errors import PandaError
from pandallm.pipeline.graph import stage_graph
from pandallm.progress import SILENT, Progress
from pandallm.recipe.spec import Recipe
from pandallm.stats.power import design_effect, detectable_paired
from pandallm.study.arms import Arm
from pandallm.study.costs import training_costs
from pandallm.study.folder import Job, all_jobs, levels_of, primary_of
from pandallm.study.load import StudyFile
from pandallm.study.metrics import resolve_metrics
from pandallm.study.run import states

Json = dict[str, Any]
#: What is assumed of two arms' answers: both are told with the result.
DISCORDANCE, ICC, POWER = 0.2, 0.2, 0.8


def plan_study(
    study: StudyFile,
    arms: Sequence[Arm],
    *,
    on: str | None = None,
    device_file: Path | None = None,
    costs: bool = True,
    progress: Progress = SILENT,
) -> Json:
    """Arms, seeds, stages with and without sharing, tokens trained, hours and price (`costs`, on devices as `panda plan` takes them), runs
    that are done, the smallest effects that can be found. Raises BadInput.
    """
    jobs = all_jobs(arms, study)
    metrics = resolve_metrics(study, [arm.recipe for arm in arms])
    contrasts = len(study.spec.contrasts) or sum(len(levels) - 1 for levels in levels_of(arms).values())
    return {
        "name": study.spec.name,
        "description": study.spec.description,
        "recipe": study.spec.recipe,
        "seeds": list(study.spec.seeds),
        "arms": [{"name": a.name, "levels": a.levels} for a in arms],
        "runs": len(jobs),
        "states": states(jobs),
        "stages": _stages(jobs),
        "training": _training(jobs),
        "costs": training_costs(arms, study.spec.seeds, on, device_file, progress) if costs else None,
        "metrics": metrics,
        "primary": primary_of(study, metrics),
        "contrasts": contrasts,
        "detectable": _detectable(study, arms[0].recipe, metrics, contrasts),
    }


def _stages(jobs: Sequence[Job]) -> list[Json]:
    """Per kind of stage: how many the runs have together, and how many different ones are made."""
    total: dict[str, int] = {}
    different: dict[str, set[str]] = {}
    for job in jobs:
        for node in stage_graph(job.arm.run(job.seed, job.study)):
            total[node.kind] = total.get(node.kind, 0) + 1
            different.setdefault(node.kind, set()).add(node.identity)
    return [{"kind": kind, "total": n, "made": len(different[kind])} for kind, n in total.items()]


def _training(jobs: Sequence[Job]) -> Json:
    """Tokens of the training stages whose budget is in tokens or steps: all runs together, and the stages that are made.

    `unknown`: names of stages whose length depends on the data (epochs, documents).
    """
    total = made = 0
    seen: set[str] = set()
    unknown: dict[str, None] = {}
    for job in jobs:
        recipe = job.arm.run(job.seed, job.study)
        specs = {f"train {n}": s for n, s in recipe.stages.items()}
        if recipe.base.scratch:
            specs["train base"] = recipe.base.scratch.train  # type: ignore[assignment]
        for node in stage_graph(recipe):
            if node.kind != "train":
                continue
            spec = specs[node.name]
            steps = (spec.steps or 0) * spec.sequence_length * spec.batch_sequences
            tokens = spec.tokens or steps
            if not tokens:
                unknown[node.name.removeprefix("train ")] = None
            total += tokens
            if node.identity not in seen:
                seen.add(node.identity)
                made += tokens
    return {"tokens_without_sharing": total, "tokens": made, "unknown": list(unknown)}


def _detectable(study: StudyFile, recipe: Recipe, metrics: Json, contrasts: int) -> list[Json]:
    """Smallest difference of two arms that each accuracy finds, on stated assumptions; of bits per byte nothing is known beforehand."""
    found: list[Json] = []
    seeds = len(study.spec.seeds)
    for name, metric in metrics.items():
        if metric["kind"] != "accuracy":
            found.append({"metric": name, "detectable": None, "why": "its spread is known after the first seeds"})
            continue
        try:
            sizes = _cluster_sizes(recipe, metric)
        except PandaError as e:
            found.append({"metric": name, "detectable": None, "why": str(e)})
            continue
        n, confidence = sum(sizes), study.spec.confidence
        # In a made-up world each seed asks about other people; elsewhere every seed asks the same questions.
        own = seeds if recipe.world else 1
        deff = design_effect(sizes * own, ICC)
        corrected = 1 - (1 - confidence) / contrasts
        normal = detectable_paired(n * own, DISCORDANCE, deff, corrected, POWER)
        alpha = (1 - corrected) / 2
        # Few seeds: Student's t in the place of the normal.
        wider = 1.0
        if recipe.world and seeds > 1:
            t = special.stdtrit(seeds - 1, 1 - alpha) + special.stdtrit(seeds - 1, POWER)
            wider = float(t / (special.ndtri(1 - alpha) + special.ndtri(POWER)))
        found.append(
            {
                "metric": name,
                "detectable": normal * wider,
                "questions": n,
                "clusters": len(sizes),
                "seeds": seeds,
                "discordance": DISCORDANCE,
                "icc": ICC,
                "power": POWER,
                "comparisons": contrasts,
            }
        )
    return found


def _cluster_sizes(recipe: Recipe, metric: Json) -> list[int]:
    """Questions per passage (in the built-in world: per person) of one seed. Raises PandaError where the task's files are not here."""
    import tempfile

    from pandallm.evaluate.select import sample
    from pandallm.pipeline.run import Run

    assert recipe.evaluate is not None  # a metric names its tasks
    limits = recipe.evaluate.limit
    with tempfile.TemporaryDirectory() as folder:
        # The world's questions are made in a moment; nothing of the plan is kept.
        runtime = recipe.runtime.model_copy(update={"store": folder, "runs": folder})
        tasks = Run(recipe.model_copy(update={"runtime": runtime})).tasks()
        sizes: dict[tuple[str, str], int] = {}
        for name in metric["tasks"]:
            for question in sample(tasks[name][1], limits.passages, getattr(limits, metric["method"])):
                if metric["group"] is None or question.group == metric["group"]:
                    key = (name, question.cluster)
                    sizes[key] = sizes.get(key, 0) + 1
        return list(sizes.values())
