"""The delta of a run: made, applied back, verified bit for bit."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pandallm.errors import PandaError
from pandallm.progress import Progress
from pandallm.store import Artifact, Work, digest_folder

if TYPE_CHECKING:
    from pandallm.pipeline.run import Run


def release(run: "Run", models: Mapping[str, tuple[Path, str]]) -> Artifact | None:
    """Delta of the recipe's target against its base; its facts say what came back."""
    r = run.recipe.release
    if r is None:
        return None
    base, target = models[r.base], models[r.target]

    def make(work: Work, progress: Progress) -> Mapping[str, Any]:
        from pandallm.release.delta import apply_delta, make_delta

        made = make_delta(base[0], target[0], work.folder / "delta", progress=progress)
        # Apply it as a reader would, and compare what came back with what was trained.
        back = work.folder / ".applied"
        apply_delta(base[0], work.folder / "delta", back, progress=progress)
        if digest_folder(back) != digest_folder(target[0]):
            raise PandaError(
                f"The delta of {r.target} against {r.base} does not give the target back; this is a bug, please report it."
            )
        return {**made, "base": r.base, "target": r.target, "verified": True}

    return run.stage(
        f"delta of {r.target}",
        "delta",
        {"base": r.base, "target": r.target},
        {"base": base[1], "target": target[1]},
        make,
    )
