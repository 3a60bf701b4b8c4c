"""Published results of the 2023 paper (arXiv 2305.03025), as counts of right answers: what `against: published` shows."""

#: Questions of each test set.
QUESTIONS = {"logiqa2-zh": 1594, "c3-d": 1890, "c3-m": 2002}
#: Right answers; accuracies in the paper are these over QUESTIONS. Zero shot, greedy, up to 64 new tokens.
RIGHT = {
    "BELLE-LLaMA-Ext-7B": {"logiqa2-zh": 421, "c3-d": 558, "c3-m": 578},
    "Linly-Chinese-LLaMA-7b-hf": {"logiqa2-zh": 413, "c3-d": 610, "c3-m": 691},
    "Panda-7B": {"logiqa2-zh": 437, "c3-d": 813, "c3-m": 874},
    "Panda-Instruct-7B, 3k steps": {"logiqa2-zh": 418, "c3-d": 738, "c3-m": 843},
    "Panda-Instruct-7B, 6k steps": {"logiqa2-zh": 483, "c3-d": 891, "c3-m": 1140},
    "Panda-Instruct-7B, 9k steps": {"logiqa2-zh": 509, "c3-d": 894, "c3-m": 1142},
    "Panda-13B": {"logiqa2-zh": 394, "c3-d": 906, "c3-m": 995},
}


def published_accuracy(model: str, task: str) -> float:
    """Accuracy in [0, 1]. Raises KeyError for a model or task that the paper does not have."""
    return RIGHT[model][task] / QUESTIONS[task]
