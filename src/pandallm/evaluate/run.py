"""One model, its tasks and held-out documents -> rows.jsonl and bits_per_byte.jsonl."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput, Interrupted
from pandallm.evaluate.journal import Journal
from pandallm.evaluate.prompts import render
from pandallm.evaluate.select import selected_prompts
from pandallm.evaluate.spec import EvaluateSpec
from pandallm.model.spec import Dtype
from pandallm.progress import SILENT, Progress
from pandallm.store import digest_json, write_jsonl
from pandallm.tasks.read import sample_questions
from pandallm.tasks.spec import PromptSpec, TaskSpec
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
) -> dict[str, Any]:
    """Score one model folder; writes `out`/rows.jsonl and `out`/bits_per_byte.jsonl and returns facts.

    Rows stand in the order of tasks, methods, prompts, questions. `held_out` maps a corpus to its folder (with
    held_out.parquet). `deadline` is a `time.monotonic()`; past it, what is scored stays in `out`/.journal and Interrupted is
    raised; the same call goes on from there. Generation runs only for prompts with `generate: true`.
    Facts: rows, documents, seconds, device, shared_prefixes (None where no likelihood was scored), truncated.
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
        run = _Run(model, model_name, spec, out, device, deadline, progress)
        rows: list[Row] = []
        for (task, questions), (scored, answered) in zip(tasks, prompts):
            if "likelihood" in spec.methods:
                chosen = sample_questions(questions, spec.limit.likelihood)
                rows += run.likelihood(task, scored, chosen)
            if "generation" in spec.methods:
                chosen = sample_questions(questions, spec.limit.generation)
                asking = [name for name in answered if task.prompts[name].generate]
                rows += [r for name in asking for r in run.generation(task, name, task.prompts[name], chosen)]
        bits = [row for corpus, folder in held_out.items() for row in run.bits(corpus, folder)]
    finally:
        torch.set_num_threads(before)
    write_jsonl(out / "rows.jsonl", rows)
    write_jsonl(out / "bits_per_byte.jsonl", bits)
    return {
        "rows": len(rows),
        "documents": len(bits),
        "truncated": run.truncated,
        "shared_prefixes": run.scorer.shared,
        "device": str(run.scorer.device),
        "seconds": round(time.time() - started, 3),
    }


def open_model(folder: Path, dtype: Dtype, device: str) -> tuple[Any, Any]:
    """(model in eval mode with ordinary attention, tokenizer) of a Hugging Face folder; device "auto": GPU if any."""
    import torch

    from pandallm.model.folder import load_model, load_tokenizer

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(folder, dtype=dtype, device=device)
    # Not training's packed attention; scoring sets its own.
    model.set_attn_implementation("sdpa")
    return model.eval(), load_tokenizer(folder)


