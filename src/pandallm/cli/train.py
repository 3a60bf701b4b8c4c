"""`panda train`: training stages alone, also as ranks under torchrun."""

import json
import os
import shlex
from typing import Annotated

import typer

from pandallm.cli.app import AsJson, Quiet, app, limit_threads, split_arguments
from pandallm.errors import Interrupted


@app.command()
def train(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[RECIPE [STAGE]] [a.b.c=value]...", show_default=False)
    ] = None,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train the stages of a recipe, or one, after `panda data build`. Also under torchrun, on several machines.

    Nothing is built, scored or released: `panda run` does that, and takes what was trained here from the store.

    Example: panda train recipes/tiny-zh.yaml instruct runtime.gpus=4
    """
    from pandallm.recipe.load import load_recipe

    words, stage = list(arguments or []), None
    if len(words) > 1 and "=" not in words[0] and "=" not in words[1]:
        stage = words.pop(1)
    recipe = load_recipe(*split_arguments(words))
    limit_threads(recipe.runtime.threads)
    from pandallm.pipeline.train_stages import model_folder, train_stages
    from pandallm.terminal import progress

    speaks = os.environ.get("RANK", "0") == "0"
    build = shlex.join(["panda", "data", "build", *words])
    try:
        with progress(quiet or not speaks) as shown:
            result = train_stages(recipe, stage, progress=shown, build=build)
    except Interrupted as e:
        if speaks:
            raise
        raise typer.Exit(e.exit_code) from None  # rank 0 says it for all
    if not speaks:
        return
    if json_:
        print(json.dumps(result, ensure_ascii=False))
        return
    for name, told in result["stages"].items():
        how = "taken from the store" if told["reused"] else f"loss {told['facts']['final_loss']:.3f} at the end"
        print(f"{name}: {how}; model in {model_folder(result, name)}")
