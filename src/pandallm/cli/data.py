"""`panda data`: corpora, from raw files to packs."""

import json
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pandallm.cli.app import AsJson, Quiet, app, limit_threads, split_arguments
from pandallm.errors import BadInput, PandaError

data_app = typer.Typer(
    help="Corpora: build, look at, add up again, compare with benchmarks.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(data_app, name="data")

Part = Literal["examples", "held_out", "dropped"]
Arguments = Annotated[list[str] | None, typer.Argument(metavar="[RECIPE] [a.b.c=value]...", show_default=False)]
Corpora = Annotated[
    list[str] | None,
    typer.Option("--corpus", metavar="NAME", help="This corpus only; may be repeated", show_default=False),
]


@data_app.command("build")
def data_build(
    arguments: Arguments = None, corpus: Corpora = None, json_: AsJson = False, quiet: Quiet = False
) -> None:
    """Build corpora and packs; tell what became of every record.

    All corpora of the recipe and the packs of its stages. With --corpus: these corpora, without packs. What the store holds is not built again; a killed build goes on.

    Example: panda data build recipes/corpora.yaml --corpus chinese
    """
    from pandallm.recipe.load import load_recipe

    recipe = load_recipe(*split_arguments(arguments))
    limit_threads(recipe.runtime.threads)
    from pandallm.pipeline.data import build_data
    from pandallm.pipeline.show_data import print_build
    from pandallm.terminal import progress

    with progress(quiet) as shown:
        result = build_data(recipe, corpus or (), progress=shown, command=_command("build", arguments))
    if json_:
        print(json.dumps(result, ensure_ascii=False))
    else:
        print_build(result)


@data_app.command("show")
def data_show(
    arguments: Arguments = None,
    corpus: Corpora = None,
    stage: Annotated[
        str | None, typer.Option(metavar="NAME", help="Packed rows of this stage instead", show_default=False)
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="This source only; may be repeated", show_default=False),
    ] = None,
    n: Annotated[
        int | None, typer.Option("--n", min=1, help="How many (3; with --dropped 20 a reason)", show_default=False)
    ] = None,
    held_out: Annotated[bool, typer.Option("--held-out", help="Held-out examples instead")] = False,
    dropped: Annotated[bool, typer.Option("--dropped", help="Dropped and unreadable records, by reason")] = False,
    reason: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="With --dropped: this reason only; may be repeated", show_default=False),
    ] = None,
    ids: Annotated[
        list[str] | None,
        typer.Option("--id", metavar="ID", help="The record of this id; may be repeated", show_default=False),
    ] = None,
    chars: Annotated[int, typer.Option(min=1, help="Characters shown of an example")] = 1000,
    seed: Annotated[int, typer.Option(help="Another seed draws others")] = 0,
) -> None:
    """Print examples, packed rows, or what was dropped and why.

    What is trained is green, or in brackets where there is no colour.

    Example: panda data show recipes/corpora.yaml --corpus chinese --source wiki

    Example: panda data show recipes/corpora.yaml --corpus chinese --dropped --reason duplicate
    """
    from pandallm.recipe.load import load_recipe

    if stage and (corpus or dropped or reason or held_out):
        raise BadInput("--stage shows packed rows; leave --corpus, --held-out, --dropped and --reason out.")
    if held_out and (dropped or reason):
        raise BadInput("--held-out and --dropped are different parts; give one of them.")
    recipe = load_recipe(*split_arguments(arguments))
    from pandallm.pipeline.data_show import show_corpora, show_ids, show_stage

    build = _command("build", arguments)
    if ids:
        show_ids(recipe, corpus or (), ids, chars=chars, build=build)
        return
    if stage:
        show_stage(recipe, stage, n=n or 3, seed=seed, sources=source or (), chars=chars, build=build)
        return
    what: Part = "dropped" if dropped or reason else "held_out" if held_out else "examples"
    show_corpora(
        recipe,
        corpus or (),
        what,
        n=n or (20 if what == "dropped" else 3),
        seed=seed,
        sources=source or (),
        reasons=reason or (),
        chars=chars,
        build=build,
    )


@data_app.command("audit")
def data_audit(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[RECIPE [a.b.c=value]... | FOLDER]", show_default=False)
    ] = None,
    corpus: Corpora = None,
    json_: AsJson = False,
) -> None:
    """Add every ledger up again from the files.

    Of all corpora and packs of a recipe, or of one folder that holds one. Ends with exit code 1 where one does not add up, and names the difference.

    Example: panda data audit recipes/corpora.yaml
    """
    from pandallm.pipeline.data import audit_folder, audit_recipe
    from pandallm.pipeline.show_data import print_audit
    from pandallm.recipe.load import load_recipe

    name, overrides = split_arguments(arguments)
    if name and Path(name).is_dir():
        if overrides or corpus:
            raise BadInput(f"{name} is a folder; overrides and --corpus belong to a recipe.")
        rows = [audit_folder(Path(name))]
    else:
        rows = audit_recipe(load_recipe(name, overrides), corpus or (), build=_command("build", arguments))
    if json_:
        print(json.dumps(rows, ensure_ascii=False))
    else:
        print_audit(rows)
    if wrong := [row["error"] for row in rows if row["error"]]:
        more = f" ({len(wrong) - 1} more ledgers do not add up)" if len(wrong) > 1 else ""
        raise PandaError(wrong[0] + more)


@data_app.command("contamination")
def data_contamination(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[RECIPE [a.b.c=value]... | RUN]", show_default=False)
    ] = None,
    corpus: Corpora = None,
    n: Annotated[int, typer.Option("--n", min=0, help="Questions shown of each task, most shared text first")] = 3,
    list_: Annotated[
        Path | None,
        typer.Option("--list", metavar="FILE", help="Write the questions to leave out: task, tab, id, a line each"),
    ] = None,
    json_: AsJson = False,
) -> None:
    """Which documents touch which questions of benchmarks.

    Of the corpora of a recipe that name benchmarks under `decontaminate`. Of a run folder also the scores on all questions beside those on the clean ones, which no document of the training corpora touches.

    Example: panda data contamination recipes/corpora.yaml --list exclude.tsv

    Example: panda data contamination runs/tiny-zh-seed42
    """
    from pandallm.pipeline.data import clean_scores, contamination_of_recipe, contamination_of_run, excluded
    from pandallm.pipeline.show_contamination import print_clean_scores, print_contamination
    from pandallm.recipe.load import load_recipe
    from pandallm.store import write_text

    name, overrides = split_arguments(arguments)
    scores: dict[str, Any] = {"confidence": None, "table": []}
    if name and Path(name).is_dir():
        if overrides or corpus:
            raise BadInput(f"{name} is a run folder; overrides and --corpus belong to a recipe.")
        reports = contamination_of_run(Path(name))
        exclude = excluded(reports)
        scores = clean_scores(Path(name), exclude)
    else:
        recipe = load_recipe(name, overrides)
        reports = contamination_of_recipe(recipe, corpus or (), build=_command("build", arguments))
        exclude = excluded(reports)
    if list_:
        write_text(list_, "".join(f"{task}\t{question}\n" for task, ids in exclude.items() for question in ids))
    if json_:
        print(json.dumps({"corpora": reports, "exclude": exclude, "scores": scores}, ensure_ascii=False))
        return
    print_contamination(reports, exclude, n)
    print_clean_scores(scores)
    if list_:
        print(f"Wrote {list_}: {sum(map(len, exclude.values())):,} questions.")


def _command(verb: str, arguments: list[str] | None) -> str:
    return shlex.join(["panda", "data", verb, *(arguments or [])])
