"""What `panda data contamination` prints."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from pandallm.pipeline.show_data import Column, print_columns, say, share, short

Json = Mapping[str, Any]


def print_contamination(
    reports: Mapping[str, Json], exclude: Mapping[str, Sequence[str]], n: int, console: Console | None = None
) -> None:
    """A line a corpus and task, the strongest `n` questions of each, and how many questions to leave out in all."""
    console = console or Console()
    cells = [(corpus, report, task, e) for corpus, report in reports.items() for task, e in report["tasks"].items()]
    print_columns(
        console,
        [
            Column("corpus", [short(c) for c, *_ in cells], left=True),
            Column("task", [short(task) for *_, task, _ in cells], left=True),
            Column("questions", [f"{e['questions']:,}" for *_, e in cells]),
            Column("touched", [f"{e['touched']:,}" for *_, e in cells]),
            Column("%", [share(e["touched"], e["questions"]) for *_, e in cells]),
            Column("documents", [f"{e['documents']:,}" for *_, e in cells]),
            Column("exclude", [f"{len(e['exclude']):,}" for *_, e in cells]),
        ],
    )
    grams = sorted({r["ngram_chars"] for r in reports.values()})
    say(
        console,
        f"touched: a document shares {' or '.join(map(str, grams))} characters in a row with the question. "
        "exclude: touched by a document that is kept and may be trained on.",
        "dim",
    )
    for corpus, _, task, entry in cells if n else ():
        strongest = entry["by_question"][:n]
        if not strongest:
            continue
        console.print()
        say(console, f"{corpus}, {task}: the questions that documents hold most of", "italic")
        best = [q["documents"][0] for q in strongest]
        shared = [f"{100 * q['share']:.1f} %" for q in strongest]
        print_columns(
            console,
            [
                Column("question", [short(str(q["question"])) for q in strongest], left=True),
                Column("of it", shared),
                Column("documents", [f"{q['documents_total']:,}" for q in strongest]),
                Column("the strongest", [f"{short(d['source'])} {d['id']}" for d in best], left=True),
                Column("fate", [d["fate"].replace("_", " ") for d in best], left=True),
            ],
        )
    console.print()
    told = [f"{task} {len(ids):,}" for task, ids in exclude.items() if ids]
    say(
        console,
        f"To leave out for clean scores: {', '.join(told)}."
        if told
        else "Nothing to leave out: no kept document touches a question.",
        "bold",
    )


def print_clean_scores(scores: Json, console: Console | None = None) -> None:
    """Accuracy on all questions beside that on the clean ones."""
    console = console or Console()
    rows = scores["table"]
    if not rows:
        return
    console.print()
    say(
        console,
        f"Accuracy, per cent ({scores['confidence']:.0%} intervals, clustered): all questions, and the clean ones",
    )
    models, tasks = {r["model"] for r in rows}, {r["task"] for r in rows}

    def how(r: Json) -> str:
        told = f"{r['prompt']}{' gen' if r['method'] == 'generation' else ''}"
        return told + (f" {r['shots']}-shot" if r["shots"] else "") + (" chat" if r["chat"] else "")

    def accuracy(e: Json | None) -> str:
        return "none left" if e is None else f"{100 * e['accuracy']:.1f}"

    def interval(e: Json | None) -> str:
        return "" if e is None or e["low"] is None else f"{100 * e['low']:.1f} - {100 * e['high']:.1f}"

    print_columns(
        console,
        [
            *([Column("model", [short(r["model"]) for r in rows], left=True)] if len(models) > 1 else []),
            *(
                [Column("task", [short(_task(r)) for r in rows], left=True)]
                if len(tasks) > 1 or rows[0]["group"]
                else []
            ),
            Column("prompt", [short(how(r)) for r in rows], left=True),
            Column("all", [accuracy(r["all"]) for r in rows]),
            Column("interval", [interval(r["all"]) for r in rows]),
            Column("n", [f"{r['all']['n']:,}" for r in rows]),
            Column("clean", [accuracy(r["clean"]) for r in rows]),
            Column("interval", [interval(r["clean"]) for r in rows]),
            Column("n", [f"{r['clean']['n']:,}" if r["clean"] else "0" for r in rows]),
        ],
    )


def _task(row: Json) -> str:
    return f"{row['task']} ({row['group']})" if row["group"] else str(row["task"])
