"""`panda release` and `panda export`: folders for others."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pandallm.cli.app import AsJson, Overrides, Quiet, app, show_facts


@app.command()
def release(
    run: Annotated[str, typer.Argument(metavar="RUN", help="a finished run; with --data also a recipe")],
    overrides: Overrides = None,
    out: Annotated[
        Path | None,
        typer.Option(help="folder to write; if left out RUN/release or RUN/release-data, of a recipe NAME-data"),
    ] = None,
    data: Annotated[bool, typer.Option("--data", help="The cleaned corpora instead of the model.")] = False,
    ship: Annotated[
        str | None, typer.Option(help="weights, delta or auto (as the base's licence allows); instead of the recipe's")
    ] = None,
    author: Annotated[list[str] | None, typer.Option(help="for CITATION.cff; may be given several times")] = None,
    gguf: Annotated[str | None, typer.Option(metavar="TYPE", help="Also a GGUF file: f32, f16, bf16 or q8_0.")] = None,
    push: Annotated[
        str | None, typer.Option(metavar="REPO", help="Upload it to OWNER/NAME, or modelscope:OWNER/NAME.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write a folder ready for the hub: weights or delta, tokenizer, cards, report, sums; verified before it appears.
    With --data the cleaned corpora, without the sources whose licence does not allow it. With --push RUN may be a release too.

    Example: panda release runs/microworld-seed42 --out microworld-release
    """
    from pandallm.errors import BadInput
    from pandallm.pipeline.verify_release import is_release, verify_release
    from pandallm.release.hub import check_repo, push_folder
    from pandallm.terminal import progress

    if data and (ship or gguf):
        raise BadInput(f"--{'ship' if ship else 'gguf'} is about the model; leave it out with --data.")
    folder, of_recipe = Path(run), data and not Path(run).is_dir()
    if overrides and not of_recipe:
        raise BadInput(f"'{overrides[0]}': a finished run takes no overrides; run the recipe with it instead.")
    if push:
        check_repo(push)
    with progress(quiet) as shown:
        if is_release(folder):
            if not push:
                raise BadInput(
                    f"{folder} is a release already; upload it with --push, or check it with `panda verify`."
                )
            facts = verify_release(folder, progress=shown) | {"out": run}
        elif of_recipe:
            from pandallm.pipeline.release_data import release_recipe_data
            from pandallm.recipe.load import load_recipe

            recipe = load_recipe(run, overrides or [])
            facts = release_recipe_data(recipe, out or Path(f"{recipe.name}-data"), progress=shown)
        elif data:
            from pandallm.pipeline.release_data import release_data

            facts = release_data(folder, out, progress=shown)
        else:
            from pandallm.pipeline.release_folder import release_run

            facts = release_run(folder, out, ship=ship, authors=tuple(author or ()), gguf=gguf, progress=shown)
        if push:
            facts["pushed"] = push_folder(Path(facts["out"]), push, facts["kind"], private=private, progress=shown)
    if json_:
        print(json.dumps(facts, ensure_ascii=False))
        return
    show_facts({k: v for k, v in facts.items() if k != "out"}, False, f"Wrote {facts['out']}")
    for corpus, sources in facts.get("left_out", {}).items():
        for source, why in sources.items():
            print(f"  left out: {corpus}/{source}, because {why}")
    for sentence in facts["checked"]:
        print(f"  checked: {sentence}")


@app.command()
def export(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="a folder of a model or LoRA adapter, such as RUN/models/instruct, or hub id"
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="folder to write; must not exist")],
    base: Annotated[
        str | None, typer.Option(help="of an adapter: the model it was trained on, where nothing else says")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; as stored if left out")] = None,
    gguf: Annotated[
        str | None, typer.Option(metavar="TYPE", help="A GGUF file in OUT too: f32, f16, bf16 or q8_0.")
    ] = None,
    converter: Annotated[
        Path | None, typer.Option(help="llama.cpp's convert_hf_to_gguf.py, or a command that takes the same options")
    ] = None,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Copy a model to a folder of its own that plain transformers loads with equal logits; with --gguf for llama.cpp too.

    A LoRA adapter is merged into its base.

    Example: panda export runs/microworld-seed42/models/instruct my-model
    """
    from pandallm.release.export import export_model
    from pandallm.release.fetch import locate
    from pandallm.terminal import progress

    with progress(quiet) as shown:
        facts = export_model(
            locate(model, "Model"), out, base=base, dtype=dtype, gguf=gguf, converter=converter, progress=shown
        )
    show_facts(facts, json_, f"Wrote {out}")
