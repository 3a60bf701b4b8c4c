"""`panda release` and `panda export`: folders for others."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pandallm.cli.app import AsJson, Quiet, app, show_facts


@app.command()
def release(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="a finished run, such as runs/microworld-seed42")],
    out: Annotated[
        Path | None, typer.Option(help="folder to write; RUN/release or RUN/release-data if left out")
    ] = None,
    data: Annotated[bool, typer.Option("--data", help="The cleaned corpora instead of the model.")] = False,
    ship: Annotated[
        str | None, typer.Option(help="weights, delta or auto (as the base's licence allows); instead of the recipe's")
    ] = None,
    author: Annotated[list[str] | None, typer.Option(help="for CITATION.cff; may be given several times")] = None,
    gguf: Annotated[str | None, typer.Option(metavar="TYPE", help="Also a GGUF file: f32, f16, bf16 or q8_0.")] = None,
    push: Annotated[str | None, typer.Option(metavar="REPO", help="Upload it, such as my-name/my-model.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write a folder ready for the hub: weights or delta, tokenizer, cards, report, sums; verified before it appears.

    Example: panda release runs/microworld-seed42 --out microworld-release
    """
    from pandallm.errors import BadInput
    from pandallm.release.hub import check_repo, push_folder
    from pandallm.terminal import progress

    if data and (ship or gguf):
        raise BadInput(f"--{'ship' if ship else 'gguf'} is about the model; leave it out with --data.")
    if push:
        check_repo(push)
    with progress(quiet) as shown:
        if data:
            from pandallm.pipeline.release_data import release_data

            facts = release_data(run, out, progress=shown)
        else:
            from pandallm.pipeline.release_folder import release_run

            facts = release_run(run, out, ship=ship, authors=tuple(author or ()), gguf=gguf, progress=shown)
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
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="a model folder, such as RUN/models/instruct")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="folder to write; must not exist")],
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

    Example: panda export runs/microworld-seed42/models/instruct my-model
    """
    from pandallm.release.export import export_model
    from pandallm.terminal import progress

    with progress(quiet) as shown:
        facts = export_model(model, out, dtype=dtype, gguf=gguf, converter=converter, progress=shown)
    show_facts(facts, json_, f"Wrote {out}")
