"""`panda delta legacy`: the deltas of FastChat, Panda and Alpaca."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pandallm.cli.app import AsJson, Quiet, show_facts
from pandallm.cli.delta import FOLDER, Base, Out, Target, delta_app
from pandallm.errors import BadInput, PandaError

legacy_app = typer.Typer(
    help="Deltas of 2023 (FastChat, Panda, Alpaca): differences of floats, which come back nearly.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
delta_app.add_typer(legacy_app, name="legacy")


def show(facts: dict[str, Any], as_json: bool, headline: str) -> None:
    """As other verbs show them, but sums with the decimals that a checksum needs."""
    show_facts(
        facts if as_json else {k: f"{v:.4f}" if isinstance(v, float) else v for k, v in facts.items()},
        as_json,
        headline,
    )


def located(**names: str) -> list[Path]:
    """Folders of models that are named as folders or hub ids."""
    from pandallm.release.fetch import locate
    from pandallm.release.stream import keep_freed_memory

    keep_freed_memory()
    return [locate(name, role.capitalize()) for role, name in names.items()]


Layout = Annotated[str | None, typer.Option(help="fastchat, panda or alpaca; found out where left away.")]
LegacyDelta = Annotated[str, typer.Argument(metavar="DELTA", help=f"a legacy delta: {FOLDER}")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help=f"a model: {FOLDER}")]
Dtype = Annotated[str | None, typer.Option(help="F16, BF16 or F32; else what the layout has.")]


@legacy_app.command("make")
def legacy_make(
    base: Base,
    target: Target,
    out: Out,
    layout: Annotated[str, typer.Option(help="fastchat, panda or alpaca.")] = "panda",
    dtype: Dtype = None,
    bin_: Annotated[bool, typer.Option("--bin", help="Write pytorch_model-*.bin instead of safetensors.")] = False,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write a delta that the published scripts apply. For bits that come back, use `panda delta make`.

    Example: panda delta legacy make base-folder tuned-folder delta-folder --layout fastchat
    """
    from pandallm.release.container import refuse_existing
    from pandallm.release.legacy import check_layout, make_legacy
    from pandallm.terminal import progress

    refuse_existing(out)
    base_folder, target_folder = located(base=base, target=target)
    with progress(quiet) as shown:
        facts = make_legacy(
            base_folder, target_folder, out, layout=check_layout(layout), dtype=dtype, torch_files=bin_, progress=shown
        )
    share = facts["lost"] / max(facts["values"], 1)
    show(facts, json_, f"Wrote {out}; {share:.3%} of the weights do not come back bit for bit")


@legacy_app.command("apply")
def legacy_apply(
    base: Base,
    delta: LegacyDelta,
    out: Out,
    layout: Layout = None,
    tied: Annotated[str | None, typer.Option(help="once, twice or half; for tied embeddings.")] = None,
    dtype: Dtype = None,
    expect_sum: Annotated[float | None, typer.Option(help="Sum of weights that must come out.")] = None,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Add a legacy delta to its base: in float32, rounded once, tensor by tensor.

    Example: panda delta legacy apply llama-7b lmsys/vicuna-7b-delta-v1.1 vicuna-7b
    """
    from pandallm.release.container import refuse_existing
    from pandallm.release.legacy import apply_legacy, check_layout
    from pandallm.release.legacy_rules import TIED
    from pandallm.terminal import progress

    treated = next((t for t in TIED if t == tied), None)
    if tied is not None and treated is None:
        raise BadInput(f"--tied {tied} is unknown; give one of {', '.join(TIED)}.")
    refuse_existing(out)
    base_folder, delta_folder = located(base=base, delta=delta)
    with progress(quiet) as shown:
        facts = apply_legacy(
            base_folder,
            delta_folder,
            out,
            layout=None if layout is None else check_layout(layout),
            tied=treated,
            dtype=dtype,
            expected_sum=expect_sum,
            progress=shown,
        )
    show(facts, json_, f"Wrote {out}" + ("; every hash matches" if facts["verified"] else ""))


@legacy_app.command("sum")
def legacy_sum(
    model: Model,
    expect: Annotated[float | None, typer.Option(help="What it must be, e.g. 50637.1836 for Alpaca-7B.")] = None,
    tolerance: Annotated[float, typer.Option(help="How far off it may be.")] = 1e-2,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Alpaca's checksum: the sum of all weights. It finds gross mistakes only.

    Example: panda delta legacy sum alpaca-7b --expect 50637.1836
    """
    from pandallm.release.alpaca import sum_facts, weight_sum
    from pandallm.terminal import progress

    (folder,) = located(model=model)
    with progress(quiet) as shown:
        facts = sum_facts(weight_sum(folder, progress=shown), expect, tolerance)
    if facts.get("verdict") == "different":
        raise PandaError(
            f"The weights of {model} add up to {facts['sum']}, not {expect}; compare the files' sha256, the sum cannot "
            "tell what is wrong."
        )
    show(facts, json_, f"{model}")
