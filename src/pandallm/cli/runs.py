"""Verbs about recipes and runs: run, check, schema, report, verify, chat."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from pandallm.cli.app import AsJson, Quiet, app, limit_threads, show_facts, split_arguments
from pandallm.errors import BadInput


@app.command()
def run(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[RECIPE] [a.b.c=value]...", show_default=False)
    ] = None,
    json_: AsJson = False,
    quiet: Quiet = False,
    no_text: Annotated[
        bool, typer.Option("--no-text", help="Leave question and answer texts out of the report.")
    ] = False,
) -> None:
    """Run a recipe: data, training, evaluation, delta, report. Reuses whatever is in the store.

    Example: panda run recipes/tiny-zh.yaml stages.pretrain.tokens=200000
    """
    from pandallm.pipeline.show import print_summary, summary
    from pandallm.recipe.load import load_recipe

    recipe = load_recipe(*split_arguments(arguments))
    limit_threads(recipe.runtime.threads)
    from pandallm.pipeline.run import Run
    from pandallm.report.write import write_report
    from pandallm.terminal import progress

    with progress(quiet) as shown:
        job = Run(recipe, shown, command=shlex.join(["panda", *sys.argv[1:]]))
        job.execute()
        if recipe.evaluate:
            write_report(job.folder, text=not no_text)
    result = summary(job)
    if json_:
        print(json.dumps(result, ensure_ascii=False))
    else:
        print_summary(result)


@app.command()
def check(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[RECIPE]... [a.b.c=value]...", show_default=False)
    ] = None,
    json_: AsJson = False,
) -> None:
    """Check recipes and studies without running them: types, names, duplicate keys. Errors name file, line and field.

    Warns of schedules that the stage's steps do not fit, of files that are not here, of bits per byte without held-out text.
    With --json one line a file.

    Example: panda check recipes/smollm2-zh.yaml
    """
    from pandallm.pipeline.check import check_json, check_text
    from pandallm.recipe.load import find_recipe, load_recipe
    from pandallm.study.check import check_study, is_study, study_text

    overrides = [a for a in arguments or [] if "=" in a and not Path(a).exists()]
    names: list[str | None] = [a for a in arguments or [] if a not in overrides]
    for name in names or [None]:
        if name and is_study(name):
            study = check_study(Path(name), overrides)
            print(json.dumps(study, ensure_ascii=False) if json_ else study_text(study))
            continue
        found = (find_recipe(name), load_recipe(name, overrides))
        print(json.dumps(check_json(*found), ensure_ascii=False) if json_ else check_text(*found))


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors.

    Example: panda schema > recipe.schema.json
    """
    from pandallm.recipe.spec import Recipe

    print(json.dumps(Recipe.model_json_schema(by_alias=True), indent=1))


@app.command()
def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN [RUN]...", help="run folders, such as runs/microworld-seed1; two or more: side by side"
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="HTML page to write: report.html in the run's folder; of several runs runs.html, with runs.json beside it"
        ),
    ] = None,
    no_text: Annotated[
        bool,
        typer.Option(
            "--no-text",
            help="Ids, choices and scores only; no question or answer text. Of several runs: no links to pages that hold it",
        ),
    ] = False,
    json_: AsJson = False,
) -> None:
    """Write report.html of a finished run again, or one page that sets several finished runs side by side.

    Example: panda report runs/microworld-seed1 --no-text --out shareable.html
    """
    from pandallm.report.write import write_report

    if out is not None and out.is_dir():
        raise BadInput(f"--out {out} is a folder; name the page to write, such as {out / 'runs.html'}.")
    if out is not None and out.suffix == ".json":
        raise BadInput(f"--out {out} is where numbers go; name the page to write, such as {out.with_suffix('.html')}.")
    if len(folders) == 1:
        page = write_report(folders[0], out, text=not no_text)
        print(json.dumps({"page": str(page)}, ensure_ascii=False) if json_ else page)
        return
    from pandallm.pipeline.compare_runs import report_runs
    from pandallm.pipeline.show_runs import print_runs

    numbers, page = report_runs(folders, out or Path("runs.html"), with_links=not no_text)
    if json_:
        print(json.dumps(numbers | {"page": str(page)}, ensure_ascii=False))
    else:
        print_runs(numbers, page)


@app.command()
def verify(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="a run folder, a study's, a release, or a folder of panda eval --out or panda compare; runs.json or its page",
        ),
    ],
    base: Annotated[
        str | None, typer.Option(help="of a release that holds a delta: the base's folder or hub id, to apply it")
    ] = None,
    json_: AsJson = False,
) -> None:
    """Rebuild every number of a run, of `panda eval --out`, of `panda compare` or of several runs' report, from the per-question rows
    and compare. Of a release: its sums, pages, scores and delta.

    Example: panda verify runs/microworld-seed1
    """
    from pandallm.pipeline.verify_compare import verify_folder
    from pandallm.pipeline.verify_release import is_release, verify_release
    from pandallm.study.verify import is_study_folder, verify_study

    if is_release(folder):
        from pandallm.release.fetch import locate
        from pandallm.terminal import progress

        with progress() as shown:
            facts = verify_release(folder, locate(base, "Base") if base else None, shown)
        if json_:
            print(json.dumps(facts, ensure_ascii=False))
        else:
            print("\n".join([f"{folder}: all as it should be", *(f"  {line}" for line in facts["checked"])]))
        return
    if base is not None:
        raise BadInput(f"--base is for a release that holds a delta; {folder} is none.")
    if is_study_folder(folder):
        facts = verify_study(folder)
        show_facts(facts, json_, f"{folder}: {facts['numbers']} numbers rebuilt from {facts['runs']} runs, all equal")
        return
    facts = verify_folder(folder)
    show_facts(facts, json_, f"{folder}: {facts['numbers']} numbers rebuilt from {facts['rows']} rows, all equal")


@app.command()
def chat(
    model: Annotated[Path, typer.Argument(help="Hugging Face model folder")],
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 256,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy")] = 0.0,
    device: str = "auto",
) -> None:
    """Talk to a model in the terminal. An empty line or Ctrl-D ends it; /new forgets the dialogue.

    Example: panda chat runs/microworld-seed1/models/instruct
    """
    from pandallm.pipeline.chat import chat_loop

    chat_loop(model, max_new_tokens=max_new_tokens, temperature=temperature, device=device)
