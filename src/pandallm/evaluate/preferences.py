"""Which of two models is preferred: win rates with intervals, prompts being the observations."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

from scipy.stats import binomtest

from pandallm.stats.intervals import clustered_mean
from pandallm.stats.paired import holm, paired_difference

#: For each pair of models (a, b), by prompt: 1 where a is preferred, 0 where b is, 1/2 for a tie, or a mean of those.
Outcomes = Mapping[tuple[str, str], Mapping[str, float]]


def win_rates(
    outcomes: Outcomes, confidence: float = 0.95, adjust: Literal["p", "p_sign"] = "p"
) -> list[dict[str, Any]]:
    """One row per pair with outcomes: win rate of a (ties count half) with its interval, and two tests of "as often b".

    `p`: sign-flip over prompts; `p_sign`: exact sign test over the prompts that are no tie; `p_holm`: Holm over the
    pairs, of the one named by `adjust`. The interval is Student's t over prompts, Wilson's where all prompts agree.
    """
    rows: list[dict[str, Any]] = []
    for (a, b), by_prompt in outcomes.items():
        if not by_prompt:
            continue
        scores = list(by_prompt.values())
        rate = clustered_mean(scores, confidence=confidence)
        wins, losses = sum(s > 0.5 for s in scores), sum(s < 0.5 for s in scores)
        rows.append(
            {
                "a": a,
                "b": b,
                "prompts": len(scores),
                "a_wins": wins,
                "ties": len(scores) - wins - losses,
                "b_wins": losses,
                "win_rate": rate.mean,
                "low": rate.low,
                "high": rate.high,
                "p": paired_difference([1 - s for s in scores], scores, confidence=confidence).p,
                "p_sign": float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0,
            }
        )
    for row, adjusted in zip(rows, holm([r[adjust] for r in rows])):
        row["p_holm"] = adjusted
    return rows


def rank_outcomes(
    ballots: Sequence[Mapping[str, Sequence[int]]], order: Mapping[str, Sequence[str]], models: Sequence[str]
) -> dict[tuple[str, str], dict[str, float]]:
    """Outcomes of ranked votes. A ballot maps a prompt to the ranks (1 is best, equal ranks tie) of its shown answers.

    `order[prompt]` names the models in the order shown. Several ballots (readers) of one prompt are averaged.
    """
    outcomes: dict[tuple[str, str], dict[str, float]] = {}
    for a, b in combinations(models, 2):
        scores: dict[str, list[float]] = {}
        for ballot in ballots:
            for prompt, ranks in ballot.items():
                rank = dict(zip(order[prompt], ranks, strict=True))
                scores.setdefault(prompt, []).append(0.5 if rank[a] == rank[b] else 1.0 if rank[a] < rank[b] else 0.0)
        outcomes[a, b] = {prompt: sum(s) / len(s) for prompt, s in scores.items()}
    return outcomes
