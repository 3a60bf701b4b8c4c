"""A model folder on one device of this machine, as a backend."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pandallm.evaluate.backend import Answered, Asked, Scored
from pandallm.model.spec import Dtype
from pandallm.store import digest_file, digest_json

#: Window of a model that does not state one.
DEFAULT_WINDOW = 2048


def open_model(folder: Path, dtype: Dtype, device: str) -> tuple[Any, Any]:
    """(model in eval mode with ordinary attention, tokenizer) of a Hugging Face folder; device "auto": GPU if any."""
    from pandallm.model.folder import load_model, load_tokenizer, resolve_device
    from pandallm.model.onednn import use_onednn

    model = load_model(folder, dtype=dtype, device=resolve_device(device)).eval()
    # Not training's packed attention; scoring sets its own.
    model.set_attn_implementation("sdpa")
    use_onednn(model)
    return model, load_tokenizer(folder)


class LocalBackend:
    """Backend of one model folder in this process: `Scorer` for log-likelihoods, `generate` for answers.

    Raises BadInput where `folder` is no model, or the device is not there.
    """

    def __init__(
        self, folder: Path, *, dtype: Dtype = "float32", device: str = "auto", batch_tokens: int = 8192
    ) -> None:
        from pandallm.evaluate.likelihood import Scorer

        self.folder, self.dtype, self.batch_tokens = folder, dtype, batch_tokens
        self.model, self.tokenizer = open_model(folder, dtype, device)
        self.scorer = Scorer(self.model, batch_tokens)
        self.max_length = int(getattr(self.model.config, "max_position_embeddings", None) or DEFAULT_WINDOW)

    @property
    def identity(self) -> Mapping[str, Any]:
        """Content of the folder's files, chat template, dtype, kind of device; not the size of batches."""
        return {
            "files": folder_identity(self.folder),
            "chat_template": str(getattr(self.tokenizer, "chat_template", None) or ""),
            "dtype": self.dtype,
            "device": self.scorer.device.type,
        }

    def score(
        self, asked: Sequence[Asked], groups: Sequence[str], done: Callable[[int], bool] = lambda i: False
    ) -> Iterator[list[tuple[int, Scored]]]:
        """See `Backend.score`; the same batches whatever is `done`, so that a resumed evaluation finds the same numbers."""
        from pandallm.evaluate.encode import encode_asked

        encoded = encode_asked(self.tokenizer, asked, self.max_length)
        for batch in self.scorer.score(encoded, groups, done):
            yield [(i, Scored(scores, encoded[i].truncated > 0)) for i, scores in batch]

    def generate(
        self,
        asked: Sequence[Asked],
        max_new_tokens: int,
        settled: Callable[[int, str], bool] = lambda i, text: False,
        done: Callable[[int], bool] = lambda i: False,
    ) -> Iterator[list[tuple[int, Answered]]]:
        """See `Backend.generate`."""
        from pandallm.evaluate.encode import encode_prompts
        from pandallm.evaluate.generate import generate

        new = min(max_new_tokens, self.max_length - 1)
        encoded = encode_prompts(self.tokenizer, asked, self.max_length - new)
        prompts = [ids for ids, _ in encoded]
        for batch in generate(self.model, self.tokenizer, prompts, new, self.batch_tokens, settled, done):
            yield [(i, Answered(text, encoded[i][1])) for i, text in batch]


def folder_identity(folder: Path) -> str:
    """sha256 over names and contents of a model folder's files (hidden ones left out)."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith(".")]
    return digest_json(
        [(p.relative_to(folder).as_posix(), _digest(p, p.stat().st_size, p.stat().st_mtime_ns)) for p in files]
    )


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, changed: int) -> str:
    """A file is read once per process as long as it does not change."""
    return digest_file(path)
