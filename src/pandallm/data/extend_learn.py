"""Learning new pieces for an old tokenizer: BPE goes on where the base's own training stopped.

The corpus is tokenised as it is today and new merges are learnt over the old tokens (continued BPE training, arXiv 2512.03989), so
every new piece is a run of old tokens and can be reached. Merges start from whole characters: first the frequent characters that
the base spells with several tokens become one, then neighbouring ones are joined by the tokenizers library, to which each
character is one symbol. Of both, the most frequent are kept.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pandallm.data.spec import ExtendSpec
from pandallm.errors import BadInput

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: Bytes that UTF-8 text can hold.
UTF8_BYTES = (*range(0xC0), *range(0xC2, 0xF5))
#: Unicode blocks of Han characters and of CJK and full-width signs. Each starts and ends where the last UTF-8 byte does (multiples
#: of 64), so that a piece for the first two bytes of such a character occurs in no other text.
HAN_BLOCKS = ((0x2E80, 0x3040), (0x3400, 0xA000), (0xF900, 0xFB00), (0xFF00, 0xFFC0), (0x20000, 0x32000))
#: Symbols of the learner are code points from here on, one per chunk; none of them is a blank.
FIRST_SYMBOL = 0x20000
MAX_CODES = 0x110000 - FIRST_SYMBOL
MAX_CHUNK_TOKENS = 6
BATCH_CHARACTERS = 1 << 17
_BREAK = 0xFFFFFFFF


def byte_letters() -> list[str]:
    """The letter by which byte-level BPE writes each byte: GPT-2's table (bytes_to_unicode in its encoder.py)."""
    plain = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


@dataclass(frozen=True)
class OldTokens:
    """What the tokens of a base spell. `strings` and `spelt` by id; an id without a token has "" and b"".

    kind: `bytes`, byte-level BPE (GPT-2, Llama 3, Qwen); `fallback`, BPE over characters with byte tokens for the others (SentencePiece, Llama 2).
    """

    kind: Literal["bytes", "fallback"]
    strings: list[str]
    spelt: list[bytes]
    vocabulary: Mapping[str, int]

    @classmethod
    def read(cls, description: Mapping[str, Any], where: str) -> "OldTokens":
        """From the content of a tokenizer.json. Raises BadInput for a tokenizer that is no BPE or loses text."""
        model = description["model"]
        if model.get("type") not in ("BPE", None) or "merges" not in model:
            raise BadInput(
                f"{where}: only BPE tokenizers can be extended, this one is {model.get('type')}; leave base.extend out."
            )
        if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
            raise BadInput(f"{where}: BPE with marks at the edges of words cannot be extended; leave base.extend out.")
        bytewise = '"ByteLevel"' in json.dumps([description.get("normalizer"), description.get("pre_tokenizer")])
        if not bytewise and not model.get("byte_fallback"):
            raise BadInput(
                f"{where}: this tokenizer turns unknown characters into {model.get('unk_token')}; only byte-level BPE "
                "and BPE with byte fallback can be extended."
            )
        vocabulary = {**model["vocab"], **{t["content"]: t["id"] for t in description.get("added_tokens", ())}}
        strings = [""] * (max(vocabulary.values()) + 1)
        for token, number in vocabulary.items():
            strings[number] = token
        spell = _spell_bytewise() if bytewise else _spell_fallback
        return cls("bytes" if bytewise else "fallback", strings, [spell(s) for s in strings], vocabulary)


def _spell_bytewise() -> Any:
    values = {letter: byte for byte, letter in enumerate(byte_letters())}

    def spell(token: str) -> bytes:
        return bytes(values[c] for c in token) if all(c in values for c in token) else token.encode()

    return spell


def _spell_fallback(token: str) -> bytes:
    if re.fullmatch(r"<0x[0-9A-F]{2}>", token):
        return bytes([int(token[3:5], 16)])
    return token.replace("▁", " ").encode()


@dataclass(frozen=True)
class NewPiece:
    """One new token: as the vocabulary writes it, the old ids that spell it, and why it is there."""

    token: str
    parts: tuple[int, ...]
    kind: Literal["byte", "prefix", "character", "word"]


