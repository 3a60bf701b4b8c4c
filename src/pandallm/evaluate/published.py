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
#: Right answers of always naming the most frequent letter, which no model of the table had to read a question for.
CONSTANT = {"logiqa2-zh": ("D", 421), "c3-d": ("C", 559), "c3-m": ("B", 557)}
#: Passages (dialogues) that the questions of each test set share.
PASSAGES = {"logiqa2-zh": 1578, "c3-d": 1627, "c3-m": 1045}
#: Number of passages by how many questions they have. The totals are those of the test sets (PASSAGES, QUESTIONS). How they
#: spread is known for LogiQA up to a few (16 pairs: the totals allow hardly more) and for C3-m up to rounding (its design effects, 1.36
#: and 1.91 at correlations .2 and .5, shaped as in its development set); C3-d is shaped half-way between its development
#: and its training set, whose means by question are 1.45 and 1.72 (here 1.60).
PASSAGES_BY_SIZE = {
    "logiqa2-zh": {1: 1562, 2: 16},
    "c3-d": {1: 1529, 2: 28, 3: 17, 4: 11, 5: 42},
    "c3-m": {1: 666, 2: 50, 3: 114, 4: 187, 5: 22, 6: 6},
}
#: Lowest and highest accuracy that guessing among each question's own options can expect. LogiQA has four options
#: everywhere. C3 has two to four; only their mean (3.81 in C3-d, 3.75 in C3-m, to two places) is known of the test sets,
#: and the two ends are what mixtures of 3 with 4, and of 2 with 4, options give at that mean.
CHANCE = {"logiqa2-zh": (0.25, 0.25), "c3-d": (0.2654, 0.2744), "c3-m": (0.2704, 0.2819)}


def published_accuracy(model: str, task: str) -> float:
    """Accuracy in [0, 1]. Raises KeyError for a model or task that the paper does not have."""
    return RIGHT[model][task] / QUESTIONS[task]


def passage_sizes(task: str) -> list[int]:
    """Questions per passage of a published test set, one number a passage. Raises KeyError for another task."""
    return [size for size, passages in PASSAGES_BY_SIZE[task].items() for _ in range(passages)]
