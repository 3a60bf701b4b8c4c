"""Text that repeats itself."""

from collections import Counter

import numpy as np

from pandallm.data.clean_spec import RepetitionStep
from pandallm.data.steps.document import Document, Step

_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def _most_repeats(text: str) -> int:
    """How often the most frequent 5-gram stands in a text of 5 or more characters, overlaps counted; quick."""
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.uint64)
    hashes = points[:-4]
    for k in range(1, 5):
        hashes = hashes * _FACTOR + points[k : len(points) - 4 + k]
    hashes.sort()
    ends = np.flatnonzero(np.concatenate([hashes[1:] != hashes[:-1], [True]]))
    return int(np.diff(ends, prepend=-1).max())


def make_repetition(step: RepetitionStep, where: str) -> Step:
    """Share of the text inside its most frequent 5-gram, overlaps not counted twice (Gopher, arXiv 2112.11446, A.1.1).

    A 5-gram that stands there less than three times is no repetition, however short the text.
    """

    def run(document: Document) -> str | None:
        text = document.text
        if len(text) < 5 or (most := _most_repeats(text)) < 3 or 5 * most <= step.max_share * len(text):
            return None
        count = text.count(Counter(text[i : i + 5] for i in range(len(text) - 4)).most_common(1)[0][0])
        return "repetition" if count >= 3 and 5 * count > step.max_share * len(text) else None

    return run
