"""Dedup: keys of a text alone, every exact copy found, near copies found and verified, work linear in the rows."""

import hashlib
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pandallm.data import dedup
from pandallm.data.dedup import TextKeys, exact_duplicates, near_duplicates, text_keys
from pandallm.data.fold import fold
from pandallm.data.spec import ExactDedup, MinhashDedup, NoDedup

SPEC = MinhashDedup(permutations=126, bands=21)
HAN = [chr(0x4E00 + i) for i in range(2_000)]


def prose(rng: random.Random, n: int = 300) -> str:
    return "".join(rng.choices(HAN, k=n))


def edited(rng: random.Random, text: str, edits: int) -> str:
    """Substitutions, deletions and insertions at `edits` places."""
    points = list(text)
    for place in rng.sample(range(len(points)), edits):
        points[place] = rng.choice([rng.choice(HAN), "", points[place] + rng.choice(HAN)])
    return "".join(points)


def grams(text: str, n: int = 5) -> set[str]:
    return {text[i : i + n] for i in range(len(text) - n + 1)}


def jaccard(a: str, b: str) -> float:
    x, y = grams(fold(a)), grams(fold(b))
    return len(x & y) / len(x | y)


def kept_rows(keys: TextKeys, texts: list[str], spec: MinhashDedup = SPEC) -> NDArray[np.int64]:
    assert keys.bands is not None
    bands = keys.bands
    return near_duplicates(lambda b: bands[:, b], exact_duplicates(keys.content), texts.__getitem__, spec)


def test_content_keys_are_hashes_of_the_folded_text() -> None:
    texts = ["", "甲乙", "ＡＢ\u3000 c\n", "AB c", "e\u0301", "é", "\ud800"]
    keys = text_keys(texts, ExactDedup())
    expected = [hashlib.blake2b(fold(t).encode("utf-8", "surrogatepass"), digest_size=16).digest() for t in texts]
    assert [k.tobytes() for k in keys.content] == expected
    assert exact_duplicates(keys.content).tolist() == [0, 1, 2, 2, 4, 4, 6]
    assert keys.bands is None
    assert text_keys(texts, NoDedup()).content.tobytes() == keys.content.tobytes()


@given(st.lists(st.text(max_size=12), max_size=8))
def test_quick_keys_tell_the_same_texts_apart(texts: list[str]) -> None:
    ranked, quick = (text_keys(texts, ExactDedup(), ranked=r).content for r in (True, False))
    assert exact_duplicates(ranked).tolist() == exact_duplicates(quick).tolist()
    alone = [text_keys([t], ExactDedup(), ranked=False).content.tobytes() for t in texts]
    assert [k.tobytes() for k in quick] == alone


def test_keys_do_not_depend_on_the_batch() -> None:
    rng = random.Random(1)
    texts = [prose(rng, rng.choice([0, 1, 4, 5, 6, 40, 3_000, 40_000])) + " …" * (i % 3) for i in range(60)]
    together = text_keys(texts, SPEC)
    assert together.bands is not None
    assert (together.bands.shape, together.bands.dtype) == ((60, 21), np.uint64)
    for i, text in enumerate(texts):
        alone = text_keys([text], SPEC)
        assert alone.bands is not None
        assert alone.content.tobytes() == together.content[i].tobytes()
        assert np.array_equal(alone.bands[0], together.bands[i])
        assert alone.bands.all() == (len(fold(text)) >= 5)  # 0 marks "no n-gram"
    empty = text_keys([], SPEC)
    assert empty.bands is not None
    assert (empty.content.shape, empty.bands.shape) == ((0,), (0, 21))


def test_band_keys_stay_what_they_are() -> None:
    """Corpora in stores were deduplicated by these keys; a change of any part of them needs a new VERSION of cleaning."""
    keys = text_keys(["天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。", "The quick brown fox"], SPEC)
    assert keys.bands is not None
    assert hashlib.sha256(keys.bands.tobytes()).hexdigest()[:16] == "9db53833de197823"


def test_shared_bands_grow_with_likeness() -> None:
    """Of 21 bands of 6 rows, J^6 of them are shared in the mean."""
    rng = random.Random(2)
    for edits, n in ((3, 300), (12, 300)):
        pairs = [(t := prose(rng, n), edited(rng, t, edits)) for _ in range(150)]
        bands = text_keys([t for p in pairs for t in p], SPEC).bands
        assert bands is not None
        shared = float((bands[::2] == bands[1::2]).mean())
        assert shared == pytest.approx(np.mean([jaccard(*p) ** 6 for p in pairs]), abs=0.04)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30))
