"""One reader per published schema: a record -> its questions, or the reason why one is left out."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput
from pandallm.tasks.options import own_letters, split_group, split_options
from pandallm.tasks.records import Record
from pandallm.tasks.spec import FieldsSpec, TaskSpec
from pandallm.tasks.types import LETTERS, Question

SEVERAL_ANSWERS = "several right answers"
NO_ANSWER = "no published answer"
NO_OPTIONS = "options not in the text"
SEVERAL_QUESTIONS = "several questions in one text, not told apart"


@dataclass(frozen=True)
class Place:
    """Where a record stands: `where` for messages, the file and the record's number in it (from 1)."""

    where: str
    path: Path
    number: int

    @property
    def stem(self) -> str:
        return self.path.name.split(".")[0]


Found = list[Question | str]


def read_record(task: TaskSpec, record: Record, place: Place) -> Found:
    """Questions of one record; a text instead of a question is the reason why it is left out.

    Raises BadInput (file, line, field) for a record that is not of the task's schema or contradicts itself.
    """
    return _READERS[task.reader](task, record, place)


def _c3(task: TaskSpec, record: Record, place: Place) -> Found:
    where = place.where
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
    return [_question(task, record, where, "\n".join(turns), record.get("id"), options, label)]


def unnest_c3(value: list[Any], path: Path, where: str) -> list[Record]:
    """C3 as published: [[turns], [{question, choice, answer}], id]; d or m only in the file's name (c3-m-dev.json)."""
    if len(value) != 3 or not isinstance(value[0], list) or not isinstance(value[1], list):
        raise BadInput(f"{where}: expected [[turns], [{{question, choice, answer}}, ..], id] as C3 is published.")
    kind = re.search(r"(?:^|[^a-z])([dm])(?:[^a-z]|$)", path.name.lower().removesuffix(".json"))
    prefix = f"{kind[1]}-" if kind else ""
    records = []
    for number, question in enumerate(value[1]):
        if not isinstance(question, dict):
            raise BadInput(f"{where}: question {number + 1} is not an object.")
        records.append(
            {
                **question,
                **({"type": kind[1]} if kind else {}),
                "_nested": True,
                "context": value[0],
                "id": f"{prefix}{value[2]}-{number}",
            }
        )
    return records


def _logiqa2(task: TaskSpec, record: Record, place: Place) -> Found:
    options = _options(record, "options", place.where)
    answer = _index(_get(record, "answer", object, place.where), options, place.where, "answer")
    identity = record.get("id", record.get("example_id"))
    text = _get(record, "text", str, place.where)
    return [_question(task, record, place.where, text, identity, options, answer)]


def _mcq(task: TaskSpec, record: Record, place: Place) -> Found:
    where = place.where
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
    return [_question(task, record, where, _context(record.get("context")), record.get("id"), options, index)]


def _mapped(task: TaskSpec, record: Record, place: Place) -> Found:
    fields = task.fields
    assert fields is not None
    where = place.where

    def value(field: str) -> Any:
        name = getattr(fields, field)
        return _path(record, name, where, field) if name else None

    options = _mapped_options(record, fields, where)
    question = value("question")
    if not isinstance(question, str):
        raise BadInput(f"{where}: fields.question ({fields.question!r}) must be a text, found {question!r:.60}.")
    identity = value("id")
    flat: Record = {"question": question, "cluster": value("cluster"), "group": value("group")}
    if identity is None:
        identity = f"{place.stem}-{place.number}"
    answer = _mapped_answer(value("answer"), options, fields.answer_is, where)
    return [_question(task, flat, where, _context(value("context")), identity, options, answer)]


