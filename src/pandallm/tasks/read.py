"""Published benchmark files -> questions."""

import gzip
import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput
from pandallm.tasks.spec import TaskSpec
from pandallm.tasks.types import LETTERS, Question

Record = dict[str, Any]


def read_questions(task: TaskSpec, files: Sequence[Path]) -> list[Question]:
    """All questions of `files` (.json, .jsonl, .txt; also .gz, .zst) that `task.where` keeps, in file order.

    Rules, the same for every reader: a cluster that the file does not give is the passage (hash of the context; the
    question itself where there is none). C3: the answer is `label` where present, else the position of the answer's
    text; of two options with the same text the first (as C3's own labels do). LogiQA 2.0 repeats a few ids for
    different questions: the second gets `-2`. Elsewhere a repeated id raises BadInput, as do a label outside of the
    options, an answer that is no option, and fewer than 2 or more than 10 options; the message names file and line.
    """
    if not files:
        raise BadInput(f"Task {task.name} has no files; set its `files` to the published files ({task.source}).")
    questions: list[Question] = []
    seen: dict[str, int] = {}
    for path in files:
        for where, record in _records(path, task.reader):
            if any(str(record.get(field)) != value for field, value in task.where.items() if field in record):
                continue
            missing = [f for f in task.where if f not in record and "_nested" not in record]
            if missing:
                raise BadInput(f"{where}: the field {missing[0]!r}, by which task {task.name} selects, is missing.")
            question = _READERS[task.reader](task.name, record, where)
            seen[question.id] = seen.get(question.id, 0) + 1
            if seen[question.id] > 1:
                if task.reader != "logiqa2":
                    raise BadInput(f"{where}: the id {question.id!r} occurs twice; ids must be unique.")
                # The published files use some ids for two different questions.
                question = _with_id(question, f"{question.id}-{seen[question.id]}")
            questions.append(question)
    if not questions:
        raise BadInput(f"{files[0]}: no question of task {task.name} (where: {task.where}) was found.")
    return questions


def task_texts(questions: Sequence[Question]) -> list[tuple[str, str]]:
    """(id, text) of each question, for decontamination: context, question and options, one below the other."""
    return [(q.id, "\n".join(x for x in (q.context, q.question, *q.options) if x)) for q in questions]


def sample_questions(questions: Sequence[Question], n: int | None) -> list[Question]:
    """A fixed random sample of `n` questions (those with the smallest hash of their id), in file order; None: all."""
    if n is None or n >= len(questions):
        return list(questions)
    by_hash = sorted(range(len(questions)), key=lambda i: hashlib.sha256(questions[i].id.encode()).digest())
    return [questions[i] for i in sorted(by_hash[:n])]


def _with_id(q: Question, new: str) -> Question:
    return Question(new, q.task, q.cluster, q.context, q.question, q.options, q.answer, q.group)


def _text_of(path: Path) -> str:
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        elif path.suffix == ".zst":
            import zstandard

            with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data), read_across_frames=True) as stream:
                data = stream.read()
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist.") from None
    except UnicodeDecodeError as e:
        raise BadInput(f"{path} is not UTF-8 ({e.reason} at byte {e.start}).") from None
    except Exception as e:  # gzip and zstandard raise classes of their own
        raise BadInput(f"{path} cannot be read ({e}).") from None


def _records(path: Path, reader: str) -> Iterator[tuple[str, Record]]:
    """(place, record) of one file: an array, or a record a line."""
    for where, value in _values(path, _text_of(path)):
        if reader == "c3" and isinstance(value, list):
            yield from _unnest(value, path, where)
        elif isinstance(value, dict):
            yield where, value
        else:
            raise BadInput(f"{where}: expected an object, found {type(value).__name__}.")


