"""One model, its tasks and held-out documents -> rows.jsonl and bits_per_byte.jsonl."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput, Interrupted
from pandallm.evaluate.ask import ChatTemplate, Item, Variant, ask, chat_template, items, variants
from pandallm.evaluate.backend import Asked, Backend
from pandallm.evaluate.choices import decide
from pandallm.evaluate.journal import Journal
from pandallm.evaluate.local import LocalBackend
from pandallm.evaluate.prompts import shown_options
from pandallm.evaluate.select import sample, selected_prompts
from pandallm.evaluate.shots import Examples
from pandallm.evaluate.spec import EvaluateSpec
from pandallm.progress import SILENT, Progress
from pandallm.store import digest_json, write_jsonl
from pandallm.tasks.spec import TaskSpec
from pandallm.tasks.types import Question

#: Longest window for bits per byte, whatever the model could read: comparable between models, and bounded in memory.
WINDOW_TOKENS = 2048

Row = dict[str, Any]


def evaluate_model(
    model: Path,
    model_name: str,
    tasks: Sequence[tuple[TaskSpec, Sequence[Question]]],
    held_out: Mapping[str, Path],
    spec: EvaluateSpec,
    out: Path,
    *,
    device: str = "auto",
    threads: int | None = None,
    deadline: float | None = None,
    progress: Progress = SILENT,
    backend: Backend | None = None,
    examples: Mapping[str, Sequence[Question]] | None = None,
) -> dict[str, Any]:
    """Score one model; writes `out`/rows.jsonl and `out`/bits_per_byte.jsonl and returns facts.

    Rows stand in the order of tasks, methods, prompts, examples, chat, rotations, questions. `held_out` maps a corpus
    to its folder (with held_out.parquet). What is scored is kept in `out`/.journal, per question and by content, so
    the same call goes on after a kill; past `deadline` (a `time.monotonic()`) Interrupted is raised. Generation runs
    only for prompts with `generate: true`. `backend`: what answers; without it the model folder `model` on `device`.
    `examples`: few-shot examples of a task where they do not come from its own questions.
    Facts: rows, documents, seconds, device, shared_prefixes (None where no likelihood was scored here), truncated,
    resumed (answers found in the journal).
    Raises BadInput for unknown prompts, a missing chat template, prompts that do not fit the model.
    """
    import torch

    generated = spec.prompts if spec.generation_prompts is None else spec.generation_prompts
    prompts = [(selected_prompts(task, spec.prompts), selected_prompts(task, generated)) for task, _ in tasks]
    absent = [c for c in spec.bits_per_byte if c not in held_out]
    if absent:
        raise BadInput(f"evaluate.bits_per_byte: corpus {absent[0]!r} has no held-out documents here.")
    started = time.time()
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        if backend is None:
            backend = LocalBackend(model, dtype=spec.dtype, device=device, batch_tokens=spec.batch_tokens)
        run = _Run(model, model_name, spec, out, backend, deadline, progress)
        rows: list[Row] = []
        for (task, questions), (scored, answered) in zip(tasks, prompts):
            pool = (examples or {}).get(task.name) or questions
            drawn = Examples(questions, pool) if any(spec.shots) else None
            if "likelihood" in spec.methods:
                chosen = sample(questions, spec.limit.passages, spec.limit.likelihood)
                rows += run.likelihood(task, scored, chosen, drawn)
            if "generation" in spec.methods:
                chosen = sample(questions, spec.limit.passages, spec.limit.generation)
                asking = [name for name in answered if task.prompts[name].generate]
                rows += run.generation(task, asking, chosen, drawn)
        bits = [row for corpus, folder in held_out.items() for row in run.bits(corpus, folder, device)]
    finally:
        torch.set_num_threads(before)
    write_jsonl(out / "rows.jsonl", rows)
    write_jsonl(out / "bits_per_byte.jsonl", bits)
    return {
        "rows": len(rows),
        "documents": len(bits),
        "truncated": sum(r["truncated"] for r in rows),
        "shared_prefixes": backend.scorer.shared if isinstance(backend, LocalBackend) else None,
        "device": str(backend.identity.get("device", "")),
        "resumed": run.resumed,
        "seconds": round(time.time() - started, 3),
    }


class _Run:
    """What stays the same over all tasks of one model."""

    def __init__(
        self,
        folder: Path,
        name: str,
        spec: EvaluateSpec,
        out: Path,
        backend: Backend,
        deadline: float | None,
        progress: Progress,
    ) -> None:
        self.folder, self.name, self.spec, self.out, self.backend = folder, name, spec, out, backend
        self.deadline, self.progress = deadline, progress
        self.template = None if spec.chat == "off" else self._template()
        self.resumed = 0

    def _template(self) -> ChatTemplate | None:
        from pandallm.model.folder import load_tokenizer

        if isinstance(self.backend, LocalBackend):
            return chat_template(self.backend.tokenizer, self.folder)
        if any(
            (self.folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
        ):
            return chat_template(load_tokenizer(self.folder), self.folder)
        if "likelihood" in self.spec.methods:
            raise BadInput(
                f"{self.name}: log-likelihoods under a chat template need the model's tokenizer, which a server keeps; "
                "use `methods: [generation]`, `chat: off`, or give the tokenizer's folder as the model."
            )
        return None  # the server's own, applied to the messages

    def _check_deadline(self) -> None:
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise Interrupted(f"The time for evaluating {self.name} is over; run again to go on where it stopped.")

    @contextmanager
    def _journal(self, what: str, settings: Any, keys: Sequence[Any], shown_as: str, unit: str) -> Iterator["_Kept"]:
        # Names of corpora and tasks come from users: the file's name must not be one of theirs.
        path = self.out / ".journal" / f"{digest_json([self.name, what])[:24]}.jsonl"
        key = digest_json([dict(self.backend.identity), what, settings])
        with (
            Journal(path, key) as journal,
            self.progress.task(f"{self.name}: {shown_as}", len(keys), unit) as shown,
        ):
            found = sum(k in journal.rows for k in keys)
            if found:
                self.resumed += found
                self.progress.say(f"{self.name}: {shown_as}: {found} of {len(keys)} {unit} were found done.")
                shown.advance(found)

            def keep(batch: Sequence[tuple[int, Any]]) -> None:
                fresh = sum(keys[i] not in journal.rows for i, _ in batch)
                journal.add((keys[i], value) for i, value in batch)
                shown.advance(fresh)
                self._check_deadline()

            yield _Kept(journal.rows, keys, keep)

    def likelihood(
        self, task: TaskSpec, names: Sequence[str], questions: Sequence[Question], examples: Examples | None
    ) -> list[Row]:
        """Rows of one task, prompt by prompt, scored by log-likelihood; all prompts of a passage are scored together."""
        wanted = self.spec.unconditional or self.spec.normalize == "unconditional"
        asked = items(task, names, questions, self.spec, examples, self.template, wanted)
        keys = [_key(item.asked) for item in asked]
        shown_as = f"{task.name} {names[0] if len(names) == 1 else f'({len(names)} prompts)'}"
        with self._journal(f"{task.name}.likelihood", None, keys, shown_as, "questions") as kept:
            for batch in self.backend.score([i.asked for i in asked], [i.group for i in asked], kept.done):
                kept.keep([(i, [scored.scores, scored.truncated]) for i, scored in batch])
        conditional: dict[tuple[str, Variant, int], tuple[Item, Any]] = {}
        alone: dict[tuple[str, bool, int], list[float]] = {}
        for i, item in enumerate(asked):
            if item.shown is None:
                alone[item.prompt, item.variant.chat, item.question] = kept[i][0]
            else:
                conditional[item.prompt, item.variant, item.question] = (item, kept[i])
        rows = []
        for name in names:
            prompt = task.prompts[name]
            for variant in variants(prompt, self.spec):
                for q, question in enumerate(questions):
                    if (name, variant, q) in conditional:
                        _, (scores, truncated) = conditional[name, variant, q]
                        published = _published(scores, variant.order)
                        options = shown_options(prompt, question) if prompt.answer == "text" else None
                        row = self._row(task, name, "likelihood", variant, question)
                        row |= likelihood_fields(
                            published, alone.get((name, variant.chat, q)), options, self.spec.normalize
                        )
                        rows.append(_finished(row, truncated=truncated))
        return rows

    def generation(
        self, task: TaskSpec, names: Sequence[str], questions: Sequence[Question], examples: Examples | None
    ) -> list[Row]:
        """Rows of one task read out of generated answers, prompt by prompt."""
        from pandallm.evaluate.extract import settled

        rows: list[Row] = []
        new, cut = self.spec.max_new_tokens, self.spec.on_long == "cut"
        for name in names:
            prompt = task.prompts[name]
            ways = [
                (v, question, *ask(prompt, question, v, examples, self.template, cut))
                for v in variants(prompt, self.spec)
                for question in questions
                if v.order < len(question.options)
            ]
            keys = [_key(asked) for _, _, asked, _ in ways]

            def over(i: int, text: str, ways: Any = ways) -> bool:
                return settled(text, ways[i][3].options)

            what = f"{task.name}.{name}.generation"
            with self._journal(what, new, keys, f"{task.name} {name}, generating", "questions") as kept:
                for batch in self.backend.generate([asked for _, _, asked, _ in ways], new, over, kept.done):
                    kept.keep([(i, [answered.text, answered.truncated]) for i, answered in batch])
            for i, (variant, question, _, shown) in enumerate(ways):
                text, truncated = kept[i]
                row = self._row(task, name, "generation", variant, question)
                row |= generation_fields(text, shown.options, variant.order)
                rows.append(_finished(row, truncated=truncated))
        return rows

    def _row(self, task: TaskSpec, prompt: str, method: str, variant: Variant, question: Question) -> Row:
        return {
            "model": self.name,
            "task": task.name,
            "prompt": prompt,
            "method": method,
            "shots": variant.shots,
            "chat": variant.chat,
            "order": variant.order,
            "id": question.id,
            "cluster": question.cluster,
            "group": question.group,
            "options": len(question.options),
            "answer": question.answer,
        }

    def bits(self, corpus: str, folder: Path, device: str) -> list[Row]:
        """Rows of one corpus's held-out documents."""
        from pandallm.evaluate.bits import read_held_out, score_documents

        local = self.backend
        if not isinstance(local, LocalBackend):
            raise BadInput(
                "evaluate.bits_per_byte needs the model in this process; leave out --backend and --devices, or the corpora."
            )
        documents = read_held_out(folder)
        length = min(local.max_length, WINDOW_TOKENS)
        keys = [digest_json([d.id, d.turns]) for d in documents]
        with self._journal(f"{corpus}.bits", length, keys, f"{corpus}, bits per byte", "documents") as kept:
            for batch in score_documents(
                local.model, local.tokenizer, documents, length, self.spec.batch_tokens, kept.done
            ):
                kept.keep(batch)
        return [
            {
                "model": self.name,
                "corpus": corpus,
                "source": d.source,
                "language": d.language,
                "id": d.id,
                "bits": round(kept[i][0], 4),
                "bytes": d.bytes,
                "tokens": kept[i][1],
            }
            for i, d in enumerate(documents)
        ]


