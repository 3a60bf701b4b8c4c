"""How small a difference of a study's primary metric more seeds would find."""

from collections.abc import Mapping, Sequence
from typing import Any

from pandallm.stats.seeds import SeedEffect
from pandallm.study.measure import rounded

Json = dict[str, Any]
#: Numbers of seeds of a power curve.
SEEDS = tuple(range(2, 21))
#: Probability with which the difference is found.
POWER = 0.8


def power_curves(
    compared: Sequence[tuple[str, Mapping[str, Any], SeedEffect | None]], metric: str, margin: float, confidence: float
) -> Json:
    """Per comparison (name, row, effect): the smallest difference that 2 to 20 seeds find, from the spread of the seeds so far.

    Returns {"metric", "margin", "power", "seeds": [2 ..], "curves": [{"name", "a", "b", "seeds": how many there are, "detectable": one per
    number of seeds, "enough": the least seeds that find `margin`, None where more than 20 are needed}]}. Comparisons with fewer than two
    seeds, or whose seeds do not differ at all, have no curve: they show no spread.
    """
    curves = []
    for name, row, effect in compared:
        if effect is None or effect.seeds < 2 or not effect.se > 0:
            continue
        found = [effect.detectable(n, confidence, POWER) for n in SEEDS]
        curves.append(
            {
                "name": name,
                "a": row["a"],
                "b": row["b"],
                "seeds": effect.seeds,
                "detectable": [rounded(d) for d in found],
                "enough": next((n for n, d in zip(SEEDS, found) if d <= margin), None),
            }
        )
    return {"metric": metric, "margin": margin, "power": POWER, "seeds": list(SEEDS), "curves": curves}
