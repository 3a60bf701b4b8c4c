"""One task under several prompts: the prompts are a sample too."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from pandallm.stats.intervals import clustered_mean


@dataclass(frozen=True)
class PromptEffect:
    """Accuracy over all prompts; `low`, `high` cover the choice of prompts and of questions.

    `se_sampling`: standard error from the choice of questions alone, clustered by passage. `spread`: standard deviation
    of the prompts' accuracies (n - 1), `minimum` and `maximum` the worst and the best prompt's.
    """

    mean: float
    low: float
    high: float
    se_sampling: float
    spread: float
    minimum: float
    maximum: float
    prompts: int


def prompt_effect(
    values_PQ: Sequence[Sequence[float]] | NDArray[np.float64],
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
) -> PromptEffect:
    """Prompts (P) and passages as crossed random effects, over questions (Q) whose values lie in [0, 1].

    se² = se_sampling² + spread² / P: `se_sampling` is `clustered_mean`'s of each question's mean over the prompts. The
    two add up as in two-way clustering (Cameron, Gelbach & Miller 2011, J. Bus. Econ. Stat. 29:238) without its
    subtracted third term (question by prompt noise, counted twice here), so the interval errs on the wide side.
    Interval: mean ± t se, t the mean of the quantiles with the passages' and with P - 1 degrees of freedom, weighted by
    the two variances (Cochran & Cox 1950, Experimental Designs). Satterthwaite's single number of degrees
    of freedom misses more than it says where four prompts differ by much.
    `spread` contains the noise of the questions as well; it is not a pure variance component.
    Where all prompts score the same, the interval is `clustered_mean`'s; one passage gives [0, 1].
    Raises ValueError for fewer than two prompts, no questions, or prompts with different numbers of questions.
    """
    lengths = {len(row) for row in values_PQ}
    if len(lengths) > 1:
        raise ValueError(f"the prompts have different numbers of questions: {sorted(lengths)}")
    y = np.asarray(values_PQ, dtype=np.float64)
    if y.ndim != 2 or y.shape[0] < 2:
        raise ValueError("an effect of prompts needs two prompts or more")
    sampling = clustered_mean(y.mean(axis=0), clusters, confidence)
    by_prompt = y.mean(axis=1)
    spread = float(by_prompt.std(ddof=1))
    low, high = sampling.low, sampling.high
    prompts, between = y.shape[0], spread * spread / y.shape[0]
    if between > 1e-24 and sampling.df is not None:
        within = sampling.se**2
        questions, between_prompts = special.stdtrit([sampling.df, prompts - 1], 0.5 + confidence / 2)
        t = (within * questions + between * between_prompts) / (within + between)
        reach = float(t) * math.sqrt(within + between)
        low, high = max(0.0, sampling.mean - reach), min(1.0, sampling.mean + reach)
    return PromptEffect(
        mean=sampling.mean,
        low=low,
        high=high,
        se_sampling=sampling.se,
        spread=spread,
        minimum=float(by_prompt.min()),
        maximum=float(by_prompt.max()),
        prompts=prompts,
    )
