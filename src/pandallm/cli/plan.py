"""The verb plan: what a recipe will cost, before it runs."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pandallm.cli.app import AsJson, app, split_arguments


@app.command()
def plan(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[RECIPE] [a.b.c=value]...", show_default=False)
    ] = None,
    on: Annotated[
        str | None, typer.Option(help="devices, as 16xA100-80G; this machine where it can hold the training")
    ] = None,
    devices: Annotated[
        Path | None, typer.Option(help="YAML of further devices: NAME: {bf16_tflops: .., ...}", show_default=False)
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="First train 20 steps of each stage here, and remember.")
    ] = False,
    sample_mb: Annotated[
        float, typer.Option(min=0.1, help="megabytes of files read to count tokens; a smaller corpus is counted whole")
    ] = 4.0,
    json_: AsJson = False,
) -> None:
    """What a recipe will cost: steps, tokens, memory, hours, price, what is cached; warnings about its schedule.

    Example: panda plan recipes/panda-7b.yaml --on 16xA100-80G
    """
    from pandallm.pipeline.plan.recipe import plan_recipe
    from pandallm.pipeline.plan.show import plan_lines
    from pandallm.recipe.load import load_recipe

    recipe = load_recipe(*split_arguments(arguments))
    result = plan_recipe(recipe, on=on, device_file=devices, probe=probe, sample_bytes=1e6 * sample_mb)
    print(json.dumps(result, ensure_ascii=False) if json_ else "\n".join(plan_lines(result)))
