"""Learning rate by step."""

import math

from pandallm.train.spec import OptimizerSpec


def warmup_steps(spec: OptimizerSpec, steps: int) -> int:
    """Steps of linear warm-up: a share of `steps` when `warmup` < 1, else that many; at most all of them."""
    return min(steps, round(spec.warmup * steps) if spec.warmup < 1 else int(spec.warmup))


def learning_rate(spec: OptimizerSpec, step: int, steps: int) -> float:
    """Learning rate of step 0 .. steps - 1.

    The last warm-up step has the full rate; no step has rate 0 in warm-up. `linear` and `cosine` go down to
    final_lr_share x lr at step `steps`, the one after the last, as transformers' schedules do; `wsd` (warm-up, stable,
    decay; Hu et al. 2024, MiniCPM, section 4.2) stays at lr and goes down linearly over the last `decay_share` of all
    steps; `constant` stays at lr. `schedule_steps` stands for `steps` where it is given; after it the rate stays the last one.
    """
    steps = spec.schedule_steps or steps
    warm = warmup_steps(spec, steps)
    if step < warm:
        return spec.lr * (step + 1) / warm
    if spec.schedule == "constant":
        return spec.lr
    begin = max(warm, steps - round(spec.decay_share * steps)) if spec.schedule == "wsd" else warm
    progress = min(1.0, max(0.0, (step - begin) / max(1, steps - begin)))
    left = (1 + math.cos(math.pi * progress)) / 2 if spec.schedule == "cosine" else 1 - progress
    return spec.lr * (spec.final_lr_share + (1 - spec.final_lr_share) * left)
