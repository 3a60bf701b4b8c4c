"""What `panda check` says of a study file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pandallm.pipeline.check import check_recipe
from pandallm.recipe.yaml_lines import Document
from pandallm.study.arms import make_arms
from pandallm.study.load import load_study


def is_study(name: str | None) -> bool:
    """Whether a file is a study: YAML with `factors`. Raises BadInput for YAML that cannot be read."""
    path = Path(name or "")
    return path.suffix in (".yaml", ".yml") and path.is_file() and "factors" in Document.read(path).data


def check_study(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Types, names, arms, and what looks wrong in the arms' recipes. Reads no data.

    {"ok": True, "study": path, "name", "arms": [names], "seeds": n, "warnings": [sentences]}; a warning of some arms only begins with
    the first of them. Raises BadInput as `load_study` and `make_arms` do.
    """
    study = load_study(path)
    arms = make_arms(study, overrides)
    told: dict[str, list[str]] = {}
    for arm in arms:
        for warning in check_recipe(arm.recipe):
            told.setdefault(warning, []).append(arm.name)
    warnings = [w if len(names) == len(arms) else f"{_some(names)}: {w}" for w, names in told.items()]
    return {
        "ok": True,
        "study": str(path),
        "name": study.spec.name,
        "arms": [arm.name for arm in arms],
        "seeds": len(study.spec.seeds),
        "warnings": warnings,
    }


def study_text(found: dict[str, Any]) -> str:
    """`check_study` for people."""
    head = f"{found['study']}: ok ({found['name']}: {len(found['arms'])} arms, {found['seeds']} seeds)"
    return "\n".join([head, *(f"  warning: {w}" for w in found["warnings"])])


def _some(names: Sequence[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
