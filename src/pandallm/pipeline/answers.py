"""`panda answers`: models answer open-ended prompts, shown side by side in blind order; votes and a judge compare them."""

import gc
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput
from pandallm.evaluate.open_ended import Answer, OpenPrompt, load_prompts, shown_order
from pandallm.model.spec import Dtype
from pandallm.progress import SILENT, Progress
from pandallm.spec import nearest
from pandallm.store import digest_json, read_json, read_jsonl, write_json, write_jsonl

SUMMARY, ANSWERS, PROMPTS, JUDGEMENTS = "answers.json", "answers.jsonl", "prompts.jsonl", "judgements.jsonl"
#: Window of a model whose settings do not tell.
WINDOW_TOKENS = 2048
BATCH_TOKENS = 8192
#: Version of votes.json, as the page writes it.
VOTES_VERSION = 1


def answer_side_by_side(
    models: Sequence[str],
    prompts: str,
    out: Path,
    *,
    max_new_tokens: int = 256,
    seed: int = 0,
    dtype: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Each model answers each prompt greedily; writes `out` (prompts, answers, answers.json, answers.html), returns the summary.

    `models` are Hugging Face folders, or NAME=FOLDER. The same call goes on where a killed one stopped. Raises BadInput
    for a folder that is no model, two models of one name, wrong prompts, or an `out` that holds something else.
    """
    from pandallm.model.folder import check_model_folder, resolve_device, resolve_dtype
    from pandallm.report.answers import write_answers

    named = _named(models)
    asked = load_prompts(prompts)
    for folder in named.values():
        check_model_folder(folder)
    device = resolve_device(device)
    precision = resolve_dtype(dtype, device)
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not (out / ".journal").is_dir():
        raise BadInput(f"{out} exists and is not a folder of panda answers; give another one with --out.")
    answers: dict[str, list[list[Answer]]] = {}
    facts = []
    for name, folder in named.items():
        answers[name], fact = _answer_one(
            name, folder, asked, out, max_new_tokens, precision, device, threads, progress
        )
        facts.append({"name": name, **fact})
    rows = [
        {
            "id": p.id,
            "category": p.category,
            "language": p.language,
            "model": name,
            "turn": k,
            **answer.model_dump(),
        }
        for i, p in enumerate(asked)
        for name in named
        for k, answer in enumerate(answers[name][i])
    ]
    summary: dict[str, Any] = {
        "digest": digest_json([seed, [p.model_dump(mode="json") for p in asked], rows]),
        "seed": seed,
        "prompts": len(asked),
        "max_new_tokens": max_new_tokens,
        "dtype": precision,
        "device": device,
        "models": facts,
        "order": {p.id: shown_order(seed, p.id, list(named)) for p in asked},
    }
    old = read_json(out / SUMMARY) if (out / SUMMARY).is_file() else {}
    if old.get("digest") == summary["digest"] and "judge" in old:
        summary["judge"] = old["judge"]
    else:
        (out / JUDGEMENTS).unlink(missing_ok=True)  # they judge other answers
    write_jsonl(out / PROMPTS, [p.model_dump(mode="json") for p in asked])
    write_jsonl(out / ANSWERS, rows)
    write_json(out / SUMMARY, summary)
    write_answers(out)
    return summary


def _named(models: Sequence[str]) -> dict[str, Path]:
    """Models by name: NAME=FOLDER, or the folder's own name."""
    named: dict[str, Path] = {}
    for given in models:
        name, equals, folder = given.partition("=")
        path = Path(given) if not equals or Path(given).exists() else Path(folder)
        name = path.resolve().name if path == Path(given) else name
        if name in named:
            raise BadInput(
                f"Two models are called {name!r}; name them: panda answers {name}-1={named[name]} NAME=FOLDER."
            )
        named[name] = path
    return named


def _answer_one(
    name: str,
    folder: Path,
    prompts: Sequence[OpenPrompt],
    out: Path,
    max_new_tokens: int,
    dtype: Dtype,
    device: str,
    threads: int | None,
    progress: Progress,
) -> tuple[list[list[Answer]], dict[str, Any]]:
    import torch

    from pandallm.evaluate.journal import Journal
    from pandallm.evaluate.open_ended import answer_prompts
    from pandallm.model.folder import load_model, load_tokenizer
    from pandallm.pipeline.chat import prompt_ids

    identity = [
        _identity(folder),
        dtype,
        device.partition(":")[0],
        max_new_tokens,
        [(p.id, p.turns) for p in prompts],
    ]
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    started = time.monotonic()
    turns = sum(len(p.turns) for p in prompts)
    try:
        # The file's name must not be one of the user's.
        journal_file = out / ".journal" / f"{digest_json(name)[:24]}.jsonl"
        with Journal(journal_file, digest_json(identity)) as journal, progress.task(name, turns, "answers") as shown:
            tokenizer = load_tokenizer(folder)
            model = load_model(folder, dtype=dtype, device=device)
            model.set_attn_implementation("sdpa")  # not training's packed attention
            window = int(getattr(model.config, "max_position_embeddings", None) or WINDOW_TOKENS)
            new = min(max_new_tokens, window // 2)
            answers = answer_prompts(
                model,
                tokenizer,
                lambda said: prompt_ids(tokenizer, said),
                prompts,
                journal,
                max_new_tokens=new,
                window=window,
                batch_tokens=BATCH_TOKENS,
                advance=shown.advance,
            )
    finally:
        torch.set_num_threads(before)
    del model
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    given = [a for one in answers for a in one]
    written = [a for a in given if a.stopped != "no_room"]
    return answers, {
        "chat_template": bool(tokenizer.chat_template),
        "max_new_tokens": new,
        "answers": len(written),
        "eos": sum(a.stopped == "eos" for a in given),
        "length": sum(a.stopped == "length" for a in given),
        "no_room": len(given) - len(written),
        "empty": sum(not a.text for a in written),
        "mean_tokens": sum(a.tokens for a in written) / max(1, len(written)),
        "mean_characters": sum(len(a.text) for a in written) / max(1, len(written)),
        "seconds": round(time.monotonic() - started, 3),
    }


def _identity(folder: Path) -> str:
    """Changes when the folder's files do: answers of one model are never taken for another's."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return digest_json([(p.relative_to(folder).as_posix(), p.stat().st_size, p.stat().st_mtime_ns) for p in files])


def is_answers_folder(path: Path) -> bool:
    """Whether `path` was written by `answer_side_by_side`."""
    return (path / SUMMARY).is_file() and (path / ANSWERS).is_file()


def _read(folder: Path) -> tuple[dict[str, Any], list[OpenPrompt], dict[str, list[list[Answer]]]]:
    """(summary, prompts, answers of each model by prompt and turn) of a folder."""
    if not is_answers_folder(folder):
        raise BadInput(f"{folder} is not a folder of panda answers: it has no {SUMMARY} or no {ANSWERS}.")
    summary = read_json(folder / SUMMARY)
    prompts = [OpenPrompt.model_validate(p) for p in read_jsonl(folder / PROMPTS)]
    place = {p.id: i for i, p in enumerate(prompts)}
    answers: dict[str, list[list[Answer]]] = {m["name"]: [[] for _ in prompts] for m in summary["models"]}
    for row in read_jsonl(folder / ANSWERS):
        answer = Answer(text=row["text"], tokens=row["tokens"], stopped=row["stopped"])
        answers[row["model"]][place[row["id"]]].append(answer)
    return summary, prompts, answers


def judge_answers(folder: Path, url: str, model: str, *, progress: Progress = SILENT) -> dict[str, Any]:
    """The judge `model` behind the OpenAI-compatible `url` compares every pair of answers in both orders.

    Writes judgements.jsonl, `judge` in answers.json and the page again; returns the summary. Replies are kept as they
    come: the same call goes on where a server stopped. Raises PandaError where the server does not answer.
    """
    from pandallm.evaluate import judge
    from pandallm.evaluate.chat_client import ChatClient
    from pandallm.evaluate.journal import Journal
    from pandallm.report.answers import write_answers

    summary, prompts, answers = _read(folder)
    if len(answers) < 2:
        raise BadInput(f"{folder} holds the answers of one model; a judge compares two or more.")
    asked, left_out = judge.questions(prompts, answers, summary["seed"])
    client = ChatClient(url, model, max_tokens=judge.MAX_TOKENS, say=progress.say)
    key = digest_json([judge.JUDGE_VERSION, model, client.url, judge.MAX_TOKENS])
    with (
        Journal(folder / ".journal" / f"judge-{key[:24]}.jsonl", key) as journal,
        progress.task(f"judge {model}", len(asked), "verdicts") as shown,
    ):
        try:
            rows = judge.judge(asked, prompts, client.ask, journal, lambda: shown.advance(1))
        finally:
            client.close()
    write_jsonl(folder / JUDGEMENTS, [row | {"judge": model} for row in rows])
    summary["judge"] = {"model": model, "left_out": left_out} | judge.summarise(rows, list(answers))
    write_json(folder / SUMMARY, summary)
    write_answers(folder)
    return summary


def tally(folder: Path, votes: Sequence[Path]) -> dict[str, Any]:
    """Win rates of every pair of models from the readers' votes.json; also written to votes_summary.json of `folder`.

    Raises BadInput for votes on other answers, an unknown prompt, or ranks that do not fit the answers shown.
    """
    from pandallm.evaluate.preferences import rank_outcomes, win_rates

    summary, _, _ = _read(folder)
    order: dict[str, list[str]] = summary["order"]
    ballots = [_ballot(file, summary["digest"], order) for file in votes]
    names = [m["name"] for m in summary["models"]]
    outcomes = rank_outcomes(ballots, order, names)
    result = {
        "digest": summary["digest"],
        "readers": len(ballots),
        "votes": sum(map(len, ballots)),
        "prompts": summary["prompts"],
        "voted": len({p for b in ballots for p in b}),
        "pairs": win_rates(outcomes, adjust="p_sign"),
    }
    write_json(folder / "votes_summary.json", result)
    return result


def _ballot(file: Path, digest: str, order: dict[str, list[str]]) -> dict[str, list[int]]:
    data = read_json(file)
    if not isinstance(data, dict) or data.get("version") != VOTES_VERSION or not isinstance(data.get("votes"), dict):
        raise BadInput(f"{file} is not a votes.json of the page answers.html (version {VOTES_VERSION}).")
    if data.get("digest") != digest:
        raise BadInput(f"{file} holds votes on other answers: its digest is not that of the folder's answers.json.")
    for prompt, ranks in data["votes"].items():
        if prompt not in order:
            raise BadInput(f"{file}: there is no prompt {prompt!r}.{nearest(prompt, list(order))}")
        shown = len(order[prompt])
        if (
            not isinstance(ranks, list)
            or len(ranks) != shown
            or not all(type(r) is int and 1 <= r <= shown for r in ranks)
        ):
            raise BadInput(f"{file}: {prompt}: expected {shown} ranks from 1 to {shown}, one per answer shown.")
    if not data["votes"]:
        raise BadInput(f"{file} holds no votes.")
    return dict(data["votes"])
