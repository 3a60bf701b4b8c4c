"""A study's folder: what it is about, and how far each of its runs has come.

`RUNS/NAME/study.json`: the study, its arms and metrics; `RUNS/NAME/arms/ARM-seedN/`: an ordinary run folder with `outcome.json`.
Nothing here is written by two processes at odds, so that several may work on one study.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandallm import __version__
from pandallm.errors import BadInput
from pandallm.pipeline.run import VERSIONS
from pandallm.spec import nearest
from pandallm.store import digest_json, read_json, write_json
from pandallm.study.arms import Arm
from pandallm.study.load import StudyFile
from pandallm.study.metrics import resolve_metrics

STUDY, OUTCOME = "study.json", "outcome.json"


@dataclass(frozen=True)
class Job:
    """One run of a study: an arm and a seed."""

    arm: Arm
    seed: int
    study: str

    @property
    def folder(self) -> Path:
        return study_folder(self.arm, self.study) / "arms" / f"{self.arm.name}-seed{self.seed}"

    @property
    def name(self) -> str:
        return f"{self.arm.name}, seed {self.seed}"


def study_folder(arm: Arm, study: str) -> Path:
    """Where a study's runs lie: below the recipe's `runtime.runs`."""
    return Path(arm.recipe.runtime.runs).expanduser().absolute() / study


def all_jobs(arms: Sequence[Arm], study: StudyFile) -> list[Job]:
    """Every run of a study. Seed after seed, so that an unfinished study has whole seeds to compare."""
    return [Job(arm, seed, study.spec.name) for seed in study.spec.seeds for arm in arms]


def write_study(study: StudyFile, arms: Sequence[Arm]) -> Path:
    """Write study.json; returns the study's folder. Raises BadInput where the study measures nothing."""
    first = arms[0].recipe
    spec = study.spec
    metrics = resolve_metrics(study, [arm.recipe for arm in arms])
    folder = study_folder(arms[0], study.spec.name)
    write_json(
        folder / STUDY,
        {
            "name": spec.name,
            "description": spec.description,
            "description_zh": spec.description_zh,
            "subject": spec.subject,
            "recipe": spec.recipe,
            "confidence": spec.confidence,
            "margin": spec.margin.model_dump(),
            "seeds": list(spec.seeds),
            "own_questions": first.world is not None,  # each seed asks about a world of its own
            "grid": spec.grid.kind,
            "factors": {
                name: {
                    "kind": spec.factors[name].kind,
                    "levels": levels,
                    "baseline": spec.factors[name].reference if spec.factors[name].levels else levels[0],
                }
                for name, levels in levels_of(arms).items()
            },
            "metrics": metrics,
            "primary": primary_of(study, metrics),
            "contrasts": {n: c.model_dump(mode="json") for n, c in spec.contrasts.items()},
            "arms": [{"name": a.name, "levels": a.levels, "digest": a.digest, **_asked(a)} for a in arms],
        },
    )
    return folder


def levels_of(arms: Sequence[Arm]) -> dict[str, list[str]]:
    """Factor -> the levels that the arms have, in the order of the arms."""
    return {factor: list(dict.fromkeys(arm.levels[factor] for arm in arms)) for factor in arms[0].levels}


def _asked(arm: Arm) -> dict[str, Any]:
    e = arm.recipe.evaluate
    assert e is not None  # resolve_metrics has seen to it
    return {"models": list(e.models), "shots": e.shots[0], "chat": e.chat == "on"}


def primary_of(study: StudyFile, metrics: dict[str, Any]) -> str:
    """Name of the primary metric. Raises BadInput."""
    primary = study.spec.primary or next(iter(metrics))
    if primary not in metrics:
        raise BadInput(f"{study.where('primary')}: there is no metric '{primary}'.{nearest(primary, list(metrics))}")
    for name, contrast in study.spec.contrasts.items():
        if contrast.metric is not None and contrast.metric not in metrics:
            where = study.where("contrasts", name, "metric")
            raise BadInput(f"{where}: there is no metric '{contrast.metric}'.{nearest(contrast.metric, list(metrics))}")
    return primary


def made_by() -> str:
    """Digest of what decides a run's results besides its recipe: the versions of the stages."""
    return digest_json({"pandallm": __version__, "stages": VERSIONS})


def outcome(folder: Path, digest: str, *, any_version: bool = False) -> dict[str, Any]:
    """What came of a run: {"state": complete, failed or missing, "error", "seconds"}; `missing` too where it was another recipe's.

    any_version: also where an earlier version of pandallm made it, which reports may show and a new call of `run` would make again.
    """
    path = folder / OUTCOME
    stored: dict[str, Any] = read_json(path) if path.is_file() else {}
    if stored.get("digest") != digest or (not any_version and stored.get("made_by") != made_by()):
        return {"state": "missing", "error": None, "seconds": None}
    if stored["state"] == "complete" and not (folder / "scores.json").is_file():
        return {"state": "missing", "error": None, "seconds": None}
    return {key: stored[key] for key in ("state", "error", "seconds")}


def stamp(job: Job) -> int | None:
    """When a run's outcome was last written, to tell an old failure from a new one; None where there is none."""
    path = job.folder / OUTCOME
    return path.stat().st_mtime_ns if path.is_file() else None


def write_outcome(job: Job, state: str, seconds: float, error: str | None = None) -> None:
    """Note what came of a run, in its folder."""
    write_json(
        job.folder / OUTCOME,
        {
            "state": state,
            "error": error,
            "seconds": round(seconds, 2),
            "digest": job.arm.digest,
            "made_by": made_by(),
        },
    )
