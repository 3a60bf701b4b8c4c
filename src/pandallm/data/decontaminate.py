"""Which examples repeat a benchmark's text, by shared runs of characters."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from pandallm.data.ngrams import ngram_hashes

_NOT_TEXT = re.compile(r"[\W_]+")
_TABLE_BITS = 24

Contamination: TypeAlias = Mapping[str, Sequence[tuple[str, str]]]


def contamination_text(text: str) -> str:
    """NFKC, lower case, letters and digits only: what two printings of one text share."""
    return _NOT_TEXT.sub("", unicodedata.normalize("NFKC", text).lower())


class ContaminationIndex:
    """n-grams of benchmark texts, sorted by hash; every hit is checked character by character.

    texts: task -> [(question id, text)].
    """

    def __init__(self, texts: Contamination, ngram_chars: int = 13) -> None:
        self.ngram_chars = ngram_chars
        self._names = [(task, question) for task, rows in texts.items() for question, _ in rows]
        self._texts = [contamination_text(text) for rows in texts.values() for _, text in rows]
        hashes, offsets = ngram_hashes(self._texts, ngram_chars)
        owners = np.repeat(np.arange(len(self._texts)), np.diff(offsets))
        order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[order]
        self._owners = owners[order].astype(np.int32)
        self._places = (np.arange(len(hashes)) - offsets[owners])[order].astype(np.int32)
        self._table = np.zeros(1 << _TABLE_BITS, np.bool_)  # most misses end at one look here
        self._table[hashes >> np.uint64(64 - _TABLE_BITS)] = True

    def find(self, texts: Sequence[str]) -> list[tuple[str, str] | None]:
        """For each text the (task, question id) of the first benchmark run that it holds, or None."""
        found: list[tuple[str, str] | None] = [None] * len(texts)
        if not len(self._hashes) or not texts:
            return found
        n, plain = self.ngram_chars, [contamination_text(t) for t in texts]
        hashes, offsets = ngram_hashes(plain, n)
        candidates = np.flatnonzero(self._table[hashes >> np.uint64(64 - _TABLE_BITS)])
        low = np.searchsorted(self._hashes, hashes[candidates], "left")
        hit = self._hashes[np.minimum(low, len(self._hashes) - 1)] == hashes[candidates]
        candidates, low = candidates[hit], low[hit]
        documents = np.searchsorted(offsets, candidates, "right") - 1
        for candidate, first, document in zip(candidates.tolist(), low.tolist(), documents.tolist(), strict=True):
            if found[document] is not None:
                continue
            start = candidate - int(offsets[document])
            gram = plain[document][start : start + n]
            for k in range(first, len(self._hashes)):
                if self._hashes[k] != hashes[candidate]:
                    break
                owner, place = int(self._owners[k]), int(self._places[k])
                if self._texts[owner][place : place + n] == gram:
                    found[document] = self._names[owner]
                    break
        return found
