"""The app that the verbs register with, and what they share. Heavy imports happen inside the verbs."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from pandallm.errors import BadInput

app = typer.Typer(
    help="From raw text to a scored, released model. With no recipe, `panda run` runs the built-in microworld.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Overrides = Annotated[list[str] | None, typer.Argument(help="a.b.c=value, any field of the recipe", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="End with one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]


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
