"""Hand-written folders as `panda eval --out` writes them, for the tests of comparisons."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pandallm.store import write_json, write_jsonl, write_text

TASK = {
    "name": "shop-zh",
    "version": 1,
    "title": "Questions about a shop",
    "reader": "mcq",
    "prompts": {
        "text": {"template": "{context}\n问题：{question}\n答案："},
        "letter": {"template": "{context}\n问题：{question}\n{options}\n答案：", "answer": "letter", "generate": True},
    },
}


def question(i: int, task: str = "shop-zh", per_passage: int = 2, extra: str = "") -> dict[str, Any]:
    """Question `i`; its answer is option i mod 4."""
    passage = i // per_passage
    return {
        "id": f"q{i}",
        "task": task,
        "cluster": f"passage-{passage}",
        "group": "dev",
        "context": f"第{passage}天，小店卖出了{passage + 3}个苹果。{extra}",
        "question": f"第{i}问：小店卖出了几个苹果？{extra}",
        "options": [f"{passage + k}个{extra}" for k in range(4)],
        "answer": i % 4,
    }


def rows_of(
    model: str,
    questions: Sequence[dict[str, Any]],
    right: Callable[[int, str], bool],
    prompts: Sequence[str] = ("text", "letter"),
    method: str = "likelihood",
    completion: str | None = None,
) -> list[dict[str, Any]]:
    """Rows of a model that answers question number i under a prompt right where `right(i, prompt)`, else one option further."""
    rows = []
    for prompt in prompts:
        for i, q in enumerate(questions):
            n = len(q["options"])
            choice = q["answer"] if right(i, prompt) else (q["answer"] + 1) % n
            rows.append(
                {
                    "model": model,
                    "task": q["task"],
                    "prompt": prompt,
                    "method": method,
                    "id": q["id"],
                    "cluster": q["cluster"],
                    "group": q["group"],
                    "options": n,
                    "answer": q["answer"],
                    "choice": choice,
                    "correct": choice == q["answer"],
                    "scores": [-1.25 if k == choice else -3.5 - k / 8 for k in range(n)]
                    if method == "likelihood"
                    else None,
                    "completion": completion,
                }
            )
    return rows


def write_folder(
    folder: Path,
    rows: Sequence[dict[str, Any]],
    questions: Sequence[dict[str, Any]],
    tasks: Sequence[dict[str, Any]] = (TASK,),
    settings: str = "limit: {likelihood: null, generation: null}\n",
) -> Path:
    """What a comparison reads of a folder of `panda eval --out`."""
    write_jsonl(folder / "rows.jsonl", rows)
    write_jsonl(folder / "questions.jsonl", questions)
    write_json(folder / "tasks.json", list(tasks))
    write_text(folder / "evaluate.yaml", settings)
    return folder


def write_models(
    root: Path,
    n: int = 40,
    names: Sequence[str] = ("base", "tuned", "other"),
    extra: str = "",
    completion: str | None = None,
) -> list[Path]:
    """One folder per model: `base` is right on every second question, `tuned` on all but each tenth, `other` as `base` but for one."""
    questions = [question(i, extra=extra) for i in range(n)]
    answers: dict[str, Callable[[int, str], bool]] = {
        "base": lambda i, _: i % 2 == 0,
        "tuned": lambda i, _: i % 10 != 9,
        "other": lambda i, prompt: (i % 2 == 0) != (i == 4 and prompt == "text"),
    }
    folders = []
    for name in names:
        rows = rows_of(name, questions, answers[name])
        if completion is not None:
            rows += rows_of(name, questions, answers[name], ("letter",), "generation", completion)
        folders.append(write_folder(root / f"eval-{name}", rows, questions))
    return folders
