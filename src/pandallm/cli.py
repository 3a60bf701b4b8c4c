"""The `panda` command: parse, call, print. Heavy imports happen inside the verbs."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import Abort, TyperException

from pandallm import __version__
from pandallm.errors import BadInput, PandaError

app = typer.Typer(
    help="From raw text to a scored, released model. With no recipe, `panda run` runs the built-in microworld.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
delta_app = typer.Typer(help="Weight deltas that come back bit for bit.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(delta_app, name="delta")

Overrides = Annotated[list[str] | None, typer.Argument(help="a.b.c=value, any field of the recipe", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="End with one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]


def version(value: bool) -> None:
    if value:
        print(f"pandallm {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    pass


def split_arguments(arguments: list[str] | None) -> tuple[str | None, list[str]]:
    """`[RECIPE] a.b=c ...`: the recipe may be left out."""
    recipe, overrides = None, []
    for argument in arguments or []:
        if "=" in argument and not Path(argument).exists():
            overrides.append(argument)
        elif recipe is None and not overrides:
            recipe = argument
        else:
            raise BadInput(
                f"'{argument}' is neither the recipe (which comes first) nor an override; write field.field=value."
            )
    return recipe, overrides


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
        list[str] | None, typer.Argument(metavar="[RECIPE] [a.b.c=value]...", show_default=False)
    ] = None,
    json_: AsJson = False,
) -> None:
    """Check a recipe without running it: types, names, duplicate keys. Errors name file, line and field.

    Example: panda check recipes/smollm2-zh.yaml
    """
    from pandallm.recipe.load import find_recipe, load_recipe

    name, overrides = split_arguments(arguments)
    recipe = load_recipe(name, overrides)
    if json_:
        print(
            json.dumps(
                {"ok": True, "recipe": str(find_recipe(name)), "name": recipe.name, "stages": list(recipe.stages)}
            )
        )
    else:
        print(f"{find_recipe(name)}: ok ({recipe.name}: {len(recipe.corpora)} corpora, {len(recipe.stages)} stages)")


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors.

    Example: panda schema > recipe.schema.json
    """
    from pandallm.recipe.spec import Recipe

    print(json.dumps(Recipe.model_json_schema(by_alias=True), indent=1))


