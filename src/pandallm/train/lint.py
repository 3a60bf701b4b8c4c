"""What looks wrong in a stage's settings before it trains; warnings only, and no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pandallm.train.schedule import learning_rate, warmup_steps
from pandallm.train.spec import TrainSpec

#: Fewer steps than this rarely settle: warm-up and decay take most of them.
FEW_STEPS = 100
#: A warm-up longer than this share of the steps.
LONG_WARMUP = 0.1
#: Repeating a corpus up to four times is nearly as good as new text (Muennighoff et al. 2023, arXiv 2305.16264, section 6).
MANY_PASSES = 4.0
#: More than two passes of fewer trained tokens than this are soon learnt by heart.
LITTLE_DATA = 1_000_000
#: The rate counts as down where it is within this share of lr of where the schedule goes.
RATE_TOLERANCE = 0.01


@dataclass(frozen=True)
class Finding:
    """One warning. `code` is for programs: few_steps, warmup, final_lr, schedule_steps, large_batch or passes."""

    code: str
    text: str


def lint_stage(spec: TrainSpec, facts: Mapping[str, Any]) -> list[Finding]:
    """Findings about a stage whose packs have these facts.

    facts: pack.json, or an estimate of it: `steps`, and where known `rows` (stored rows of one pass) and
    `ledger.total` with `exposures`, `unique`, `trained` (unique trained tokens). What is not given is not checked.
    """
    o, steps = spec.optimizer, int(facts["steps"])
    findings = []
    if steps < FEW_STEPS:
        findings.append(
            Finding(
                "few_steps", f"only {_count(steps, 'step')}: give more text or epochs, or a smaller batch_sequences."
            )
        )
    warm = warmup_steps(o, o.schedule_steps or steps)
    if warm > LONG_WARMUP * steps and warm > 1:
        findings.append(
            Finding(
                "warmup",
                f"warm-up takes {warm:,} of {_count(steps, 'step')} ({min(1.0, warm / steps):.0%}): lower optimizer.warmup.",
            )
        )
    findings += _schedule(spec, steps)
    rows = facts.get("rows")
    if rows is not None and spec.batch_sequences > rows:
        findings.append(
            Finding(
                "large_batch",
                f"batch_sequences {spec.batch_sequences:,} is more than the {_count(int(rows), 'row')} of the corpus: "
                "every step reads all of it; lower batch_sequences.",
            )
        )
    return findings + _passes(facts)


def _schedule(spec: TrainSpec, steps: int) -> list[Finding]:
    o = spec.optimizer
    if o.schedule == "constant":
        return []
    goal, last = o.lr * o.final_lr_share, learning_rate(o, steps, steps)
    made_for = o.schedule_steps or steps
    if abs(last - goal) > RATE_TOLERANCE * o.lr:
        why = (
            f"optimizer.schedule_steps is {made_for:,}; leave it out"
            if made_for > steps
            else "warm-up takes all steps; lower optimizer.warmup"
        )
        return [
            Finding(
                "final_lr",
                f"after {_count(steps, 'step')} the learning rate is {last:.2g} and not yet the final {goal:.2g}: {why}.",
            )
        ]
    if made_for < steps:
        waste = ", which trains nothing" if goal == 0 else ""
        return [
            Finding(
                "schedule_steps",
                f"optimizer.schedule_steps {made_for:,} ends before the {_count(steps, 'step')} of the stage: the rest runs at "
                f"the final rate {goal:.2g}{waste}; leave schedule_steps out.",
            )
        ]
    if made_for > steps:
        return [
            Finding(
                "schedule_steps",
                f"optimizer.schedule_steps {made_for:,} is not the {_count(steps, 'step')} of the stage; leave it out.",
            )
        ]
    return []


def _passes(facts: Mapping[str, Any]) -> list[Finding]:
    total = facts.get("ledger", {}).get("total", {})
    unique, exposures, trained = (total.get(k) for k in ("unique", "exposures", "trained"))
    if not unique or exposures is None:
        return []
    passes = exposures / unique
    if passes > MANY_PASSES:
        return [
            Finding(
                "passes",
                f"the text is read {passes:.1f} times, more than {MANY_PASSES:.0f} rarely help: lower epochs or add text, and "
                "watch held-out text (`watch`).",
            )
        ]
    if trained is not None and trained < LITTLE_DATA and passes > 2:
        return [
            Finding(
                "passes",
                f"{passes:.1f} passes of only {trained:,} trained tokens are soon learnt by heart: lower epochs, or watch "
                "held-out text (`watch`).",
            )
        ]
    return []


def _count(n: int, unit: str) -> str:
    return f"{n:,} {unit}{'' if n == 1 else 's'}"
