"""`panda harness`: both ways with lm-evaluation-harness."""

from pathlib import Path
from typing import Annotated

import typer

from pandallm.cli.app import AsJson, app, show_facts

harness_app = typer.Typer(
    help="Both ways with lm-evaluation-harness: tasks and results in its formats, its tasks on our scorer.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(harness_app, name="harness")


@harness_app.command("task")
def harness_task(
    task: Annotated[str, typer.Argument(help="A built-in task (c3-m, logiqa2-zh, ..) or a task's YAML file")],
    data: Annotated[str, typer.Option(help="File of the task's questions")],
    out: Annotated[Path, typer.Option(help="Folder for the YAML and the questions; give it to --include_path")],
    prompt: Annotated[str, typer.Option(help="Prompt names, comma-separated, or all")] = "all",
    examples: Annotated[
        str | None, typer.Option(help="File of other questions, for --num_fewshot", show_default=False)
    ] = None,
    json_: AsJson = False,
) -> None:
    """Write a task as lm-evaluation-harness's YAML, one per prompt, that scores exactly our prompt.

    Example: panda harness task c3-m --data c3-m-dev.json --prompt letter --out harness, then
    lm_eval --include_path harness --tasks c3-m_letter --model hf --model_args pretrained=FOLDER
    """
    from pandallm.data.files import resolve_files
    from pandallm.evaluate.exchange.tasks import export_task
    from pandallm.tasks.load import load_task
    from pandallm.tasks.read import read_questions

    spec = load_task(task)
    questions = read_questions(spec, resolve_files(str(Path(data).absolute()), "--data"))
    shots = read_questions(spec, resolve_files(str(Path(examples).absolute()), "--examples")) if examples else []
    names = list(spec.prompts) if prompt == "all" else [p.strip() for p in prompt.split(",")]
    written = [export_task(spec, name, questions, out, shots) for name in names]
    facts = {
        "questions": len(questions),
        "left_out_for_an_empty_option": max((len(w.left_out) for w in written), default=0),
        "tasks": [w.path.stem for w in written],
        "files": [str(w.path) for w in written],
    }
    show_facts(facts, json_, f"Wrote {', '.join(str(w.path) for w in written)}")


@harness_app.command("results")
def harness_results(
    folder: Annotated[Path, typer.Argument(help="Folder of `panda eval --out`, or a run folder")],
    out: Annotated[Path, typer.Option(help="Folder for the results and samples files")],
    json_: AsJson = False,
) -> None:
    """Write an evaluation as lm-evaluation-harness's results and samples files.

    Example: panda harness results scores --out harness-results
    """
    from pandallm.evaluate.exchange.results import export_results

    written = [str(path) for path in export_results(folder, out)]
    show_facts({"files": written}, json_, "Wrote " + ", ".join(written))


@harness_app.command(
    "run", context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def harness_run(context: typer.Context) -> None:
    """Run lm_eval (extra lm-eval) with our scorer as the model; every argument is its own.

    Example: panda harness run --model_args pretrained=FOLDER --tasks mmlu --num_fewshot 5
    """
    if context.args in ([], ["--help"]):
        print(context.get_help())
        print(
            "\nArguments of lm_eval: see `lm_eval run --help`. Ours, within --model_args: pretrained, tokenizer, dtype,\n"
            "batch_tokens, max_length, max_gen_toks, add_bos_token."
        )
        return
    needs_harness()
    from pandallm.evaluate.exchange.model import run_harness

    run_harness(context.args)


@harness_app.command("register")
def harness_register(
    remove: Annotated[bool, typer.Option("--remove", help="Undo it.")] = False,
    folder: Annotated[
        Path | None, typer.Option(help="Site-packages of another environment", show_default=False)
    ] = None,
) -> None:
    """Let `lm_eval --model pandallm` itself find our model, by one line in this environment's site-packages.

    Example: panda harness register
    """
    from pandallm.errors import BadInput
    from pandallm.evaluate.exchange.hook import remove_hook, write_hook

    if folder is not None and not folder.is_dir():
        raise BadInput(f"{folder} is not a folder; give the site-packages of the environment that holds lm_eval.")
    if remove:
        print(f"Removed {remove_hook(folder)}")
        return
    print(f"Wrote {write_hook(folder)}; `lm_eval --model pandallm --model_args pretrained=FOLDER ...` works now.")


def needs_harness() -> None:
    """Raise BadInput, saying what to install, where lm_eval is not there."""
    import importlib.util

    from pandallm.errors import BadInput

    if importlib.util.find_spec("lm_eval") is None:
        raise BadInput("lm_eval is not installed: `pip install 'pandallm[lm-eval]'`.")
