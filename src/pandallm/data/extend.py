"""Extending the vocabulary of an existing base: the tokenizer with its new pieces, and what they bring on held-out text.

Old tokens keep their ids. New merges rank after all old ones, so a text is first cut as before and only then are new pieces joined:
text without new pieces has the tokens it had, and a new token always stands where its `parts` stood.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pandallm.data.corpus import part_batches, part_rows
from pandallm.data.extend_learn import Learnt, OldTokens, learn
from pandallm.data.spec import ExtendSpec
from pandallm.errors import BadInput
from pandallm.progress import SILENT, Progress
from pandallm.store import canonical_json, read_json, read_jsonl, write_bytes, write_json, write_jsonl, write_text

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: Held-out documents that the report reads at most, per source.
REPORT_DOCUMENTS = 2000


def extend_tokenizer(
    spec: ExtendSpec, base: Path, corpora: Sequence[Path], out: Path, progress: Progress = SILENT
) -> dict[str, Any]:
    """Write to `out` the tokenizer of the folder `base`, with new pieces learnt on cleaned corpora.

    base: a folder with tokenizer.json (byte-level BPE, or BPE with byte fallback); a SentencePiece tokenizer.model, a vocab.json
    and a merges.txt beside it are extended alike. `out` gets these files, and pieces.jsonl (`id, token, text, parts, kind`, one line
    per new piece; parts are the old ids that spell it; special tokens stand last). Other files of `base` are left to the caller.
    Returns {"tokens_before", "tokens", "pieces": {"byte", "prefix", "character", "word"; "special" where there are any}, "documents",
    "characters"} (the last two of the sample). With `size: 0` nothing is learnt and no corpus is read. The same base and corpora give the same bytes.
    Raises BadInput for tokenizers that cannot be extended and corpora without fitting text.
    """
    description, old, pieces_of_spm = check_base(base)
    tokenizer = _open(base / "tokenizer.json")
    _check_special(spec.special, old)
    learnt = Learnt()
    if spec.size:
        with progress.task("learn new pieces", None, "texts") as task:

            def feed() -> Iterator[str]:
                for text in _sample_texts(corpora, spec.sample_megabytes * 1e6):
                    task.advance()
                    yield text

            learnt = learn(tokenizer, old, spec, feed())
    spm = base / "tokenizer.model"
    first = max(len(old.strings), pieces_of_spm)
    vocabulary = {**old.vocabulary, **{p.token: first + i for i, p in enumerate(learnt.pieces)}}
    merges = list(learnt.merges) if old.kind == "bytes" else _all_splits(learnt, vocabulary)
    special = {t: first + len(learnt.pieces) + i for i, t in enumerate(spec.special)}
    vocabulary |= special
    extended = _described(description, vocabulary, merges)
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    extended["added_tokens"] = [
        *extended.get("added_tokens", ()),
        *({"id": i, "content": t, **flags} for t, i in special.items()),
    ]
    _check(extended, vocabulary)
    if pieces_of_spm:
        tokens = [p.token for p in learnt.pieces]
        write_bytes(out / spm.name, _sentencepiece(spm, old, pieces_of_spm, first, tokens, spec.special))
    if (base / "vocab.json").is_file():
        write_json(out / "vocab.json", vocabulary)
    if (base / "merges.txt").is_file():
        lines = [f"{a} {b}\n" for a, b in extended["model"]["merges"]]
        write_text(out / "merges.txt", "#version: 0.2\n" + "".join(lines))
    write_json(out / "tokenizer.json", extended)
    rows: list[dict[str, Any]] = [
        {
            "id": first + i,
            "token": p.token,
            "text": b"".join(old.spelt[part] for part in p.parts).decode(errors="replace"),
            "parts": p.parts,
            "kind": p.kind,
        }
        for i, p in enumerate(learnt.pieces)
    ]
    for token, number in special.items():  # their rows begin as those of the text that they look like
        parts = tokenizer.encode(token, add_special_tokens=False).ids
        rows.append({"id": number, "token": token, "text": token, "parts": parts, "kind": "special"})
    write_jsonl(out / "pieces.jsonl", rows)
    pieces = {kind: learnt.count(kind) for kind in ("byte", "prefix", "character", "word")}
    return {
        "tokens_before": len(old.strings),
        "tokens": first + len(rows),
        "pieces": pieces | ({"special": len(special)} if special else {}),
        "documents": learnt.documents,
        "characters": learnt.characters,
    }


def _check_special(special: Sequence[str], old: OldTokens) -> None:
    """Raise BadInput for a special token that the base has."""
    for token in special:
        if token in old.vocabulary:
            raise BadInput(
                f"base.extend.special: the base has {token} (id {old.vocabulary[token]}) already; take it out."
            )


def check_base(base: Path) -> tuple[dict[str, Any], OldTokens, int]:
    """Content of the tokenizer.json, what its tokens spell, and how many pieces a SentencePiece tokenizer.model beside it has.

    Raises BadInput, saying what to do, where the tokenizer cannot be extended.
    """
    file, spm = base / "tokenizer.json", base / "tokenizer.model"
    if not file.is_file():
        raise BadInput(f"{base} holds no tokenizer.json; save the tokenizer in the fast format first.")
    description = read_json(file)
    old = OldTokens.read(description, str(file))
    return description, old, _sentencepiece_size(spm, old) if old.kind == "fallback" and spm.is_file() else 0


def new_parts(folder: Path) -> tuple[int, list[tuple[int, ...]]]:
    """Of an extended tokenizer: the id of its first new piece, and for each the old ids that spell it (none for a byte)."""
    rows = list(read_jsonl(folder / "pieces.jsonl"))
    return rows[0]["id"], [tuple(row["parts"]) for row in rows]


def characters_per_token(before: Path, after: Path, corpora: Sequence[Path]) -> dict[str, Any]:
    """Tokens of held-out text with both tokenizers, per source and in total; at most REPORT_DOCUMENTS a source.

    Corpora that hold nothing out are measured on kept examples, and "text" says so: pieces were learnt on these.
    Returns {"text": "held out" | "kept examples", "sources": {name: row}, "total": row}; a row is {"documents", "characters",
    "tokens_before", "tokens_after", "characters_per_token_before", "characters_per_token_after"}; total also has "pieces_seen", new pieces that occur.
    """
    old, new = _open(before / "tokenizer.json"), _open(after / "tokenizer.json")
    first, parts = new_parts(after)
    part = "held_out" if any(part_rows(folder, "held_out") for folder in corpora) else "examples"
    rows: dict[str, dict[str, Any]] = {}
    seen = np.zeros(first + len(parts), np.bool_)
    for folder in corpora:
        for batch in part_batches(folder, part, ("source", "turns"), 256):
            taken: list[tuple[dict[str, Any], str]] = []
            for source, turns in zip(batch.column("source").to_pylist(), batch.column("turns").to_pylist()):
                row = rows.setdefault(source, {"documents": 0, "characters": 0, "tokens_before": 0, "tokens_after": 0})
                if row["documents"] < REPORT_DOCUMENTS:
                    row["documents"] += 1
                    taken += [(row, turn["text"]) for turn in turns]
            texts = [text for _, text in taken]
            cut = [t.encode_batch_fast(texts, add_special_tokens=False) for t in (old, new)]
            for (row, text), one, other in zip(taken, *cut):
                row["characters"] += len(text)
                row["tokens_before"] += len(one)
                row["tokens_after"] += len(other)
                seen[other.ids] = True
    total = {
        key: sum(row[key] for row in rows.values())
        for key in ("documents", "characters", "tokens_before", "tokens_after")
    }
    for row in (*rows.values(), total):
        for when in ("before", "after"):
            row[f"characters_per_token_{when}"] = round(row["characters"] / max(row[f"tokens_{when}"], 1), 4)
    total["pieces_seen"] = int(seen[first:].sum())
    return {"text": "held out" if part == "held_out" else "kept examples", "sources": rows, "total": total}


def _open(file: Path) -> "Tokenizer":
    """As packing opens it: special tokens that a text spells are text."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as e:  # the library raises bare Exception
        raise BadInput(f"{file} is not a tokenizer ({e}).") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def _sample_texts(corpora: Sequence[Path], limit: float) -> Iterator[str]:
    """Every turn of every n-th kept example, so that about `limit` bytes of UTF-8 are read, evenly over the corpora."""
    size = sum(
        sum(batch.column("utf8_bytes").to_pylist())
        for folder in corpora
        for batch in part_batches(folder, "examples", ("utf8_bytes",), 65_536)
    )
    every, number = max(1, -(-size // max(1, int(limit)))), 0
    for folder in corpora:
        for batch in part_batches(folder, "examples", ("turns",)):
            for turns in batch.column("turns").to_pylist():
                if number % every == 0:
                    yield from (turn["text"] for turn in turns)
                number += 1


def _all_splits(learnt: Learnt, vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    """Every way to join two pieces into a new one, as SentencePiece does: it joins whatever gives a piece, best score first."""
    merges = []
    for piece in learnt.pieces:
        token = piece.token
        splits = [(token[:i], token[i:]) for i in range(1, len(token))]
        merges += [(a, b) for a, b in splits if a in vocabulary and b in vocabulary]
    return merges


def _described(
    description: Mapping[str, Any], vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """The tokenizer.json with new vocabulary and merges.

    Added tokens enter the vocabulary too: those outside of it get their ids from its size when the file is read.
    """
    model = description["model"]
    before = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    ordered = dict(sorted(vocabulary.items(), key=lambda item: item[1]))
    merged = [list(m) for m in (*before, *merges)]
    return {**description, "model": {**model, "vocab": ordered, "merges": merged}}


def _check(extended: Mapping[str, Any], vocabulary: Mapping[str, int]) -> None:
    """Every token has the id that it should have, in the library's own reading of the file."""
    from tokenizers import Tokenizer

    read = Tokenizer.from_str(canonical_json(extended))
    wrong = next((t for t, i in vocabulary.items() if read.token_to_id(t) != i), None)
    if wrong is not None:
        raise BadInput(
            f"The base's tokenizer cannot be extended: its token '{wrong}' would change its id; leave base.extend out."
        )


def _sentencepiece_size(file: Path, old: OldTokens) -> int:
    """How many pieces the model has. Raises BadInput where it is no SentencePiece model or does not agree with tokenizer.json."""
    from sentencepiece import SentencePieceProcessor

    try:
        model = SentencePieceProcessor(model_file=str(file))
    except RuntimeError:
        raise BadInput(f"{file} is no SentencePiece model; remove it if tokenizer.json is the tokenizer.") from None
    size = int(model.get_piece_size())
    for i in range(size):
        if old.vocabulary.get(model.id_to_piece(i)) != i:
            raise BadInput(f"{file} and tokenizer.json do not agree on the token with id {i}; remove the wrong one.")
    return size


def _sentencepiece(
    file: Path, old: OldTokens, size: int, first: int, tokens: Sequence[str], special: Sequence[str]
) -> bytes:
    """The model with more pieces, their scores below all others in order.

    A protobuf message goes on where another of its type is appended (repeated fields grow, later values count), so nothing needs
    to be parsed. sentencepiece_model.proto: ModelProto {pieces = 1 {piece = 1, score = 2, type = 3}, trainer_spec = 2 {vocab_size = 4}}.
    Ids between, of tokens that only tokenizer.json has, become control pieces, which no text is cut into, and so do special tokens.
    """
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(file))
    lowest = min(model.get_score(i) for i in range(size))
    normal, control = 1, 3
    rows = [(old.strings[i] or f"<unused_{i}>", 0.0, control) for i in range(size, first)]
    rows += [(token, lowest - 1 - i, normal) for i, token in enumerate(tokens)]
    rows += [(token, 0.0, control) for token in special]
    message = bytearray(file.read_bytes())
    for token, score, kind in rows:
        text = token.encode()
        piece = b"\x0a" + _varint(len(text)) + text + b"\x15" + struct.pack("<f", score) + b"\x18" + _varint(kind)
        message += b"\x0a" + _varint(len(piece)) + piece
    trainer = b"\x20" + _varint(first + len(tokens) + len(special))
    message += b"\x12" + _varint(len(trainer)) + trainer
    return bytes(message)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))
