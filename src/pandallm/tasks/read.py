"""Published benchmark files -> questions."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pandallm.errors import BadInput
from pandallm.tasks.readers import Place, read_record, unnest_c3
from pandallm.tasks.records import Record, read_values
from pandallm.tasks.spec import TaskSpec
from pandallm.tasks.types import Question

EMPTY_OPTION = "an empty option"
EMPTY_PASSAGE = "no passage"
EMPTY_QUESTION = "an empty question"
EQUAL_OPTIONS = "two equal options, neither the answer"
AMBIGUOUS = "two equal options, one of them the answer"
#: What cannot be asked at all: left out even where the published records are kept as they are.
_ALWAYS_OUT = (EMPTY_PASSAGE, EMPTY_QUESTION)


@dataclass
class Read:
    """Questions of a task. `left_out`: reason -> places of what was not read; `noted`: of what was read all the same."""

    questions: list[Question]
    left_out: dict[str, list[str]] = field(default_factory=dict)
    noted: dict[str, list[str]] = field(default_factory=dict)

    def told(self) -> str:
        """One line about what was left out and what was noted; empty where there is nothing to tell."""
        out = [f"{len(places)} left out ({reason})" for reason, places in self.left_out.items()]
        return "; ".join(out + [f"{len(places)} kept with {reason}" for reason, places in self.noted.items()])


def read_questions(task: TaskSpec, files: Sequence[Path]) -> list[Question]:
    """The questions of `read_task`."""
    return read_task(task, files).questions


def read_task(task: TaskSpec, files: Sequence[Path]) -> Read:
    """All questions of `files` that `task.where` keeps, in file order, and a count of those left out.

    Files: .json, .jsonl, .txt, .csv, also .gz and .zst; .parquet. Rules, the same for every reader: a cluster that the
    file does not give is the passage (hash of the context), or the question itself where there is none. C3: the answer is
    `label` where present, else the position of the answer's text (of two equal options the first, as C3's own labels
    do). LogiQA 2.0 repeats a few ids for different questions: the second gets `-2`. Questions with several right
    answers, or whose answer is not published, are left out and counted.

    `task.defects` says what happens to an empty option, an empty question, a missing passage (where the task needs
    one) and two equal options: `refuse` raises BadInput; `drop` leaves the question out, unless neither of the equal
    options is the answer; `keep` scores published records as they are, their label deciding, and leaves out only
    what has no question or no passage. What is kept is in `noted`.

    Raises BadInput, naming file and line: a repeated id, a label outside of the options, an answer that is no option,
    fewer than 2 or more than 10 options, a record of another schema.
    """
    if not files:
        raise BadInput(f"Task {task.name} has no files; set its `files` to the published files ({task.source}).")
    read = Read([])
    seen: dict[str, int] = {}
    for path in files:
        for place, record in _records(path, task.reader):
            if any(str(record.get(name)) != value for name, value in task.where.items() if name in record):
                continue
            missing = [f for f in task.where if f not in record and "_nested" not in record]
            if missing:
                raise BadInput(
                    f"{place.where}: the field {missing[0]!r}, by which task {task.name} selects, is missing."
                )
            for found in read_record(task, record, place):
                if isinstance(found, str):
                    read.left_out.setdefault(found, []).append(place.where)
                    continue
                seen[found.id] = seen.get(found.id, 0) + 1
                if seen[found.id] > 1:
                    if task.reader != "logiqa2":
                        raise BadInput(f"{place.where}: the id {found.id!r} occurs twice; ids must be unique.")
                    # The published files use some ids for two different questions.
                    found = replace(found, id=f"{found.id}-{seen[found.id]}")
                if _fit(task, found, place.where, read):
                    read.questions.append(found)
    if not read.questions:
        why = f"; {read.told()}" if read.left_out else ""
        raise BadInput(f"{files[0]}: no question of task {task.name} (where: {task.where}) was found{why}.")
    return read


def _fit(task: TaskSpec, question: Question, where: str, read: Read) -> bool:
    """Whether a question is scored; what is wrong with it goes into `read`. Raises BadInput under `refuse`."""
    wrong = _defects(task, question)
    if wrong and task.defects == "refuse":
        raise BadInput(f"{where}: question {question.id!r} has {wrong[0]}; correct or remove the record.")
    for reason in wrong:
        out = reason in _ALWAYS_OUT or (task.defects == "drop" and reason != EQUAL_OPTIONS)
        if out:
            read.left_out.setdefault(reason, []).append(where)
            return False
    for reason in wrong:
        read.noted.setdefault(reason, []).append(where)
    return True


def _defects(task: TaskSpec, question: Question) -> list[str]:
    options = [o.strip() for o in question.options]
    wrong = []
    if not question.question.strip():
        wrong.append(EMPTY_QUESTION)
    if task.passage and not question.context.strip():
        wrong.append(EMPTY_PASSAGE)
    if not all(options):
        wrong.append(EMPTY_OPTION)
    if len(set(options)) < len(options):
        wrong.append(AMBIGUOUS if options.count(options[question.answer]) > 1 else EQUAL_OPTIONS)
    return wrong


def _records(path: Path, reader: str) -> Iterator[tuple[Place, Record]]:
    for number, (where, value) in enumerate(read_values(path), 1):
        place = Place(where, path, number)
        if reader == "c3" and isinstance(value, list):
            for record in unnest_c3(value, path, where):
                yield place, record
        elif isinstance(value, dict):
            yield place, value
        else:
            raise BadInput(f"{where}: expected an object, found {type(value).__name__}.")


def task_texts(questions: Sequence[Question]) -> list[tuple[str, str]]:
    """(id, text) of each question, for decontamination: context, question and options, one below the other."""
    return [(q.id, "\n".join(x for x in (q.context, q.question, *q.options) if x)) for q in questions]


def sample_questions(questions: Sequence[Question], n: int | None) -> list[Question]:
    """A fixed random sample of `n` questions (those with the smallest hash of their id), in file order; None: all."""
    if n is None or n >= len(questions):
        return list(questions)
    by_hash = sorted(range(len(questions)), key=lambda i: hashlib.sha256(questions[i].id.encode()).digest())
    return [questions[i] for i in sorted(by_hash[:n])]