@dataclass
class Learnt:
    """New pieces in the order of their ids, and the merges that make them, in the order of their ranks."""

    pieces: list[NewPiece] = field(default_factory=list)
    merges: dict[tuple[str, str], None] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    documents: int = 0
    characters: int = 0

    def add(self, piece: NewPiece, merge: tuple[str, str] | None = None) -> None:
        """One more piece, unless it is there, and one more way to make it."""
        if piece.token not in self.known:
            self.known.add(piece.token)
            self.pieces.append(piece)
        if merge:
            self.merges.setdefault(merge)

    def count(self, kind: str) -> int:
        return sum(p.kind == kind for p in self.pieces)


def learn(tokenizer: "Tokenizer", old: OldTokens, spec: ExtendSpec, texts: Iterable[str]) -> Learnt:
    """Learn at most `spec.size` new pieces from texts. The same texts give the same pieces.

    Raises BadInput where the texts hold none of the characters that pieces are made of, or none often enough.
    """
    sample = _Sample(tokenizer, old, spec.characters)
    for batch in _batches(texts):
        sample.add(batch)
    counts = sample.counts()
    if not counts.sum():
        raise BadInput(
            f"The corpora for the new vocabulary hold no text of base.extend.characters ({spec.characters}): check base.extend.corpora."
        )
    learnt = Learnt(documents=sample.documents, characters=sample.characters)
    if old.kind == "bytes":
        letters = byte_letters()
        for letter in [letters[b] for b in UTF8_BYTES if letters[b] not in old.vocabulary][: spec.size]:
            learnt.add(NewPiece(letter, (), "byte"))
    characters = _characters(sample, counts, spec.min_frequency)
    spelling = {i: token for i, token in enumerate(old.strings) if counts[i]}
    spelling |= {c.code: c.links[-1][0] for c in characters}
    _choose(sample, spec.size, characters, _words(sample, spec, spelling), spelling, learnt)
    if not learnt.pieces:
        raise BadInput(
            f"The corpora give no new piece that occurs {spec.min_frequency} times in a sample of {sample.characters:,} characters: "
            "lower base.extend.min_frequency, or give more text."
        )
    return learnt


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch, size = list[str](), 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@cache
def _character_class(character: str, characters: str) -> int:
    """0: no new pieces of it; 1 letters, 2 digits, 3 signs, 4 blanks. A piece holds one class, so that words and signs stay apart."""
    point = ord(character)
    opened = point >= 128 if characters == "non_ascii" else any(a <= point < b for a, b in HAN_BLOCKS)
    return {"L": 1, "M": 1, "N": 2, "P": 3, "S": 3, "Z": 4}.get(unicodedata.category(character)[0], 0) if opened else 0


def _text_class(spelt: bytes, characters: str) -> int:
    """The class that all characters of a chunk share, one blank before them aside; else 0."""
    try:
        classes = {_character_class(c, characters) for c in spelt.decode().removeprefix(" ")}
    except UnicodeDecodeError:
        return 0
    return classes.pop() if len(classes) == 1 else 0


