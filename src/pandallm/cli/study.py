"""`panda study`: many runs of one recipe, and what their differences say."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from pandallm.cli.app import AsJson, Overrides, Quiet, app, limit_threads
from pandallm.errors import BadInput, PandaError

study_app = typer.Typer(
    help="Studies: one recipe, some factors, several seeds; what was each choice worth?", no_args_is_help=True
)
app.add_typer(study_app, name="study")

File = Annotated[
    Path, typer.Argument(metavar="STUDY", help="a study file, such as studies/staging.yaml", show_default=False)
]


@study_app.command()
def plan(
    file: File,
    overrides: Overrides = None,
    on: Annotated[
        str | None, typer.Option(help="devices, as 1xA100-80G; this machine where it can hold the training")
    ] = None,
    devices: Annotated[Path | None, typer.Option(help="YAML of further devices", show_default=False)] = None,
    json_: AsJson = False,
) -> None:
    """Show a study's arms, what they share, hours and price, and the smallest effect that it can find. Runs nothing.

    Example: panda study plan studies/instruction-quantity.yaml
    """
    from pandallm.study.arms import make_arms
    from pandallm.study.load import load_study
    from pandallm.study.plan import plan_study
    from pandallm.study.show import print_plan
    from pandallm.terminal import progress

    study = load_study(file)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a plan opens no connection
    with progress(json_) as shown:
        result = plan_study(study, make_arms(study, overrides or []), on=on, device_file=devices, progress=shown)
    if json_:
        print(json.dumps(result, ensure_ascii=False))
    else:
        print_plan(result)


@study_app.command()
def run(
    file: File,
    overrides: Overrides = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Runs at once, in local processes; tasks of a Slurm array, or of Ray.")
    ] = 1,
    seeds: Annotated[str, typer.Option(help="Only these of the study's seeds, comma-separated")] = "",
    slurm: Annotated[bool, typer.Option("--slurm", help="As a Slurm array of --jobs tasks, through submitit.")] = False,
    sbatch: Annotated[
        list[str] | None, typer.Option(help="Option of sbatch, as time=120; may be repeated.", show_default=False)
    ] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="On Ray: the cluster of runtime.ray_address, else started here.")
    ] = False,
    no_text: Annotated[
        bool, typer.Option("--no-text", help="Leave question and answer texts out of the report.")
    ] = False,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run every arm with every seed through the store, then report. Run it again to go on; start it twice to share the work.

    An arm that fails does not stop the others; the exit code is 1 then.

    Example: panda study run studies/instruction-quantity.yaml --jobs 2
    """
    from pandallm.study.arms import make_arms
    from pandallm.study.load import load_study

    if slurm and ray:
        raise BadInput("--slurm and --ray are two ways to do the same; give one of them.")
    if sbatch and not slurm:
        raise BadInput("--sbatch is for --slurm; give both or none.")
    study = load_study(file)
    arms = make_arms(study, overrides or [])
    if jobs == 1 and not (slurm or ray):
        limit_threads(arms[0].recipe.runtime.threads)
    from pandallm.study.cluster import run_on_ray, run_on_slurm, sbatch_options
    from pandallm.study.folder import all_jobs, write_study
    from pandallm.study.report import write_study_report
    from pandallm.study.run import run_study
    from pandallm.study.show import print_results
    from pandallm.terminal import progress

    chosen = _seeds(seeds, study.spec.seeds)
    wanted = [j for j in all_jobs(arms, study) if j.seed in chosen]
    options = sbatch_options(sbatch or [])
    folder = write_study(study, arms)
    with progress(quiet) as shown:
        if slurm:
            summary = run_on_slurm(wanted, jobs, options, shown)
        elif ray:
            summary = run_on_ray(wanted, jobs, arms[0].recipe.runtime.ray_address, shown)
        else:
            summary = run_study(wanted, shown, processes=jobs)
    results, written = write_study_report(folder, text=not no_text)
    if json_:
        print(
            json.dumps(
                {
                    "folder": str(folder),
                    "reused": summary.reused,
                    "done": summary.done,
                    "failed": summary.failed,
                    **results,
                },
                ensure_ascii=False,
            )
        )
    else:
        print_results(results, written)
    if summary.failed:
        raise PandaError(f"{len(summary.failed)} of {results['runs']['total']} runs failed; first: {summary.failed[0]}")


def _seeds(text: str, known: Sequence[int]) -> Sequence[int]:
    """The seeds of `--seeds 1,2`; all where it is empty."""
    wanted = [t.strip() for t in text.split(",") if t.strip()]
    for seed in wanted:
        if seed not in map(str, known):
            raise BadInput(f"--seeds: '{seed}' is not one of the study's seeds {', '.join(map(str, known))}.")
    return [int(s) for s in wanted] or known


@study_app.command()
def report(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="a study's folder, such as runs/staging", show_default=False)
    ],
    no_text: Annotated[
        bool, typer.Option("--no-text", help="Leave question and answer texts out of the report.")
    ] = False,
    json_: AsJson = False,
) -> None:
    """Write a study's report from the runs that are complete so far.

    Example: panda study report runs/instruction-quantity
    """
    from pandallm.study.report import write_study_report
    from pandallm.study.show import print_results

    results, written = write_study_report(folder, text=not no_text)
    if json_:
        print(json.dumps(results, ensure_ascii=False))
    else:
        print_results(results, written)


#: Where the results of studies are kept in the repository.
RESULTS = Path("benchmarks/results/studies")


@study_app.command()
def publish(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="a study's folder, such as runs/staging", show_default=False)
    ],
    into: Annotated[
        Path, typer.Option(help="Folder of published studies; the study gets one of its name there.")
    ] = RESULTS,
) -> None:
    """Copy a study's numbers and tables, to be committed: no text of a question or model, no path of this machine.

    Example: panda study publish runs/staging
    """
    from pandallm.study.publish import publish_study

    print(publish_study(folder, into))


@study_app.command()
def blueprint(
    results: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RESULTS...", help=f"published studies, or folders of them ({RESULTS})", show_default=False
        ),
    ] = None,
    studies: Annotated[
        Path | None, typer.Option(help="Study files; those without results are told as not run.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the pages")] = Path("docs"),
) -> None:
    """Write what published studies say a builder should do: blueprint.md and blueprint.zh-CN.md.

    Example: panda study blueprint benchmarks/results/studies --studies studies --out docs
    """
    from pandallm.study.blueprint import write_blueprint

    if studies is not None and not studies.is_dir():
        raise BadInput(f"--studies: {studies} is not a folder; give one with study files (*.yaml).")
    for path in write_blueprint(results or [RESULTS], studies, out):
        print(path)