def test_exact_duplicates_point_to_the_first(rows: list[tuple[int, int]]) -> None:
    keys = np.array(rows, np.uint64).reshape(-1, 2).view(np.dtype((np.void, 16))).ravel()
    assert exact_duplicates(keys).tolist() == [rows.index(r) for r in rows]


def greedy(bands: NDArray[np.uint64], texts: list[str], spec: MinhashDedup) -> list[int]:
    """Rows kept, by the rule written out."""
    kept: list[int] = []
    folded = [fold(t) for t in texts]
    for i in range(len(texts)):
        if folded[i] in [folded[k] for k in range(i)]:
            continue
        for k in kept:
            a, b = grams(folded[i], spec.ngram_chars), grams(folded[k], spec.ngram_chars)
            if ((bands[i] == bands[k]) & (bands[i] != 0)).any() and len(a & b) >= spec.threshold * len(a | b):
                break
        else:
            kept.append(i)
    return kept


SMALL = MinhashDedup(ngram_chars=2, permutations=4, bands=4, threshold=0.5)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.text("甲乙丙 Ａ", max_size=8), st.lists(st.integers(0, 3), min_size=4, max_size=4)), max_size=12
    )
)
def test_near_duplicates_follow_the_greedy_rule(rows: list[tuple[str, list[int]]]) -> None:
    """Any texts with any band keys: what is kept, and that every removed row names a kept like one before it."""
    texts = [t for t, _ in rows]
    bands = np.array([b for _, b in rows], np.uint64).reshape(-1, 4)
    for i in range(len(texts)):  # equal texts have equal keys, a text without n-gram has none
        bands[i] = bands[[fold(t) for t in texts].index(fold(texts[i]))] if len(fold(texts[i])) >= 2 else 0
    keys = TextKeys(text_keys(texts, ExactDedup()).content, bands)
    got = kept_rows(keys, texts, SMALL)
    assert np.flatnonzero(got == np.arange(len(texts))).tolist() == greedy(bands, texts, SMALL)
    for i, other in enumerate(got.tolist()):
        assert got[other] == other <= i
        if other != i and fold(texts[i]) != fold(texts[other]):
            a, b = grams(fold(texts[i]), 2), grams(fold(texts[other]), 2)
            assert len(a & b) >= 0.5 * len(a | b)


@pytest.mark.parametrize("spec", [SPEC, MinhashDedup()], ids=["21 bands of 6", "default"])
def test_planted_edits_are_found_and_verified(spec: MinhashDedup) -> None:
    rng = random.Random(3)
    texts = [prose(rng, rng.randint(250, 500)) for _ in range(1_500)]
    planted = []
    for original in rng.sample(range(1_500), 900):
        text = texts[original]
        wanted = rng.uniform(0.7, 1)
        copy = edited(rng, text, max(1, round(len(text) * (1 - wanted) / (5 * (1 + wanted)))))
        planted.append((original, len(texts), jaccard(text, copy)))
        texts.append(copy)
    got = kept_rows(text_keys(texts, spec), texts, spec)
    found, there = Counter[str](), Counter[str]()
    for original, copy, index in planted:
        kind = ">=.9" if index >= 0.9 else ">=.8" if index >= 0.8 else "less"
        there[kind] += 1
        found[kind] += got[copy] == original
    assert min(there.values()) > 200
    assert found[">=.9"] == there[">=.9"]
    assert found[">=.8"] >= 0.99 * there[">=.8"]
    assert found["less"] == 0
    for row in np.flatnonzero(got != np.arange(len(got))).tolist():
        assert got[got[row]] == got[row] < row
        assert jaccard(texts[row], texts[got[row]]) >= 0.8


def test_copies_of_a_removed_row_follow_it() -> None:
    rng = random.Random(4)
    a = prose(rng)
    b = edited(rng, a, 2)
    texts = [b, prose(rng), a, f" {a}", f"{b}\u3000"]
    got = kept_rows(text_keys(texts, SPEC), texts)
    assert got.tolist() == [0, 1, 0, 0, 0]


