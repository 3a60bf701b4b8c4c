"""The questions on which models disagree, as data for the page's search."""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
#: One way of asking (the fields of `Condition`), and for each model id -> row, in the order of the models.
Asked = tuple[Mapping[str, Any], Sequence[Mapping[str, Row]]]
Questions = Mapping[tuple[str, str], Mapping[str, Any]]

#: More than this many and the page shows an even sample: a browser should still open it at once.
MAX_QUESTIONS = 20_000


def disagreements(
    models: Sequence[str], asked: Sequence[Asked], questions: Questions, with_text: bool, limit: int = MAX_QUESTIONS
) -> dict[str, Any]:
    """What the page searches: every question to which two models gave different choices under the same prompt.

    {"models", "tasks", "views": [{"prompt", "method", "shots", "chat"}], "passages": [text], "total", "scored", "questions": [{"t": task, "i": id,
    "k": cluster, "n": options, "a": answer, "g": group, "x": passage, "q": text, "o": options, "r": [[view, [[choice, scores or 0,
    completion or 0] per model]]]}]}. Without `with_text` there is no passage, question, option or completion. Passages, tasks and views are stored
    once and named by position. More than `limit` questions are thinned evenly in file order; `total` counts all.
    """
    views = [{k: c[k] for k in ("prompt", "method", "shots", "chat")} for c, _ in asked]
    views = [v for i, v in enumerate(views) if v not in views[:i]]
    found: dict[tuple[str, str], list[tuple[int, list[Row]]]] = {}
    for condition, rows in asked:
        view = views.index({k: condition[k] for k in views[0]})
        for identity in rows[0]:
            found.setdefault((str(condition["task"]), identity), []).append((view, [r[identity] for r in rows]))
    keys = [k for k, answers in found.items() if any(len({r["choice"] for r in rows}) > 1 for _, rows in answers)]
    total = len(keys)
    if total > limit:
        keys = [keys[i * total // limit] for i in range(limit)]
    tasks = list(dict.fromkeys(task for task, _ in found))
    passages: dict[str, int] = {}
    items = []
    for key in keys:
        first = found[key][0][1][0]
        item: dict[str, Any] = {"t": tasks.index(key[0]), "i": key[1], "k": str(first["cluster"])}
        item |= {"n": first["options"], "a": first["answer"]}
        if first.get("group"):
            item["g"] = str(first["group"])
        question = questions.get(key, {}) if with_text else {}
        if question:
            item["q"] = str(question.get("question") or "")
            item["o"] = [str(option) for option in question.get("options") or []]
            if question.get("context"):
                item["x"] = passages.setdefault(str(question["context"]), len(passages))
        item["r"] = [[view, [_answer(r, with_text) for r in rows]] for view, rows in found[key]]
        items.append(item)
    return {
        "models": list(models),
        "tasks": tasks,
        "views": views,
        "passages": list(passages),
        "total": total,
        "scored": len(found),
        "questions": items,
    }


def _answer(row: Row, with_text: bool) -> list[Any]:
    """[choice, scores or 0, completion or 0]; trailing zeros left out, for they are most of the file."""
    scores = row.get("scores")
    answer: list[Any] = [row["choice"], [None if s is None else round(float(s), 2) for s in scores] if scores else 0]
    answer.append(str(row["completion"]) if with_text and row.get("completion") is not None else 0)
    while len(answer) > 1 and answer[-1] == 0:
        answer.pop()
    return answer