@app.command(name="eval")
def evaluate(
    model: Annotated[str, typer.Argument(help="Hugging Face model folder (Llama, Qwen, ...)")],
    tasks: Annotated[
        str, typer.Option(help="Task names, comma-separated: c3-m, c3-d, logiqa2-zh, or a task's YAML file")
    ],
    data: Annotated[
        list[str] | None, typer.Option(help="File of the task's questions; once per task, in order", show_default=False)
    ] = None,
    prompts: Annotated[str, typer.Option(help="Prompt names, comma-separated, or all")] = "all",
    methods: Annotated[str, typer.Option(help="likelihood, generation, or both, comma-separated")] = "likelihood",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Score a fixed random sample of this many questions per task")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for per-question rows and scores (must not exist)")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1)] = None,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Score a model on multiple-choice benchmarks, with clustered intervals.

    Example: panda eval runs/microworld-seed1/models/instruct --tasks c3-m --data c3_dev.jsonl --limit 100
    """
    limit_threads(threads)
    from pandallm.pipeline.evaluate_one import evaluate_folder
    from pandallm.pipeline.show import print_scores
    from pandallm.terminal import progress

    with progress(quiet) as shown:
        scores = evaluate_folder(
            Path(model),
            [t.strip() for t in tasks.split(",") if t.strip()],
            data or [],
            prompts=prompts,
            methods=[m.strip() for m in methods.split(",")],
            limit=limit,
            out=out,
            device=device,
            threads=threads,
            progress=shown,
        )
    if json_:
        print(json.dumps(scores, ensure_ascii=False))
    else:
        print_scores(scores)


@delta_app.command("make")
def delta_make(base: Path, target: Path, out: Path, json_: AsJson = False, quiet: Quiet = False) -> None:
    """Write the delta that turns BASE into TARGET.

    Example: panda delta make base-folder tuned-folder delta-folder
    """
    from pandallm.release.delta import make_delta
    from pandallm.terminal import progress

    with progress(quiet) as shown:
        facts = make_delta(base, target, out, progress=shown)
    show_facts(facts, json_, f"Wrote {out}")


@delta_app.command("apply")
def delta_apply(base: Path, delta: Path, out: Path, json_: AsJson = False, quiet: Quiet = False) -> None:
    """Rebuild the target from BASE and DELTA, verified bit for bit while it is written.

    Example: panda delta apply base-folder delta-folder tuned-folder
    """
    from pandallm.release.delta import apply_delta
    from pandallm.terminal import progress

    with progress(quiet) as shown:
        facts = apply_delta(base, delta, out, progress=shown)
    show_facts(facts, json_, f"Wrote {out}; every hash matches")


@delta_app.command("verify")
def delta_verify(base: Path, delta: Path, target: Path, json_: AsJson = False, quiet: Quiet = False) -> None:
    """Check that BASE + DELTA = TARGET, by sha256 of every tensor and file.

    Example: panda delta verify base-folder delta-folder tuned-folder
    """
    from pandallm.release.delta import verify_delta
    from pandallm.terminal import progress

    with progress(quiet) as shown:
        facts = verify_delta(base, delta, target, progress=shown)
    if not facts["verified"]:
        more = f" ({len(facts['mismatches']) - 1} more differences)" if len(facts["mismatches"]) > 1 else ""
        raise PandaError(f"{target} is not what base and delta give: {facts['mismatches'][0]}{more}")
    show_facts(facts, json_, "Verified: base + delta = target, bit for bit")


@delta_app.command("inspect")
def delta_inspect(delta: Path, json_: AsJson = False) -> None:
    """Print what a delta holds.

    Example: panda delta inspect delta-folder
    """
    from pandallm.release.delta import inspect_delta

    show_facts(inspect_delta(delta), json_, f"{delta}")


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="a run folder, such as runs/microworld-seed1")],
    out: Annotated[Path | None, typer.Option(help="HTML file to write")] = None,
    no_text: Annotated[
        bool, typer.Option("--no-text", help="Ids, choices and scores only; no question or answer text")
    ] = False,
) -> None:
    """Write report.html of a finished run again.

    Example: panda report runs/microworld-seed1 --no-text --out shareable.html
    """
    from pandallm.report.write import write_report

    print(write_report(folder, out, text=not no_text))


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="a run folder, or the folder of panda eval --out")],
    json_: AsJson = False,
) -> None:
    """Rebuild every score of a run, or of `panda eval --out`, from its per-question rows and compare.

    Example: panda verify runs/microworld-seed1
    """
    from pandallm.pipeline.verify import verify_run

    facts = verify_run(folder)
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


def show_facts(facts: Any, as_json: bool, headline: str) -> None:
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
        return
    print(headline)
    for name, value in facts.items():
        if isinstance(value, int | float | str | bool):
            print(f"  {name}: {value:.4g}" if isinstance(value, float) else f"  {name}: {value}")


def limit_threads(threads: int | None) -> None:
    """Before torch is imported: OpenMP reads its setting once."""
    if threads:
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def main(arguments: list[str] | None = None) -> None:
    """Entry point: every expected failure is one sentence on stderr and an exit code."""
    argv = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in argv
    limit_threads(None)
    try:
        code = app([a for a in argv if a != "--debug"], standalone_mode=False, prog_name="panda")
        sys.exit(code if isinstance(code, int) else 0)
    except PandaError as e:
        if debug:
            raise
        fail(str(e), e.exit_code)
    except TyperException as e:
        fail(usage_sentence(e), 2)
    except (Abort, KeyboardInterrupt):
        fail("Stopped. Run the same command again to go on.", 130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as e:
        if debug:
            raise
        fail(f"Unexpected {type(e).__name__}: {e}. Run again with --debug for the traceback, and please report it.", 1)


def usage_sentence(e: TyperException) -> str:
    context = getattr(e, "ctx", None)
    text = e.format_message()
    return f"{text if text.endswith(('.', '?')) else text + '.'} See `{context.command_path if context else 'panda'} --help`."


def fail(sentence: str, code: int) -> None:
    print(f"panda: {sentence}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