def model_identity(folder: Path) -> str:
    """Changes when the folder's files do: the journal of one model is never read for another."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return digest_json([(p.relative_to(folder).as_posix(), p.stat().st_size, p.stat().st_mtime_ns) for p in files])


class _Run:
    """What stays the same over all tasks of one model."""

    def __init__(
        self,
        folder: Path,
        name: str,
        spec: EvaluateSpec,
        out: Path,
        device: str,
        deadline: float | None,
        progress: Progress,
    ) -> None:
        from pandallm.evaluate.likelihood import Scorer

        self.name, self.spec, self.out, self.deadline, self.progress = name, spec, out, deadline, progress
        self.model, self.tokenizer = open_model(folder, spec.dtype, device)
        self.scorer = Scorer(self.model, spec.batch_tokens)
        self.max_length = int(getattr(self.model.config, "max_position_embeddings", None) or WINDOW_TOKENS)
        self.identity = {
            "model": model_identity(folder),
            "dtype": spec.dtype,
            "batch_tokens": spec.batch_tokens,
            "device": self.scorer.device.type,
        }
        self.truncated = 0

    def _journal(self, what: str, key: Any) -> Journal:
        # Names of corpora and tasks come from users: the file's name must not be one of theirs.
        return Journal(
            self.out / ".journal" / f"{digest_json(what)[:24]}.jsonl", digest_json([self.identity, what, key])
        )

    def _check_deadline(self) -> None:
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise Interrupted(f"The time for evaluating {self.name} is over; run again to go on where it stopped.")

    def likelihood(self, task: TaskSpec, names: Sequence[str], questions: Sequence[Question]) -> list[Row]:
        """Rows of one task, prompt by prompt, scored by log-likelihood; all prompts of a passage are scored together."""
        from pandallm.evaluate.encode import encode_questions

        passages: dict[str, list[int]] = {}
        for i, q in enumerate(questions):
            passages.setdefault(q.context or f"\0{i}", []).append(i)
        asked = [(p, name, i) for p, of in passages.items() for name in names for i in of]
        rendered = [render(task.prompts[name], questions[i]) for _, name, i in asked]
        encoded = encode_questions(self.tokenizer, rendered, self.max_length)
        self.truncated += sum(bool(e.truncated) for e in encoded)
        key = [(name, questions[i].id, *r) for (_, name, i), r in zip(asked, rendered)]
        shown_as = f"{self.name}: {task.name} {names[0] if len(names) == 1 else f'({len(names)} prompts)'}"
        with (
            self._journal(f"{task.name}.likelihood", key) as journal,
            self.progress.task(shown_as, len(asked), "questions") as shown,
        ):
            scores: dict[int, list[float]] = journal.rows
            shown.advance(len(scores))
            for batch in self.scorer.score(encoded, [p for p, _, _ in asked], scores.__contains__):
                fresh = sum(k not in scores for k, _ in batch)
                journal.add(batch)
                shown.advance(fresh)
                self._check_deadline()
        found = {(name, i): scores[k] for k, (_, name, i) in enumerate(asked)}
        rows = []
        for name in names:
            for i, question in enumerate(questions):
                of = found[name, i]
                choice = max(range(len(question.options)), key=lambda o: (of[o], -o))  # first wins ties
                rows.append(self._row(task, name, "likelihood", question, choice, [round(s, 6) for s in of], None))
        return rows

    def generation(self, task: TaskSpec, name: str, prompt: PromptSpec, questions: Sequence[Question]) -> list[Row]:
        """Rows of one task and prompt, read out of generated answers."""
        from pandallm.evaluate.extract import extract, settled
        from pandallm.evaluate.generate import encode_prompts, generate
        from pandallm.evaluate.prompts import strip_labels

        texts = [render(prompt, q)[0] for q in questions]
        options = [strip_labels(q.options) if prompt.strip_labels else list(q.options) for q in questions]
        what = f"{task.name}.{name}.generation"
        new = min(self.spec.max_new_tokens, self.max_length - 1)
        encoded, cut = encode_prompts(self.tokenizer, texts, self.max_length - new)
        self.truncated += cut
        with (
            self._journal(what, [new, [(q.id, t, o) for q, t, o in zip(questions, texts, options)]]) as journal,
            self.progress.task(f"{self.name}: {task.name} {name}, generating", len(questions), "questions") as shown,
        ):
            said = journal.rows
            shown.advance(len(said))
            for batch in generate(
                self.model,
                self.tokenizer,
                encoded,
                new,
                self.spec.batch_tokens,
                lambda i, text: settled(text, options[i]),
                said.__contains__,
            ):
                fresh = sum(i not in said for i, _ in batch)
                journal.add(batch)
                shown.advance(fresh)
                self._check_deadline()
        return [
            self._row(task, name, "generation", q, extract(said[i], options[i]), None, said[i])
            for i, q in enumerate(questions)
        ]

    def _row(
        self,
        task: TaskSpec,
        prompt: str,
        method: str,
        question: Question,
        choice: int | None,
        scores: list[float] | None,
        completion: str | None,
    ) -> Row:
        return {
            "model": self.name,
            "task": task.name,
            "prompt": prompt,
            "method": method,
            "id": question.id,
            "cluster": question.cluster,
            "group": question.group,
            "options": len(question.options),
            "answer": question.answer,
            "choice": choice,
            "correct": choice == question.answer,
            "scores": scores,
            "completion": completion,
        }

    def bits(self, corpus: str, folder: Path) -> list[Row]:
        """Rows of one corpus's held-out documents."""
        from pandallm.evaluate.bits import read_held_out, score_documents

        documents = read_held_out(folder)
        length = min(self.max_length, WINDOW_TOKENS)
        key = [length, [(d.id, d.turns) for d in documents]]
        with (
            self._journal(f"{corpus}.bits", key) as journal,
            self.progress.task(f"{self.name}: {corpus}, bits per byte", len(documents), "documents") as shown,
        ):
            found = journal.rows
            shown.advance(len(found))
            for batch in score_documents(
                self.model, self.tokenizer, documents, length, self.spec.batch_tokens, found.__contains__
            ):
                fresh = sum(i not in found for i, _ in batch)
                journal.add(batch)
                shown.advance(fresh)
                self._check_deadline()
        return [
            {
                "model": self.name,
                "corpus": corpus,
                "source": d.source,
                "language": d.language,
                "id": d.id,
                "bits": round(found[i][0], 4),
                "bytes": d.bytes,
                "tokens": found[i][1],
            }
            for i, d in enumerate(documents)
        ]
