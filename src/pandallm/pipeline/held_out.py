"""Held-out text of a stage as windows of tokens, a small stage of the store made before anything trains."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pandallm.errors import BadInput
from pandallm.progress import Progress
from pandallm.store import Artifact, Work, write_json
from pandallm.train.spec import TrainSpec

if TYPE_CHECKING:
    from pandallm.data.chat_cut import ChatTemplate
    from pandallm.evaluate.bits import Document
    from pandallm.pipeline.run import Run


def watched_corpora(spec: TrainSpec, corpus: str) -> tuple[str, ...]:
    """Whose held-out text a stage that trains on `corpus` watches; none without `watch`."""
    return (spec.watch.corpora or (corpus,)) if spec.watch else ()


def deciding_corpora(spec: TrainSpec, corpus: str) -> tuple[str, ...]:
    """Which of the watched corpora decide about early stop and best weights."""
    watched = watched_corpora(spec, corpus)
    assert spec.watch is not None
    return spec.watch.decide or ((corpus,) if corpus in watched else watched)


def held_out_settings(spec: TrainSpec, corpus: str) -> dict[str, Any]:
    """What the windows depend on besides the corpora's held-out text and the tokenizer."""
    assert spec.watch is not None
    settings = {
        "corpora": list(watched_corpora(spec, corpus)),
        "decide": list(deciding_corpora(spec, corpus)),
        "documents": spec.watch.documents,
        "sequence_length": spec.sequence_length,
    }
    return settings | ({"chat_template": spec.chat_template} if spec.chat_template != "none" else {})


def held_out(run: "Run", name: str, spec: TrainSpec, corpus: str) -> Artifact | None:
    """The windows that stage `name` watches; None where its settings have no `watch`.

    Raises BadInput where a corpus that it names holds no held-out document.
    """
    from pandallm.pipeline.corpora import _tokenizer_digest, stage_template
    from pandallm.pipeline.evaluation import held_out_digest

    if spec.watch is None:
        return None
    settings = held_out_settings(spec, corpus)
    cleaned = {c: run.corpus(c) for c in settings["corpora"]}
    folder, _ = run.start()
    inputs = {f"corpus:{c}": held_out_digest(a) for c, a in cleaned.items()} | {"tokenizer": _tokenizer_digest(folder)}
    chat = stage_template(spec, folder)
    if chat:
        inputs["chat_template"] = chat.digest

    def make(work: Work, progress: Progress) -> Mapping[str, Any]:
        folders = {c: a.path for c, a in cleaned.items()}
        return write_windows(
            folders, folder, work.folder, name=name, **_arguments(settings), chat=chat, progress=progress
        )

    return run.stage(f"held out {name}", "held_out", settings, inputs, make)


def _arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {k: settings[k] for k in ("decide", "documents", "sequence_length")}


def write_windows(
    cleaned: Mapping[str, Path],
    tokenizer: Path,
    out: Path,
    *,
    decide: Sequence[str],
    documents: int | None,
    sequence_length: int,
    name: str,
    chat: "ChatTemplate | None" = None,
    progress: Progress,
) -> dict[str, Any]:
    """Write a folder of held-out windows (`train/held_out.py`), cut as the evaluation cuts its documents
    (`evaluate/bits.py`), each at most `sequence_length` tokens. cleaned: corpus -> folder. chat: how the stage writes
    dialogues, in which they are then measured. Returns facts."""
    from pandallm.data.chat import ChatEncoder
    from pandallm.data.tokenize import load_tokenizer as load_plain
    from pandallm.data.tokenize_chat import dialogue_tokens
    from pandallm.evaluate.bits import document_tokens, read_held_out, windows
    from pandallm.model.folder import load_tokenizer

    loaded = load_tokenizer(tokenizer)
    encoder = ChatEncoder(load_plain(tokenizer), chat) if chat else None
    groups: dict[tuple[str, str, str], dict[str, Any]] = {}
    ids, scored, lengths, window_groups = list[int](), list[int](), list[int](), list[int]()
    chosen = {corpus: _spaced(read_held_out(folder), documents) for corpus, folder in cleaned.items()}
    with progress.task(f"held out {name}", sum(map(len, chosen.values())), "documents") as shown:
        for corpus, picked in chosen.items():
            if not picked:
                raise BadInput(
                    f"stages.{name}.watch: corpus {corpus} holds no held-out document: set corpora.{corpus}.held_out, "
                    "as in {documents: 200}, or take watch out."
                )
            for document in picked:
                key = (corpus, document.source, document.language)
                zero = {"documents": 0, "bytes": 0, "tokens": 0}
                names = dict(zip(("corpus", "source", "language"), key, strict=True))
                group = groups.setdefault(key, {**names, **zero, "number": len(groups)})
                if encoder and not all(trained for _, trained in document.turns):
                    tokens, text = dialogue_tokens(encoder, document.id, document.turns)
                else:
                    tokens, text = document_tokens(loaded, document)
                cut = windows(0, tokens, text, sequence_length - 1)
                group["documents"] += 1
                group["bytes"] += document.bytes
                for window in cut:
                    ids += window.tokens
                    scored += [0, *map(int, window.scored)]
                    lengths.append(len(window.tokens))
                    window_groups.append(group["number"])
                    group["tokens"] += sum(window.scored)
                shown.advance(1)
    out.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        "input_ids": np.array(ids, np.uint32),
        "scored": np.array(scored, np.uint8),
        "offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "groups": np.array(window_groups, np.uint16),
    }
    for array, values in arrays.items():
        np.save(out / f"{array}.npy", values, allow_pickle=False)
    facts = [{k: v for k, v in group.items() if k != "number"} for group in groups.values()]
    write_json(out / "held_out.json", {"groups": facts, "decide": list(decide), "sequence_length": sequence_length})
    return {"windows": len(lengths), **{k: sum(g[k] for g in facts) for k in ("documents", "bytes", "tokens")}}


def _spaced(documents: "list[Document]", most: int | None) -> "list[Document]":
    """At most so many of them, evenly spaced: they lie source after source."""
    if most is None or len(documents) <= most:
        return documents
    return [documents[i * len(documents) // most] for i in range(most)]
