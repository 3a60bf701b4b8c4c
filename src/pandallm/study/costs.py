"""Hours and price of a study's training: what `panda plan` says of each arm, every stage counted once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pandallm.errors import PandaError
from pandallm.pipeline.graph import stage_graph
from pandallm.progress import SILENT, Progress
from pandallm.study.arms import Arm

Json = dict[str, Any]


def training_costs(
    arms: Sequence[Arm],
    seeds: Sequence[int],
    on: str | None = None,
    device_file: Path | None = None,
    progress: Progress = SILENT,
) -> Json:
    """Training hours of all runs, with and without sharing, and their price; each arm is planned with the first seed only.

    {"place", "hours", "low", "high", "hours_without_sharing", "usd" (None where no price is known), "fits", "arms": {arm: hours},
    "why" (None, or the sentence why nothing is known)}. Evaluation and data stages are not in it. Raises BadInput for an unknown device.
    """
    from pandallm.pipeline.plan.recipe import plan_recipe

    total = dict.fromkeys(("hours", "low", "high", "hours_without_sharing", "usd"), 0.0)
    by_arm: dict[str, float] = {}
    place, fits, priced = "", True, True
    seen: set[str] = set()
    with progress.task("hours of each arm", len(arms), "arms") as task:
        for arm in arms:
            try:
                plan = plan_recipe(arm.run(seeds[0], "plan"), on=on, device_file=device_file)
            except PandaError as e:
                if on is not None:  # asked for these devices: a wrong name is to be mended
                    raise
                return {"why": f"{arm.name}: {e}"}
            place = plan["place"]["label"]
            stages = {stage["name"]: stage for stage in plan["stages"]}
            by_arm[arm.name] = sum(stage["hours"]["hours"] for stage in stages.values())
            fits = fits and all(stage["fits"] for stage in stages.values())
            for seed in seeds:
                for node in stage_graph(arm.run(seed, "plan")):
                    if node.kind != "train":
                        continue
                    stage = stages[node.name.removeprefix("train ")]
                    total["hours_without_sharing"] += stage["hours"]["hours"]
                    if node.identity in seen:
                        continue
                    seen.add(node.identity)
                    for name in ("hours", "low", "high"):
                        total[name] += stage["hours"][name]
                    priced = priced and stage["usd"] is not None
                    total["usd"] += stage["usd"]["usd"] if stage["usd"] else 0.0
            task.advance(1)
    return {**total, "usd": total["usd"] if priced else None, "place": place, "fits": fits, "arms": by_arm, "why": None}
