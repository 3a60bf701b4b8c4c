"""`panda compare`: several models on the same questions."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pandallm.cli.app import AsJson, app


@app.command()
def compare(
    folders: Annotated[
        list[str],
        typer.Argument(
            metavar="A B ...", help="Folders of panda eval --out, run folders (all their models), or RUN:MODEL"
        ),
    ],
    tasks: Annotated[str, typer.Option(help="Task names, comma-separated; all where left out")] = "",
    baseline: Annotated[str | None, typer.Option(help="Compare every model with this one only")] = None,
    margin: Annotated[float, typer.Option(help="Points; smaller differences do not matter to you")] = 2.0,
    published: Annotated[bool, typer.Option("--published", help="Show the 2023 paper's counts beside ours.")] = False,
    common: Annotated[
        bool, typer.Option("--common", help="Compare what all models were asked, leave out the rest.")
    ] = False,
    out: Annotated[Path, typer.Option(help="HTML page to write; comparison.json goes beside it")] = Path(
        "compare.html"
    ),
    no_text: Annotated[
        bool, typer.Option("--no-text", help="Ids, choices and scores only; no question or answer text")
    ] = False,
    json_: AsJson = False,
) -> None:
    """Compare models that were scored on the same questions: intervals, differences, verdicts, and a page of the disagreements.

    Example: panda compare eval-base eval-tuned --margin 2 --out compare.html
    """
    from pydantic import ValidationError

    from pandallm.errors import BadInput
    from pandallm.evaluate.spec import CompareSpec
    from pandallm.pipeline.compare import compare_folders
    from pandallm.pipeline.show_compare import print_comparison

    try:
        spec = CompareSpec(
            tasks=tuple(t.strip() for t in tasks.split(",") if t.strip()),
            baseline=baseline,
            margin=margin / 100,
            published=published,
            common=common,
        )
    except ValidationError:
        raise BadInput(f"--margin: {margin:g} is not between 0 and 100 points.") from None
    if out.is_dir():
        raise BadInput(f"--out {out} is a folder; name the page to write, such as {out / 'compare.html'}.")
    comparison, page = compare_folders(folders, spec, out, with_text=not no_text)
    if json_:
        print(json.dumps(comparison | {"page": str(page)}, ensure_ascii=False))
    else:
        print_comparison(comparison, page)