class _Kept:
    """A journal by position: what is asked first is number 0."""

    def __init__(self, rows: Mapping[Any, Any], keys: Sequence[Any], keep: Callable[[Sequence[tuple[int, Any]]], None]):
        self._rows, self._keys, self.keep = rows, keys, keep

    def done(self, i: int) -> bool:
        return self._keys[i] in self._rows

    def __getitem__(self, i: int) -> Any:
        return self._rows[self._keys[i]]


def _key(asked: Asked) -> str:
    """Everything that an answer depends on beside the backend."""
    return digest_json([asked.context, asked.continuations, asked.passage, asked.messages])


def _published(shown: Sequence[float], order: int) -> list[float]:
    """Values of shown options -> in published order: shown option j is published option j + order."""
    n = len(shown)
    return [round(shown[(i - order) % n], 6) for i in range(n)]


def likelihood_fields(
    scores: list[float], unconditional: Sequence[float] | None, options: Sequence[str] | None, normalize: str
) -> Row:
    """The fields of a row that follow from its scores (in published order); `options`: see `choices.decide`.

    No scores: a server did not tell them for every option. Then there is no choice.
    """
    if not scores:
        return {"scores": None, "unconditional": None, "choice": None, "choices": None, "near_tie": None}
    if not scores or (unconditional is not None and not unconditional):  # a server gave no log-probability of a letter
        return {"scores": None, "unconditional": None, "choice": None, "choices": None, "near_tie": None}
    alone = None if not unconditional else [round(s, 6) for s in unconditional]
    return {"scores": scores, "unconditional": alone, **decide(scores, alone, options, normalize)}


def generation_fields(completion: str, shown: Sequence[str], order: int) -> Row:
    """The fields of a row that are read from a completion; `shown`: the options as the prompt showed them."""
    from pandallm.evaluate.extract import extract, first_letter_2023

    def published(position: int | None) -> int | None:
        return None if position is None or position >= len(shown) else (position + order) % len(shown)

    return {
        "choice": published(extract(completion, shown)),
        "choice_2023": published(first_letter_2023(completion)),
        "completion": completion,
    }


def _finished(row: Row, truncated: bool) -> Row:
    """The row with all fields of the contract (docs/design.md), in its order."""
    return {
        **{k: row[k] for k in ("model", "task", "prompt", "method", "shots", "chat", "order", "id", "cluster")},
        "group": row["group"],
        "options": row["options"],
        "answer": row["answer"],
        "choice": row["choice"],
        "correct": row["choice"] == row["answer"],
        "scores": row.get("scores"),
        "unconditional": row.get("unconditional"),
        "choices": row.get("choices"),
        "near_tie": row.get("near_tie"),
        "truncated": truncated,
        "completion": row.get("completion"),
        "choice_2023": row.get("choice_2023"),
    }