def _values(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    if text.lstrip().startswith("["):
        try:
            array = json.loads(text)
        except (json.JSONDecodeError, RecursionError):
            array = None  # not one array: perhaps lines that are arrays
        if isinstance(array, list) and not (len(array) == 3 and isinstance(array[2], str)):
            for number, value in enumerate(array, 1):
                yield f"{path}: record {number}", value
            return
    # Not splitlines(): U+2028 and U+0085 may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield f"{path}:{number}", json.loads(line)
            except (json.JSONDecodeError, RecursionError) as e:
                raise BadInput(f"{path}:{number}: not valid JSON ({getattr(e, 'msg', e)}).") from None


def _unnest(value: list[Any], path: Path, where: str) -> Iterator[tuple[str, Record]]:
    """C3 as published: [[turns], [{question, choice, answer}], id]; d or m only in the file's name (c3-m-dev.json)."""
    if len(value) != 3 or not isinstance(value[0], list) or not isinstance(value[1], list):
        raise BadInput(f"{where}: expected [[turns], [{{question, choice, answer}}, ..], id] as C3 is published.")
    kind = re.search(r"(?:^|[^a-z])([dm])(?:[^a-z]|$)", path.name.lower().removesuffix(".json"))
    for number, question in enumerate(value[1]):
        if not isinstance(question, dict):
            raise BadInput(f"{where}: question {number + 1} is not an object.")
        prefix = f"{kind[1]}-" if kind else ""
        yield (
            where,
            {
                **question,
                **({"type": kind[1]} if kind else {}),
                "_nested": True,
                "context": value[0],
                "id": f"{prefix}{value[2]}-{number}",
            },
        )


def _c3(task: str, record: Record, where: str) -> Question:
    turns = _get(record, "context", list, where)
    if not all(isinstance(t, str) for t in turns):
        raise BadInput(f"{where}: `context` must be a list of texts.")
    options = _options(record, "choice", where)
    label, answer = record.get("label"), record.get("answer")
    if label is None:
        if answer not in options:
            raise BadInput(f"{where}: the answer {answer!r} is none of the options; correct the record.")
        label = options.index(answer)
    label = _index(label, options, where, "label")
    if answer is not None and options[label] != answer:
        raise BadInput(f"{where}: label {label} is {options[label]!r}, but the answer is {answer!r}.")
    return _question(task, record, where, "\n".join(turns), record.get("id"), "question", options, label)


def _logiqa2(task: str, record: Record, where: str) -> Question:
    options = _options(record, "options", where)
    answer = _index(_get(record, "answer", object, where), options, where, "answer")
    identity = record.get("id", record.get("example_id"))
    return _question(task, record, where, _get(record, "text", str, where), identity, "question", options, answer)


def _mcq(task: str, record: Record, where: str) -> Question:
    options = _options(record, "options", where)
    answer = _get(record, "answer", object, where)
    if isinstance(answer, str):
        if options.count(answer) == 1:
            index = options.index(answer)
        elif options.count(answer) > 1:
            raise BadInput(f"{where}: {options.count(answer)} options read {answer!r}; give the answer as an index.")
        elif len(answer) == 1 and answer in LETTERS[: len(options)]:
            index = LETTERS.index(answer)
        else:
            raise BadInput(f"{where}: the answer {answer!r} is no option and no letter of one; correct the record.")
    else:
        index = _index(answer, options, where, "answer")
    context = record.get("context") or ""
    if isinstance(context, list):
        context = "\n".join(str(t) for t in context)
    return _question(task, record, where, str(context), record.get("id"), "question", options, index)


def _get(record: Record, field: str, kind: type, where: str) -> Any:
    if field not in record:
        raise BadInput(f"{where}: the field {field!r} is missing.")
    if not isinstance(record[field], kind):
        raise BadInput(f"{where}: the field {field!r} must be a {kind.__name__}, found {record[field]!r:.60}.")
    return record[field]


def _options(record: Record, field: str, where: str) -> list[str]:
    options: list[str] = _get(record, field, list, where)
    if not all(isinstance(o, str) for o in options):
        raise BadInput(f"{where}: `{field}` must be a list of texts.")
    if not 2 <= len(options) <= len(LETTERS):
        raise BadInput(f"{where}: `{field}` has {len(options)} options; 2 to {len(LETTERS)} are supported.")
    return options


def _index(value: Any, options: list[str], where: str, field: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(options):
        raise BadInput(f"{where}: {field} is {value!r}, but must be 0 to {len(options) - 1}, one of the options.")
    return value


def _question(
    task: str, record: Record, where: str, context: str, identity: Any, field: str, options: list[str], answer: int
) -> Question:
    if isinstance(identity, bool) or not isinstance(identity, str | int) or identity == "":
        raise BadInput(f"{where}: the record has no id (a text or a number).")
    cluster = record.get("cluster")
    if cluster is None:
        cluster = hashlib.sha256(context.encode()).hexdigest()[:16] if context else str(identity)
    return Question(
        id=str(identity),
        task=task,
        cluster=str(cluster),
        context=context,
        question=_get(record, field, str, where),
        options=tuple(options),
        answer=answer,
        group=str(record.get("group") or ""),
    )


_READERS = {"c3": _c3, "logiqa2": _logiqa2, "mcq": _mcq}
