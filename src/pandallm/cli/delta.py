"""`panda delta`: weight deltas."""

from pathlib import Path

import typer

from pandallm.cli.app import AsJson, Quiet, app, show_facts
from pandallm.errors import PandaError

delta_app = typer.Typer(help="Weight deltas that come back bit for bit.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(delta_app, name="delta")


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