class _Sample:
    """The tokenised text as chunks: the shortest runs of old tokens that hold whole characters.

    A chunk has a code: of one token its id, of more the code of all but its last token with that token's id, numbered as they come.
    """

    def __init__(self, tokenizer: "Tokenizer", old: OldTokens, characters: Literal["han", "non_ascii"]) -> None:
        self.tokenizer, self.old, self.alphabet = tokenizer, old, characters
        self.parts: list[tuple[int, ...]] = [(i,) for i in range(len(old.strings))]
        self.classes = [_text_class(s, characters) for s in old.spelt]
        self.blank = [s.startswith(b" ") for s in old.spelt]
        self.none = len(self.parts)  # the code of chunks too long to be characters
        self.parts.append(())
        self.classes.append(0)
        self.blank.append(False)
        self.longer: dict[tuple[int, int], int] = {}
        self.alone = old.vocabulary.get(byte_letters()[ord(" ")] if old.kind == "bytes" else "▁", -1)
        self.begins = np.array([not s or not 0x80 <= s[0] < 0xC0 for s in old.spelt])
        self.runs: list[NDArray[np.uint32]] = []
        self.documents = self.characters = 0

    def counts(self) -> NDArray[np.int64]:
        """How often each code occurs: (codes,); chunks that take no part have 0."""
        total = np.zeros(len(self.parts), np.int64)
        for run in self.runs:
            total += np.bincount(run[run != _BREAK], minlength=len(total))
        return total

    def add(self, texts: list[str]) -> None:
        """Tokenise texts and keep the runs of chunks that take part, with _BREAK before each run."""
        encodings = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        self.documents += len(texts)
        self.characters += sum(map(len, texts))
        ids = np.fromiter((i for e in encodings for i in e.ids), np.int64)
        words = np.fromiter(((n << 32) + (w or 0) for n, e in enumerate(encodings) for w in e.word_ids), np.int64)
        if not len(ids):
            return
        first = self.begins[ids]
        first[0] = True
        first[1:] |= words[1:] != words[:-1]
        starts = np.flatnonzero(first)
        codes = self._codes(ids, starts, np.diff(starts, append=len(ids)))
        classes, words = np.array(self.classes)[codes], words[starts]
        if self.alphabet == "non_ascii":  # a blank belongs to the word after it, as these tokenizers have it
            before = (codes[:-1] == self.alone) & (classes[1:] == 1) & (words[1:] == words[:-1])
            classes[:-1][before] = 1
        opened = (classes > 0) & (codes < MAX_CODES)
        fresh = opened & np.array(self.blank)[codes]
        fresh[0] = True
        fresh[1:] |= (words[1:] != words[:-1]) | (classes[1:] != classes[:-1]) | ~opened[:-1]
        kept, breaks = codes[opened].astype(np.uint32), np.flatnonzero(fresh[opened])
        self.runs.append(np.insert(kept, breaks, np.uint32(_BREAK)))

    def _codes(
        self, ids: NDArray[np.int64], starts: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        codes = ids[starts].copy()
        for place in range(1, MAX_CHUNK_TOKENS):
            where = np.flatnonzero(lengths > place)
            if not len(where):
                break
            pairs = codes[where] << 20 | ids[starts[where] + place]
            unique, inverse = np.unique(pairs, return_inverse=True)
            codes[where] = np.array([self._code(p >> 20, p & 0xFFFFF) for p in unique.tolist()])[inverse]
        codes[lengths > MAX_CHUNK_TOKENS] = self.none
        return codes

    def _code(self, before: int, token: int) -> int:
        code = self.longer.setdefault((before, token), len(self.parts))
        if code == len(self.parts):
            self.parts.append((*self.parts[before], token))
            spelt = b"".join(self.old.spelt[i] for i in self.parts[code])
            self.classes.append(_text_class(spelt, self.alphabet))
            self.blank.append(spelt.startswith(b" "))
        return code


def _token(code: int, sample: _Sample) -> str:
    """How the vocabulary writes a chunk as one token."""
    old, parts = sample.old, sample.parts[code]
    if old.kind == "bytes" or len(parts) == 1:
        return "".join(old.strings[i] for i in parts)
    return b"".join(old.spelt[i] for i in parts).decode(errors="replace").replace(" ", "▁")


@dataclass(frozen=True)
class _Character:
    """A chunk of several tokens that can become one: its code, its count, and the links (token, parts, merge) that lead there.

    Byte-level BPE joins the tokens of a chunk from the left. The first of them begins a character, so a merge of the first two
    meets no other text than such characters. With byte fallback a character that is in the vocabulary is a token as it stands.
    """

    code: int
    count: int
    links: tuple[tuple[str, tuple[int, ...], tuple[str, str] | None], ...]


def _characters(sample: _Sample, counts: NDArray[np.int64], least: int) -> list[_Character]:
    """Chunks of several tokens that occur `least` times, most frequent first. Those are left out that would need an old token."""
    old = sample.old
    before = {code: shorter for (shorter, _), code in sample.longer.items()}
    found = []
    for code in np.lexsort((np.arange(len(counts)), -counts)).tolist():
        if counts[code] < least:
            break
        if len(sample.parts[code]) == 1:
            continue
        links: list[tuple[str, tuple[int, ...], tuple[str, str] | None]] = []
        link = code
        while len(sample.parts[link]) > 1 and (old.kind == "bytes" or not links):
            last = old.strings[sample.parts[link][-1]]
            merge = (_token(before[link], sample), last) if old.kind == "bytes" else None
            links.insert(0, (_token(link, sample), sample.parts[link], merge))
            link = before[link]
        if not any(token in old.vocabulary for token, _, _ in links):
            found.append(_Character(code, int(counts[code]), tuple(links)))
    return found


@dataclass(frozen=True)
class _Word:
    """A merge of the learner: the symbols of both sides, and how often it joins them."""

    left: str
    right: str
    count: int


def _words(sample: _Sample, spec: ExtendSpec, spelling: Mapping[int, str]) -> list[_Word]:
    """Join neighbouring one-token chunks into at most `spec.size` longer pieces, by BPE over their symbols; in the order of joining."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    symbols = np.full(len(sample.parts), ord(" "), np.uint32)
    codes = np.fromiter(spelling, np.int64, len(spelling))
    symbols[codes] = FIRST_SYMBOL + codes

    def lines() -> Iterator[str]:
        for run in sample.runs:
            line = np.where(run == _BREAK, np.uint32(ord(" ")), symbols[np.where(run == _BREAK, 0, run)])
            yield line.astype("<u4").tobytes().decode("utf-32-le")

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")
    trainer = trainers.BpeTrainer(
        vocab_size=len(spelling) + spec.size,
        min_frequency=spec.min_frequency,
        max_token_length=spec.max_characters,
        show_progress=False,
        special_tokens=[],
    )
    learner.train_from_iterator(lines(), trainer)
    model = json.loads(learner.to_str())["model"]
    ids: dict[str, int] = model["vocab"]
    # A merge has joined as often as its token stands in the text, by itself or inside of tokens that later merges made.
    joined = np.zeros(len(ids) + 1, np.int64)
    for line in lines():
        joined += np.bincount(learner.encode(line).ids, minlength=len(joined))
    first = {left + right: i for i, (left, right) in reversed(list(enumerate(model["merges"])))}
    for i, (left, right) in reversed(list(enumerate(model["merges"]))):
        if first[left + right] == i:
            joined[[ids[left]]] += joined[ids[left + right]]
            joined[[ids[right]]] += joined[ids[left + right]]
    return [_Word(left, right, int(joined[ids[left + right]])) for left, right in model["merges"]]


def _choose(
    sample: _Sample,
    size: int,
    characters: Sequence[_Character],
    words: Sequence[_Word],
    spelling: Mapping[int, str],
    learnt: Learnt,
) -> None:
    """Keep the most frequent pieces, characters and words alike, until `size` is reached.

    A word is never more frequent than what it is made of, so that comes first. Merges keep their order: characters, then words as learnt.
    """
    made = {chr(FIRST_SYMBOL + code) for code in spelling} - {chr(FIRST_SYMBOL + c.code) for c in characters}
    chosen: set[str] = set()
    room = size - len(learnt.pieces)
    ranked: list[_Character | _Word] = sorted([*characters, *words], key=lambda candidate: -candidate.count)
    for candidate in ranked:
        if isinstance(candidate, _Character):
            new = {token for token, _, _ in candidate.links} - learnt.known
            if len(new) > room:
                continue
            room -= len(new)
            made.add(chr(FIRST_SYMBOL + candidate.code))
            for token, parts, merge in candidate.links:
                whole = token == candidate.links[-1][0]
                learnt.add(NewPiece(token, parts, "character" if whole else "prefix"), merge)
            continue
        joint = candidate.left + candidate.right
        # An old token of that spelling that the base itself does not use here is left alone: it might set old merges off.
        taken = (
            joint in made or "".join(spelling[ord(symbol) - FIRST_SYMBOL] for symbol in joint) in sample.old.vocabulary
        )
        if room and not taken and candidate.left in made and candidate.right in made:
            room -= 1
            made.add(joint)
            chosen.add(joint)
    for word in words:
        if word.left + word.right in chosen and word.left in made and word.right in made:
            codes = [ord(symbol) - FIRST_SYMBOL for symbol in word.left + word.right]
            left, right = ("".join(spelling[ord(s) - FIRST_SYMBOL] for s in side) for side in (word.left, word.right))
            parts = tuple(i for code in codes for i in sample.parts[code])
            learnt.add(NewPiece(left + right, parts, "word"), (left, right))