def _mapped_options(record: Record, fields: FieldsSpec, where: str) -> list[str]:
    if isinstance(fields.options, str):
        found = _path(record, fields.options, where, "options")
        if isinstance(found, str) and found.lstrip().startswith("["):
            try:
                found = json.loads(found)
            except json.JSONDecodeError as e:
                raise BadInput(f"{where}: fields.options ({fields.options!r}) is no JSON list ({e.msg}).") from None
        if not isinstance(found, list):
            raise BadInput(f"{where}: fields.options ({fields.options!r}) must be a list, found {found!r:.60}.")
    else:
        found = [_path(record, name, where, "options") for name in fields.options]
        while found and found[-1] in (None, ""):  # files of columns leave the last ones empty
            found.pop()
    if any(isinstance(o, bool) or not isinstance(o, str | int | float) for o in found):
        raise BadInput(f"{where}: every option must be a text or a number, found {found!r:.80}.")
    return _count([str(o) for o in found], "options", where)


def _mapped_answer(value: Any, options: list[str], how: str, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadInput(f"{where}: the answer must be a letter, an index or an option's text, found {value!r:.60}.")
    text = str(value).strip()
    folded = unicodedata.normalize("NFKC", text).strip("()").upper()
    number = int(folded) if folded.isascii() and folded.isdigit() else -1
    same = [i for i, o in enumerate(options) if o.strip() == text]
    readings = {
        "text": same[0] if len(same) == 1 else -1,
        "letter": LETTERS.find(folded) if len(folded) == 1 and folded.isalpha() else -1,
        "index": number,
        "number": number - 1,
    }
    allowed = ("text", "letter", "index") if how == "auto" else (how,)
    found = {readings[name] for name in allowed if 0 <= readings[name] < len(options)}
    if len(found) == 1:
        return found.pop()
    if found:
        raise BadInput(
            f"{where}: the answer {value!r} can be read in two ways; set fields.answer_is to letter, index or text."
        )
    what = "a letter, an index from 0 or the text of one" if how == "auto" else f"the {how} of one"
    raise BadInput(f"{where}: the answer {value!r} is none of the {len(options)} options (expected {what}).")


def _ceval(task: TaskSpec, record: Record, place: Place) -> Found:
    # As CSV the subject is in the file's name, as Parquet (one folder per subject) in the folder's.
    subject = place.path.parent.name if ".parquet" in place.path.name else re.sub(r"_(val|dev|test)$", "", place.stem)
    return _columns(task, record, place, subject, "id", "question", "answer")


def _cmmlu(task: TaskSpec, record: Record, place: Place) -> Found:
    return _columns(task, record, place, place.stem, "", "Question", "Answer")


def _columns(task: TaskSpec, record: Record, place: Place, subject: str, key: str, question: str, answer: str) -> Found:
    """Exam questions with a column per option."""
    options = [_get(record, letter, str, place.where) for letter in "ABCD"]
    text = _get(record, question, str, place.where)
    letter = str(record.get(answer) or "").strip()
    if not letter:
        return [NO_ANSWER]
    if letter not in tuple("ABCD"):
        raise BadInput(f"{place.where}: {answer} is {letter!r}, but must be A, B, C or D.")
    identity = record.get(key)
    identity = f"{subject}-{place.number - 1 if identity in (None, '') else identity}"
    return [_exam(task, place.where, subject, identity, "", text, options, letter)]


def _gaokao(task: TaskSpec, record: Record, place: Place) -> Found:
    where = place.where
    text, answers = _get(record, "question", str, where), _get(record, "answer", list, where)
    if not all(isinstance(a, str) for a in answers):
        raise BadInput(f"{where}: `answer` must be a list of letters, found {answers!r:.60}.")
    subject = re.sub(r"^\d{4}-\d{4}_|_MCQs$", "", place.stem)
    identity = f"{subject}-{record.get('index', place.number - 1)}"
    if not answers:
        return [NO_ANSWER]
    passage, texts = "", [text]
    if len(answers) > 1:
        group = split_group(text, len(answers))
        if group is None:
            return [SEVERAL_QUESTIONS]
        passage, texts = group
    found: Found = []
    for n, (one, letters) in enumerate(zip(texts, answers)):
        parts = split_options(one)
        if len(letters) != 1:
            found.append(SEVERAL_ANSWERS if letters else NO_ANSWER)
        elif parts is None:
            found.append(NO_OPTIONS)
        else:
            name = f"{identity}-{n}" if len(texts) > 1 else identity
            found.append(_exam(task, where, subject, name, passage, *parts, letters))
    return found


def _agieval(task: TaskSpec, record: Record, place: Place) -> Found:
    where = place.where
    letters = _get(record, "label", object, where)
    if isinstance(letters, str):
        letters = re.findall(r"[A-Z]", letters)
    if letters is not None and not (isinstance(letters, list) and all(isinstance(x, str) for x in letters)):
        raise BadInput(f"{where}: `label` must be a letter or a list of letters, found {letters!r:.60}.")
    if not letters:
        return [NO_ANSWER]
    if len(letters) > 1:
        return [SEVERAL_ANSWERS]
    labelled = own_letters(_options(record, "options", where))
    if sorted(x for x, _ in labelled) == list(LETTERS[: len(labelled)]):
        # Two-column prints were read across: "(A)", "(C)", "(B)", "(D)". The label names the printed letter.
        labelled.sort(key=lambda pair: pair[0])
    passage = record.get("passage") or ""
    if not isinstance(passage, str):
        raise BadInput(f"{where}: `passage` must be a text or null.")
    question = _get(record, "question", str, where)
    options = [rest for _, rest in labelled]
    return [_exam(task, where, place.stem, f"{place.stem}-{place.number}", passage, question, options, letters[0])]


def _exam(
    task: TaskSpec,
    where: str,
    subject: str,
    identity: str,
    passage: str,
    question: str,
    options: Sequence[str],
    letter: str,
) -> Question:
    """A question of an exam. Without a passage, a cluster is the question itself: papers repeat questions."""
    options = [o.strip() for o in _count(list(options), "options", where)]
    if letter not in tuple(LETTERS[: len(options)]):
        raise BadInput(f"{where}: the answer is {letter!r}, but there are {len(options)} options.")
    cluster = None if passage else _digest("\n".join([question, *sorted(options)]))
    record: Record = {"question": question.strip(), "group": subject, "cluster": cluster}
    return _question(task, record, where, passage.strip(), identity, options, LETTERS.index(letter))


def _path(record: Record, name: str, where: str, field: str) -> Any:
    """The value of a key, or of a path of keys (`choices.text`)."""
    if name in record:
        return record[name]
    value: Any = record
    for key in name.split("."):
        if not isinstance(value, dict) or key not in value:
            raise BadInput(f"{where}: {name!r}, named by fields.{field}, is missing; there are: {', '.join(record)}.")
        value = value[key]
    return value


def _context(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(str(t) for t in value)
    return str(value or "")


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
    return _count(options, field, where)


def _count(options: list[str], field: str, where: str) -> list[str]:
    if not 2 <= len(options) <= len(LETTERS):
        raise BadInput(f"{where}: `{field}` has {len(options)} options; 2 to {len(LETTERS)} are supported.")
    return options


def _index(value: Any, options: list[str], where: str, field: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(options):
        raise BadInput(f"{where}: {field} is {value!r}, but must be 0 to {len(options) - 1}, one of the options.")
    return value


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _question(
    task: TaskSpec, record: Record, where: str, context: str, identity: Any, options: list[str], answer: int
) -> Question:
    if isinstance(identity, bool) or not isinstance(identity, str | int) or identity == "":
        raise BadInput(f"{where}: the record has no id (a text or a number).")
    cluster = record.get("cluster")
    if cluster is None:
        cluster = _digest(context) if context else str(identity)
    return Question(
        id=str(identity),
        task=task.name,
        cluster=str(cluster),
        context=context,
        question=_get(record, "question", str, where),
        options=tuple(options),
        answer=answer,
        group=str(record.get("group") or ""),
    )


_READERS: dict[str, Callable[[TaskSpec, Record, Place], Found]] = {
    "c3": _c3,
    "logiqa2": _logiqa2,
    "mcq": _mcq,
    "mapped": _mapped,
    "ceval": _ceval,
    "cmmlu": _cmmlu,
    "gaokao": _gaokao,
    "agieval": _agieval,
}
