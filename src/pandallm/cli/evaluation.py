"""Verbs about scores: eval."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pandallm.cli.app import AsJson, Quiet, app, limit_threads


@app.command(name="eval")
def evaluate(
    model: Annotated[str, typer.Argument(help="Hugging Face model folder (Llama, Qwen, ...)")],
    tasks: Annotated[
        str, typer.Option(help="Task names, comma-separated: c3-m, c3-d, logiqa2-zh, or a task's YAML file")
    ],
    data: Annotated[
        list[str] | None, typer.Option(help="File of the task's questions; once per task, in order", show_default=False)
    ] = None,
    prompts: Annotated[str, typer.Option(help="Prompt names, comma-separated, or all")] = "all",
    methods: Annotated[str, typer.Option(help="likelihood, generation, or both, comma-separated")] = "likelihood",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Score a fixed random sample of this many questions per task")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for per-question rows and scores (must not exist)")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1)] = None,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Score a model on multiple-choice benchmarks, with clustered intervals.

    Example: panda eval runs/microworld-seed1/models/instruct --tasks c3-m --data c3_dev.jsonl --limit 100
    """
    limit_threads(threads)
    from pandallm.pipeline.evaluate_one import evaluate_folder
    from pandallm.pipeline.show import print_scores
    from pandallm.terminal import progress

    with progress(quiet) as shown:
        scores = evaluate_folder(
            Path(model),
            [t.strip() for t in tasks.split(",") if t.strip()],
            data or [],
            prompts=prompts,
            methods=[m.strip() for m in methods.split(",")],
            limit=limit,
            out=out,
            device=device,
            threads=threads,
            progress=shown,
        )
    if json_:
        print(json.dumps(scores, ensure_ascii=False))
    else:
        print_scores(scores)
