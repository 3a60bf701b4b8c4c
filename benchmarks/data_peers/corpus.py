"""A Chinese corpus with planted copies, recombined from sentences of real text, and the truth about them.

Base documents join 250 to 900 characters of sentences drawn at random, so that two of them share a sentence or two at most. Planted: exact copies, copies
that differ by NFKC only (full-width letters, digits and punctuation), and edited copies whose Jaccard index over character 5-grams is uniform in [.6, 1).
A few per cent of English lines and of lines too short are there for the filters.
"""

import io
import json
import random
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

#: Prose of the shared pack; the field that holds the text.
SOURCES = {
    "news_xinwenlianbo": "content",
    "law_statutes": "text",
    "web_goldminer": "text",
    "web_ruanyf_weekly": "text",
    "classical_modern_parallel": "text",
    "stories_cmrc2019": "text",
    "wiki_cmrc2018": "text",
    "wiki_kdconv_descriptions": "text",
    "science_abstracts": "text",
    "baikeqa_medical": "answer",
    "web_app_descriptions": "text",
}
EXACT, NFKC, EDITED, NOISE = 0.04, 0.01, 0.06, 0.04  # shares of all documents
NGRAM = 5
FULL_WIDTH = str.maketrans(
    {c: chr(ord(c) + 0xFEE0) for c in "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ,!?:;()"}
)
FILES = 8
COMMON = "的一是了我不人在他有这个上们来到时大地为子中你说生国年着就那和要她出也得里后自以会"


@dataclass(frozen=True)
class Planted:
    """Document `copy` was made from document `of`; numbers count lines over all files. jaccard: of the folded texts."""

    copy: int
    of: int
    kind: str
    jaccard: float


def fold(text: str) -> str:
    """What both sides compare: NFKC, blanks to one."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def shingles(text: str) -> set[str]:
    """Character 5-grams."""
    return {text[i : i + NGRAM] for i in range(len(text) - NGRAM + 1)}


def jaccard(a: str, b: str) -> float:
    """Of the folded texts' 5-grams."""
    x, y = shingles(fold(a)), shingles(fold(b))
    return len(x & y) / max(1, len(x | y))


def sentences(data: Path) -> list[str]:
    """Distinct sentences of 12 to 200 characters, in file order."""
    found: dict[str, None] = {}
    for name, field in SOURCES.items():
        with open(data / "corpora" / f"{name}.jsonl.zst", "rb") as file:
            for line in io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file)):
                text = json.loads(line).get(field) or ""
                for sentence in re.split(r"(?<=[。！？\n])", text):
                    if 12 <= len(sentence) <= 200:
                        found[sentence] = None
    return list(found)


def _edit(text: str, target: float, rng: random.Random) -> str:
    """A copy whose Jaccard index is near `target`: m lone substitutions leave (n - 5m) / (n + 5m) of the 5-grams."""
    points = list(text)
    edits = max(1, round(len(points) * (1 - target) / (NGRAM * (1 + target))))
    for place in rng.sample(range(len(points)), min(edits, len(points))):
        way = rng.random()
        if way < 0.6:
            points[place] = rng.choice(COMMON)
        else:
            points[place] = "" if way < 0.8 else points[place] + rng.choice(COMMON)
    return "".join(points)


def make_corpus(data: Path, out: Path, documents: int, seed: int = 7) -> dict[str, Any]:
    """Write `documents` documents to out/in/*.jsonl ({id, text}) and out/truth.jsonl; made once. Returns the facts."""
    facts_path = out / "facts.json"
    if facts_path.is_file():
        facts: dict[str, Any] = json.loads(facts_path.read_text())
        return facts
    rng = random.Random(seed)
    pool = sentences(data)
    counts = {kind: int(share * documents) for kind, share in (("exact", EXACT), ("nfkc", NFKC), ("edited", EDITED))}
    noise = int(NOISE * documents)
    base = documents - noise - sum(counts.values())
    texts: list[str] = []
    for _ in range(base):
        wanted, text = rng.randint(250, 900), ""
        while len(text) < wanted:
            text += rng.choice(pool)
        texts.append(text)
    originals = rng.sample(range(base), sum(counts.values()))
    planted: list[tuple[int, int, str]] = []
    for kind, original in zip((k for k, n in counts.items() for _ in range(n)), originals, strict=True):
        text = texts[original]
        copy = (
            text
            if kind == "exact"
            else text.translate(FULL_WIDTH)
            if kind == "nfkc"
            else _edit(text, rng.uniform(0.6, 1), rng)
        )
        planted.append((len(texts), original, kind))
        texts.append(copy)
    for i in range(noise):
        if i % 2:
            texts.append(
                f"The quick brown fox number {rng.random():.9f} jumps over {rng.random():.9f} lazy dogs and runs home before dinner."
            )
        else:
            texts.append(rng.choice(pool)[:20] + f"{rng.random():.9f}")
    order = list(range(len(texts)))
    rng.shuffle(order)
    place = {old: new for new, old in enumerate(order)}
    (out / "in").mkdir(parents=True, exist_ok=True)
    per_file, size = -(-len(order) // FILES), 0
    for number in range(FILES):
        with open(out / "in" / f"{number:02d}.jsonl", "wb") as file:
            for new in range(number * per_file, min(len(order), (number + 1) * per_file)):
                line = json.dumps({"id": new, "text": texts[order[new]]}, ensure_ascii=False).encode() + b"\n"
                size += file.write(line)
    with open(out / "truth.jsonl", "w", encoding="utf-8") as file:
        for copy, original, kind in planted:
            index = 1.0 if kind != "edited" else jaccard(texts[copy], texts[original])
            row = {"copy": place[copy], "of": place[original], "kind": kind, "jaccard": index}
            file.write(json.dumps(row) + "\n")
    facts = {
        "documents": len(texts),
        "megabytes": round(size / 1e6, 1),
        "per_file": per_file,
        "planted": counts,
        "noise": noise,
        "sentences": len(pool),
    }
    facts_path.write_text(json.dumps(facts))
    return facts


def truth(folder: Path) -> Iterator[Planted]:
    """What was planted."""
    with open(folder / "truth.jsonl", encoding="utf-8") as file:
        yield from (Planted(**json.loads(line)) for line in file)
