"""`panda delta`: weight deltas."""

from pathlib import Path
from typing import Annotated

import typer

from pandallm.cli.app import AsJson, Quiet, app, show_facts
from pandallm.errors import BadInput, PandaError

delta_app = typer.Typer(help="Weight deltas that come back bit for bit.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(delta_app, name="delta")

FOLDER = "folder, hub id owner/name[@revision], or modelscope:owner/name"
Base = Annotated[str, typer.Argument(metavar="BASE", help=f"the base model: {FOLDER}")]
Target = Annotated[
    str, typer.Argument(metavar="TARGET", help=f"the tuned model, or a LoRA adapter of the base: {FOLDER}")
]
Delta = Annotated[str, typer.Argument(metavar="DELTA", help=f"what `panda delta make` wrote: {FOLDER}")]

Out = Annotated[Path, typer.Argument(metavar="OUT", help="the folder to write; it must not exist")]


def _locate(**names: str) -> list[Path]:
    from pandallm.release.fetch import locate
    from pandallm.release.stream import keep_freed_memory

    keep_freed_memory()
    return [locate(name, role.capitalize()) for role, name in names.items()]


@delta_app.command("make")
def delta_make(
    base: Base,
    target: Target,
    out: Out,
    merge: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="TARGET is a LoRA adapter: merge it, keep the model here, ship that."),
    ] = None,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write the delta that turns BASE into TARGET. Interrupted, the same command goes on where it stopped.

    Example: panda delta make base-folder tuned-folder delta-folder
    """
    from pandallm.release.container import refuse_existing
    from pandallm.release.delta import make_delta
    from pandallm.terminal import progress

    refuse_existing(out)
    base_folder, target_folder = _locate(base=base, target=target)
    with progress(quiet) as shown:
        if merge is not None:
            from pandallm.release.merge import merge_adapter

            if merge.exists():
                raise BadInput(
                    f"{merge} exists already; to ship what is in it, name it as TARGET and leave --merge out."
                )
            merge_adapter(base_folder, target_folder, merge, progress=shown)
            target_folder = merge
        facts = make_delta(base_folder, target_folder, out, progress=shown)
    show_facts(facts, json_, f"Wrote {out}")


@delta_app.command("apply")
def delta_apply(base: Base, delta: Delta, out: Out, json_: AsJson = False, quiet: Quiet = False) -> None:
    """Rebuild the target from BASE and DELTA, verified bit for bit while it is written.

    Interrupted, the same command goes on where it stopped.

    Example: panda delta apply base-folder delta-folder tuned-folder
    """
    from pandallm.release.container import refuse_existing
    from pandallm.release.delta import apply_delta
    from pandallm.terminal import progress

    refuse_existing(out)
    base_folder, delta_folder = _locate(base=base, delta=delta)
    with progress(quiet) as shown:
        facts = apply_delta(base_folder, delta_folder, out, progress=shown)
    show_facts(facts, json_, f"Wrote {out}; every hash matches")


@delta_app.command("verify")
def delta_verify(base: Base, delta: Delta, target: Target, json_: AsJson = False, quiet: Quiet = False) -> None:
    """Check that BASE + DELTA = TARGET, by sha256 of every tensor and file.

    Example: panda delta verify base-folder delta-folder tuned-folder
    """
    from pandallm.release.delta import verify_delta
    from pandallm.terminal import progress

    base_folder, delta_folder, target_folder = _locate(base=base, delta=delta, target=target)
    with progress(quiet) as shown:
        facts = verify_delta(base_folder, delta_folder, target_folder, progress=shown)
    if not facts["verified"]:
        more = f" ({len(facts['mismatches']) - 1} more differences)" if len(facts["mismatches"]) > 1 else ""
        raise PandaError(f"{target} is not what base and delta give: {facts['mismatches'][0]}{more}")
    show_facts(facts, json_, "Verified: base + delta = target, bit for bit")


@delta_app.command("inspect")
def delta_inspect(delta: Delta, json_: AsJson = False) -> None:
    """Print what a delta holds.

    Example: panda delta inspect delta-folder
    """
    from pandallm.release.delta import inspect_delta

    (folder,) = _locate(delta=delta)
    facts = inspect_delta(folder)
    if not json_:
        facts |= {name: ", ".join(f"{k} {v}" for k, v in facts[name].items()) for name in ("ops", "files")}
        facts |= {name: ", ".join(facts[name]) or "none" for name in ("dropped", "skipped")}
    show_facts(facts, json_, delta)
