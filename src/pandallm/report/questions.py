"""The questions with each model's answer, as JSON for the page's search."""

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pandallm.report.text import asked_how

Json = dict[str, Any]

#: More than this many and the page holds an even sample: a browser should still open it at once.
MAX_QUESTIONS = 20_000
#: Room for the packed questions, so that a page stays below 3 MB with its charts and tables.
MAX_BYTES = 2_300_000


class Answered(Protocol):
    """Models' answers to questions: a run, or one seed of a study, whose arms stand for models."""

    @property
    def models(self) -> list[str]: ...

    @property
    def rows(self) -> Sequence[Json]: ...

    @property
    def questions(self) -> Mapping[tuple[str, str], Json]: ...


@dataclass(frozen=True)
class PackedQuestions:
    """The questions of a page: JSON, gzipped, in base64; the page's script unpacks it. Empty text where nothing was scored."""

    text: str
    total: int
    shown: int
    without_scores: bool  # the scores of the single options were left out for room


def pack_questions(
    run: Answered, with_text: bool, texts: Json, room: int = MAX_BYTES, *, thin: bool = True
) -> PackedQuestions:
    """`question_data` with the script's fixed `texts`, packed into at most `room` characters.

    Where there is too much, the scores of single options go first, then questions are thinned evenly; without `thin` the text may be
    longer than `room`. The same files give the same text: no time is stored.
    """
    data = question_data(run, with_text)
    if not data:
        return PackedQuestions("", 0, 0, False)
    data["text"] = texts
    packed, without_scores = _pack(data), False
    if len(packed) > room:
        without_scores = _drop_scores(data)
        packed = _pack(data)
    while thin and len(packed) > room and len(data["questions"]) > 1:
        limit = max(1, int(0.95 * len(data["questions"]) * room / len(packed)))
        data = question_data(run, with_text, limit) | {"text": texts}
        _drop_scores(data)
        packed = _pack(data)
    return PackedQuestions(packed, data["total"], len(data["questions"]), without_scores)


def _drop_scores(data: Json) -> bool:
    """Take out the options' scores; whether there were any."""
    scored = [row for q in data["questions"] for row in q["rows"] if "s" in row]
    for row in scored:
        del row["s"]
    return bool(scored)


def unpack(text: str) -> Any:
    """What `pack_questions` packed."""
    return json.loads(gzip.decompress(base64.b64decode(text)))


def _pack(data: Json) -> str:
    return base64.b64encode(gzip.compress(script_json(data).encode(), compresslevel=6, mtime=0)).decode()


def question_data(run: Answered, with_text: bool, limit: int = MAX_QUESTIONS) -> Json:
    """What the page searches; empty when the run scored no question.

    Without text it holds ids, choices and scores only. More than `limit` questions are thinned evenly in file order,
    so that every task keeps its share. Repeated passages, prompts and models are stored once; a row is right where its `c` is the question's answer.
    """
    answers: dict[tuple[str, str], list[Json]] = {}
    for row in run.rows:
        answers.setdefault((str(row["task"]), str(row["id"])), []).append(row)
    keys = list(answers)
    total = len(keys)
    if not total:
        return {}
    if total > limit:
        keys = [keys[i * total // limit] for i in range(limit)]
    models, views, contexts = _Index(run.models), _Index(), _Index()
    questions = []
    for key in keys:
        rows = answers[key]
        first = rows[0]
        question = run.questions.get(key, {}) if with_text else {}
        item: Json = {
            "task": key[0],
            "id": key[1],
            "group": str(first.get("group") or ""),
            "cluster": str(first.get("cluster") or ""),
            "n": first["options"],
            "answer": first["answer"],
            "rows": [
                {
                    "m": models[row["model"]],
                    "v": views[f"{asked_how(row)} · {row['method']}"],
                    "c": row.get("choice"),
                    **({"s": [_short(s) for s in row["scores"]]} if row.get("scores") else {}),
                    **({"t": str(row["completion"])} if with_text and row.get("completion") is not None else {}),
                }
                for row in rows
            ],
        }
        if question:
            item["q"] = str(question.get("question") or "")
            item["o"] = [str(option) for option in question.get("options") or []]
            if question.get("context"):
                item["x"] = contexts[question["context"]]
        questions.append(item)
    return {
        "total": total,
        "models": models.values,
        "views": views.values,
        "tasks": list(dict.fromkeys(key[0] for key in keys)),
        "contexts": contexts.values,
        "questions": questions,
    }


def script_json(value: Any) -> str:
    """JSON that may stand inside a <script> element: no `<`, `>`, `&` or line separator of JavaScript is left as it is."""
    dumped = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        dumped = dumped.replace(character, f"\\u{ord(character):04x}")
    # A lone surrogate is valid in JSON escapes but not in UTF-8.
    return "".join(f"\\u{ord(c):04x}" if "\ud800" <= c <= "\udfff" else c for c in dumped)


def _short(score: Any) -> float | None:
    return None if score is None else round(float(score), 3)


class _Index:
    """Strings stored once, each named by its position."""

    def __init__(self, values: list[str] | None = None) -> None:
        self.values = list(values or [])
        self._position = {value: i for i, value in enumerate(self.values)}

    def __getitem__(self, value: Any) -> int:
        key = str(value)
        if key not in self._position:
            self._position[key] = len(self.values)
            self.values.append(key)
        return self._position[key]
