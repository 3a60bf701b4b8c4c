"""`panda diff`: two recipes side by side."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pandallm.cli.app import AsJson, app
from pandallm.errors import BadInput


@app.command()
def diff(
    arguments: Annotated[
        list[str], typer.Argument(metavar="A [B] [a.b.c=value]...", help="recipes (files, or names of shipped ones)")
    ],
    on: Annotated[
        str | None,
        typer.Option(help="devices, as 16xA100-80G: hours of training made anew and shared", show_default=False),
    ] = None,
    json_: AsJson = False,
) -> None:
    """What changes between two recipes: settings, stages made anew, stages that both share. Reads no data.

    Overrides go for B; with one recipe, it is compared with itself under the overrides.

    Example: panda diff recipes/panda-7b.yaml recipes/panda-7b-as-coded.yaml
    """
    from pandallm.pipeline.diff import add_hours, diff_recipes, print_diff
    from pandallm.recipe.load import find_recipe, load_recipe

    overrides = [a for a in arguments if "=" in a and not Path(a).exists()]
    names = [a for a in arguments if a not in overrides]
    if len(names) not in (1, 2) or (len(names) == 1 and not overrides):
        raise BadInput("Give two recipes, or one and overrides such as stages.pretrain.steps=10.")
    a, b = names[0], names[-1]
    other = load_recipe(b, overrides)
    result = diff_recipes(load_recipe(a), other)
    if on:
        add_hours(result, other, on)
    if json_:
        print(json.dumps(result, ensure_ascii=False))
    else:
        print_diff(result, (str(find_recipe(a)), " ".join([str(find_recipe(b)), *overrides])))