def test_rows_without_a_like_are_never_read() -> None:
    rng = random.Random(5)
    texts = [prose(rng) for _ in range(200)]
    texts.append(edited(rng, texts[7], 1))
    keys, read = text_keys(texts, SPEC), []
    assert keys.bands is not None
    numbers = []

    def band(number: int) -> NDArray[np.uint64]:
        numbers.append(number)
        return np.ascontiguousarray(keys.bands[:, number])

    def text(row: int) -> str:
        read.append(row)
        return texts[row]

    got = near_duplicates(band, exact_duplicates(keys.content), text, SPEC)
    assert got[200] == 7
    assert sorted(read) == [7, 200]
    assert numbers == list(range(21))  # each band is asked for once


def test_small_caches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(6)
    texts = [prose(rng, 60) for _ in range(40)]
    texts += [edited(rng, rng.choice(texts), rng.randint(0, 3)) for _ in range(160)]
    keys = text_keys(texts, SPEC)
    whole = kept_rows(keys, texts)
    monkeypatch.setattr(dedup, "_CACHED_NGRAMS", 100)
    monkeypatch.setattr(dedup, "_READ_CHARACTERS", 130)
    assert np.array_equal(kept_rows(keys, texts), whole)
    monkeypatch.setattr(dedup, "_READ_ROWS", 3)
    assert np.array_equal(kept_rows(keys, texts), whole)
    assert 40 <= len(set(whole.tolist())) < 150


def test_a_form_letter_is_not_quadratic(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,500 texts that share three quarters with each other fill a few buckets; copies among them are still found."""
    rng = random.Random(7)
    form, texts, planted = prose(rng, 240), [], []
    for i in range(1_500):
        if i % 10 == 9:
            original = rng.choice([k for k in range(i) if k % 10 != 9])
            planted.append((original, i))
            texts.append(edited(rng, texts[original], 3))
        else:
            texts.append(form[:120] + prose(rng, 80) + form[120:])
    compared = Counter[int]()
    alike = dedup._NgramSets.alike

    def counted(self: dedup._NgramSets, one: int, other: int, threshold: float) -> bool:
        compared[one] += 1
        return alike(self, one, other, threshold)

    monkeypatch.setattr(dedup._NgramSets, "alike", counted)
    keys = text_keys(texts, SPEC)
    got = kept_rows(keys, texts)
    assert max(compared.values()) <= dedup._ROW_CANDIDATES
    assert keys.bands is not None
    sizes = [np.unique(keys.bands[:, b], return_counts=True)[1].max() for b in range(21)]
    assert max(sizes) > 500  # all pairs of such a bucket would be 100,000
    assert np.mean([got[copy] == original for original, copy in planted]) >= 0.99


def test_a_bucket_offers_its_latest_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(8)
    texts = [prose(rng), prose(rng), prose(rng)]
    texts.append(edited(rng, texts[0], 1))
    bands = np.ones((4, 1), np.uint64)  # all in one bucket
    spec = MinhashDedup(permutations=1, bands=1)
    keys = TextKeys(text_keys(texts, ExactDedup()).content, bands)
    monkeypatch.setattr(dedup, "_BUCKET_CANDIDATES", 3)
    assert kept_rows(keys, texts, spec).tolist() == [0, 1, 2, 0]
    monkeypatch.setattr(dedup, "_BUCKET_CANDIDATES", 2)
    assert kept_rows(keys, texts, spec).tolist() == [0, 1, 2, 3]


def test_long_texts_are_not_held_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(9)
    texts = [prose(rng, 2_000) for _ in range(60)]
    texts += [edited(rng, t, 4) for t in texts]
    keys = text_keys(texts, SPEC)
    monkeypatch.setattr(dedup, "_CACHED_NGRAMS", 20_000)
    monkeypatch.setattr(dedup, "_READ_CHARACTERS", 5_000)
    held, reads = [], []
    add = dedup._NgramSets._add

    def watched(self: dedup._NgramSets, rows: list[int], read: list[str]) -> None:
        reads.append(sum(map(len, read)))
        add(self, rows, read)
        held.append(sum(map(len, self._sets.values())))
        assert self._held == held[-1]

    monkeypatch.setattr(dedup._NgramSets, "_add", watched)
    got = kept_rows(keys, texts)
    assert got.tolist() == [*range(60), *range(60)]
    assert max(held) <= 20_000
    assert max(reads) < 5_000 + 2_100
    assert sum(reads) < 3 * 120 * 2_000  # hardly anything is read twice
