"""Verb: answers."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pandallm.cli.app import AsJson, Quiet, app, limit_threads
from pandallm.errors import BadInput


@app.command()
def answers(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...",
            help="Hugging Face model folders, or NAME=FOLDER; with --votes, or to judge later: one folder of answers",
        ),
    ],
    prompts: Annotated[str, typer.Option(help="JSONL or YAML file of open-ended prompts, or builtin")] = "builtin",
    out: Annotated[Path | None, typer.Option(help="Folder for answers and page; a killed call goes on in it")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 256,
    seed: Annotated[int, typer.Option(help="Seed of the blind order")] = 0,
    judge: Annotated[
        str | None, typer.Option(metavar="URL", help="OpenAI-compatible server, such as http://localhost:8000/v1")
    ] = None,
    judge_model: Annotated[str | None, typer.Option(metavar="NAME", help="The judge's name on that server")] = None,
    votes: Annotated[
        list[Path] | None, typer.Option(help="votes.json of the page, once per reader: tally them", show_default=False)
    ] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1)] = None,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show models' answers to open-ended prompts side by side, in blind order; optionally judged, or tally votes.

    Example: panda answers models/base models/tuned --out answers

    Example: panda answers answers --votes votes.json
    """
    if (judge is None) != (judge_model is None):
        raise BadInput("--judge and --judge-model belong together: give both or neither.")
    if dtype not in ("auto", "float32", "bfloat16"):
        raise BadInput(f"--dtype {dtype} is unknown; use auto, float32 or bfloat16.")
    limit_threads(threads)
    from pandallm.pipeline.answers import answer_side_by_side, is_answers_folder, judge_answers, tally
    from pandallm.terminal import progress

    first = Path(models[0])
    if votes:
        if len(models) > 1 or judge is not None:
            raise BadInput("--votes takes one folder of panda answers and nothing else.")
        show(tally(first, votes), json_)
        return
    ready = len(models) == 1 and is_answers_folder(first)
    if ready and judge is None:
        raise BadInput(f"{first} holds answers already: add --votes votes.json to tally, or --judge URL to judge them.")
    if not ready and out is None:
        raise BadInput("--out is missing: name the folder for the answers and their page.")
    with progress(quiet) as shown:
        folder = first if ready or out is None else out
        summary: dict[str, Any] = {}
        if not ready:
            summary = answer_side_by_side(
                models,
                prompts,
                folder,
                max_new_tokens=max_new_tokens,
                seed=seed,
                dtype=dtype,
                device=device,
                threads=threads,
                progress=shown,
            )
        if judge is not None and judge_model is not None:
            summary = judge_answers(folder, judge, judge_model, progress=shown)
    if json_:
        print(json.dumps(summary, ensure_ascii=False))
        return
    for m in summary["models"]:
        print(
            f"{m['name']}: {m['answers']} answers, {m['mean_tokens']:.0f} tokens on average; {m['eos']} ended by themselves, "
            f"{m['length']} cut off at {m['max_new_tokens']} tokens, {m['no_room']} without room"
        )
    if judge is not None:
        show(summary["judge"], False)
    print(f"Wrote {folder / 'answers.html'}: open it in a browser, vote, then reveal the names.")


def show(result: dict[str, Any], as_json: bool) -> None:
    """Print a tally of votes or of a judge's verdicts."""
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
        return
    if "asked" in result:
        print(
            f"Judge {result['model']}: {result['asked']} verdicts asked, {result['unparsed']} not parsed, {result['too_long']} too long for it; "
            f"{result['consistent']} pairs kept their verdict in both orders, {result['inconsistent']} did not (counted as ties)"
        )
        if first := result["first_preferred"]:
            print(
                f"  {first['share']:.1%} [{first['low']:.1%}, {first['high']:.1%}] of {first['verdicts']} decided verdicts "
                "favour the answer shown first"
            )
    else:
        print(f"Readers: {result['readers']}; {result['voted']} of {result['prompts']} prompts voted on")
    for r in result["pairs"]:
        print(
            f"  {r['a']} against {r['b']}: win rate {r['win_rate']:.1%} [{r['low']:.1%}, {r['high']:.1%}] over {r['prompts']} prompts "
            f"({r['a_wins']} better, {r['ties']} ties, {r['b_wins']} worse); p {r['p']:.3g}, sign test {r['p_sign']:.3g}, Holm {r['p_holm']:.3g}"
        )
