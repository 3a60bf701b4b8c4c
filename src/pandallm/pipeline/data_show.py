"""`panda data show`: find what was built, draw from it, print it."""

from collections.abc import Sequence
from typing import Any, Literal

from rich.console import Console
from rich.text import Text

from pandallm.data.corpus import PARTS
from pandallm.errors import BadInput
from pandallm.pipeline.corpora import pack
from pandallm.pipeline.data import StoredRun, data_recipe
from pandallm.pipeline.data_samples import (
    add_partners,
    check_names,
    rows_of,
    sample_dropped,
    sample_examples,
    sample_quarantine,
    sample_rows,
)
from pandallm.pipeline.show_data import counted, say, visible
from pandallm.pipeline.show_examples import print_dropped, print_examples, print_legend, print_rows, put
from pandallm.recipe.spec import Recipe
from pandallm.spec import nearest


def show_corpora(
    recipe: Recipe,
    corpora: Sequence[str],
    what: Literal["examples", "held_out", "dropped"],
    *,
    n: int,
    seed: int,
    sources: Sequence[str] = (),
    reasons: Sequence[str] = (),
    chars: int = 1000,
    build: str = "panda data build",
    console: Console | None = None,
) -> None:
    """Print `n` examples of each corpus, or `n` dropped records of each reason. `chars`: shown of an example.

    Raises BadInput where a corpus was not built yet, and for a source or reason that none of them has.
    """
    console = console or Console()
    job = StoredRun(data_recipe(recipe, corpora), build=build)
    folders = {name: job.corpus(name).path for name in job.recipe.corpora}
    check_names("source", sources, {s for c in job.recipe.corpora.values() for s in c.sources})
    if sources:  # a source stands in one corpus or in several
        folders = {n: f for n, f in folders.items() if set(sources) & set(job.recipe.corpora[n].sources)}
    if what != "dropped":
        print_legend(console)
    found_reason = False
    for i, (name, folder) in enumerate(folders.items()):
        here = [s for s in sources if s in job.recipe.corpora[name].sources]
        if what != "dropped":
            rows = sample_examples(folder, n, seed, here, what)
            console.print()
            part = "held-out example" if what == "held_out" else "example"
            print_examples(f"Corpus {name}: {counted(len(rows), part)}", rows, chars, console)
            continue
        found = sample_dropped(folder, n, seed, reasons, here)
        _add_questions(job, [row for entry in found.values() for row in entry["rows"]])
        if not reasons or "quarantined" in reasons:
            quarantined = sample_quarantine(folder, n, seed, here)
            found |= {"quarantined": quarantined} if quarantined["records"] else {}
        found_reason |= bool(found)
        if found or not reasons:
            if i:
                console.print()
            print_dropped(f"Corpus {name}", found, console)
    if reasons and not found_reason:
        known = sorted({r for f in folders.values() for r in sample_dropped(f, 0, seed)} | {"quarantined"})
        raise BadInput(f"No record was dropped for '{', '.join(reasons)}'.{nearest(reasons[0], known)}")


def _add_questions(job: StoredRun, rows: Sequence[dict[str, Any]]) -> None:
    """Give contaminated records the question that they touch as "partner", as duplicates have the kept example."""
    for row in rows:
        if row["reason"] != "contaminated":
            continue
        task, _, name = row["detail"].partition(":")
        asked = job.tasks().get(task)
        if question := next((q for q in asked[1] if q.id == name), None) if asked else None:
            text = "\n".join(filter(None, (question.context, question.question, " ".join(question.options))))
            row["partner"] = {"id": name, "source": task, "text": text}


def show_ids(
    recipe: Recipe,
    corpora: Sequence[str],
    ids: Sequence[str],
    *,
    chars: int = 1000,
    build: str = "panda data build",
    console: Console | None = None,
) -> None:
    """Print the examples of these ids: kept, held out or dropped. Raises BadInput for an id that no corpus has."""
    console = console or Console()
    job = StoredRun(data_recipe(recipe, corpora), build=build)
    found: list[tuple[str, str, list[dict[str, Any]]]] = []
    for name in job.recipe.corpora:
        folder = job.corpus(name).path
        for part in PARTS:
            if rows := rows_of(folder, part, ids):
                if part == "dropped":
                    add_partners(folder, rows)
                    _add_questions(job, rows)
                found.append((name, part, rows))
    if missing := set(ids) - {row["id"] for *_, rows in found for row in rows}:
        raise BadInput(f"No corpus of recipe '{recipe.name}' has a record of id '{min(missing)}'.")
    print_legend(console)
    for name, part, rows in found:
        console.print()
        if part != "dropped":
            print_examples(f"Corpus {name}, {'kept' if part == 'examples' else 'held out'}", rows, chars, console)
            continue
        reasons = {
            reason: [r for r in rows if r["reason"] == reason] for reason in dict.fromkeys(r["reason"] for r in rows)
        }
        print_dropped(
            f"Corpus {name}, dropped", {r: {"records": len(v), "rows": v} for r, v in reasons.items()}, console
        )


def show_stage(
    recipe: Recipe,
    stage: str,
    *,
    n: int,
    seed: int,
    sources: Sequence[str] = (),
    chars: int = 1000,
    build: str = "panda data build",
    console: Console | None = None,
) -> None:
    """Print `n` packed rows of a stage. Raises BadInput where there is no such stage or its packs were not built yet."""
    from pandallm.data.packs import Packs
    from pandallm.data.tokenize import load_tokenizer

    console = console or Console()
    job = StoredRun(data_recipe(recipe), build=build)
    plans = job.plans()
    if stage not in plans:
        hint = nearest(stage, sorted(plans)) or " It has none."
        raise BadInput(f"Recipe '{recipe.name}' has no stage '{stage}'.{hint}")
    spec, corpus, _ = plans[stage]
    packs = Packs.open(pack(job, stage, spec, corpus).path)
    tokenizer = load_tokenizer(job.start()[0])
    if chat := packs.facts.get("chat_template"):
        say(console, f"Chat template {chat['name']}; an answer ends with {visible(chat['end_of_turn'])}.")
        text = (packs.folder / "chat_template.jinja").read_text(encoding="utf-8")
        put(console, Text(visible(text), style="dim"), 2)
    print_legend(console)
    console.print()
    print_rows(stage, packs, sample_rows(packs, n, seed, sources), tokenizer, chars, console)
