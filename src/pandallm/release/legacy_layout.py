"""Which of the published layouts a delta has, and the note beside deltas made here that says it."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from pandallm.errors import BadInput
from pandallm.progress import Progress
from pandallm.release.codec import FLOATS, cast
from pandallm.release.legacy_rules import EMBEDDINGS, Layout, Tied, find, fit, is_tied, mean_row
from pandallm.release.stream import in_order
from pandallm.release.weights import ModelFolder, read_elements, tensor_digest
from pandallm.store import read_json

NOTE = "panda_legacy.json"


class Note(BaseModel):
    """`panda_legacy.json` beside a delta made here: what the scripts never stated. Other tools ignore it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal["panda-legacy-delta"]
    version: Literal[1]
    pandallm: str
    layout: Layout
    tied: Tied | None
    base: dict[str, str]
    result: dict[str, str]


TIED_SAID: dict[Tied, str] = {
    "once": "The embeddings are tied; the delta holds target - base.",
    "twice": "The embeddings are tied and were subtracted twice when the delta was made; the base is added twice.",
    "half": "The embeddings are tied; the delta holds half their difference, because FastChat's apply adds it twice.",
}


@dataclass(frozen=True)
class Found:
    """A layout, how a tied matrix was treated (None: not tied), and what to tell."""

    layout: Layout
    tied: Tied | None
    sentences: list[str]


def find_layout(
    base: ModelFolder, delta: ModelFolder, note: Note | None, layout: Layout | None, tied: Tied | None
) -> Found:
    """What is asked for, else what the note says, else what the embeddings look like; BadInput where these disagree."""
    is_one = is_tied(delta, base)
    if note is not None:
        layout = layout or note.layout
        tied = tied or (note.tied if layout == note.layout else None)
        return Found(layout, (tied or "once") if is_one and layout != "panda" else None, [])
    embedding = find(delta, EMBEDDINGS)
    reference = base.tensors.get(embedding.name) if embedding is not None else None
    comparable = (
        embedding is not None
        and reference is not None
        and len(embedding.shape) == 2
        and embedding.shape[1:] == reference.shape[1:]
    )
    if (
        embedding is None
        or reference is None
        or not comparable
        or not {embedding.dtype, reference.dtype} <= set(FLOATS)
    ):
        if layout is None:
            raise BadInput(f"The layout of {delta.path} cannot be told from its embeddings; give --layout.")
        return Found(layout, (tied or "once") if is_one and layout != "panda" else None, [])
    sizes = fit(embedding, reference)
    best = sizes.best()
    if best is None and layout is None:
        raise BadInput(
            f"Wrong base, or an unknown layout: {embedding.name!r} of {delta.path} is neither near the base's nor a "
            "small difference. Check the base, or give --layout. Nothing was written."
        )
    own = sizes.whole if layout == "panda" else min(sizes.once, sizes.twice)
    if layout is not None and best is not None and (best == "whole") != (layout == "panda") and own > 0.5 * sizes.base:
        kind = "whole" if best == "whole" else "a difference"
        raise BadInput(
            f"{delta.path} is not in the {layout} layout: its {embedding.name!r} is {kind}; leave --layout out or give "
            f"--layout {'panda' if best == 'whole' else 'fastchat'}. Nothing was written."
        )
    sentences = []
    if layout is None:
        layout, why = _guess(delta, base, best)
        sentences.append(f"Layout {layout}: {why}.")
    if layout == "panda" or not is_one:
        return Found(layout, None, sentences)
    tied = tied or ("twice" if best == "twice" else "once")
    return Found(layout, tied, [*sentences, TIED_SAID[tied]])


def _guess(delta: ModelFolder, base: ModelFolder, best: str | None) -> tuple[Layout, str]:
    """The layout that a delta's embeddings look like, and why."""
    embedding = find(delta, EMBEDDINGS)
    assert embedding is not None
    if best == "whole":
        return "panda", "its embeddings are whole"
    reference = base.tensors[embedding.name]
    old, new = reference.shape[0], embedding.shape[0]
    if new > old:
        width, rows = embedding.count // new, min(new - old, 64)
        data = read_elements(embedding, old * width, rows * width)
        values = np.frombuffer(cast(data, embedding.dtype, "F32"), "<f4").reshape(rows, width)
        mean = mean_row(reference)
        if np.square(values).sum() < np.square(values - mean).sum():
            return "alpaca", "its new rows are differences from the mean row"
        return "fastchat", "its embeddings are differences and its new rows whole"
    return "fastchat", "its embeddings are differences"


def check_base(note: Note, base: ModelFolder, progress: Progress) -> None:
    """Refuse a wrong base, smallest tensors first."""
    missing = [n for n in note.base if n not in base.tensors]
    if missing:
        raise BadInput(f"Wrong base: it has no tensor {missing[0]!r}, which this delta needs. Nothing was written.")
    needed = sorted((base.tensors[n] for n in note.base), key=lambda t: t.bytes)
    with (
        progress.task("check base", sum(t.bytes for t in needed) / 1e6, "MB") as task,
        closing(in_order(tensor_digest, needed)) as digests,
    ):
        for tensor, digest in zip(needed, digests, strict=True):
            if digest != note.base[tensor.name]:
                raise BadInput(
                    f"Wrong base: tensor {tensor.name!r} has sha256 {digest[:8]}…, this delta needs "
                    f"{note.base[tensor.name][:8]}…. Nothing was written."
                )
            task.advance(tensor.bytes / 1e6)


def read_note(delta: Path) -> Note | None:
    """The note of a delta; None where there is none, BadInput where it is damaged."""
    path = delta / NOTE
    if not path.is_file():
        return None
    try:
        return Note.model_validate(read_json(path))
    except (ValidationError, RecursionError):
        raise BadInput(f"{path} is damaged; get the delta again, or remove this file to do without it.") from None
