"""Verbs about scores: eval."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pandallm.cli.app import AsJson, Quiet, app, limit_threads
from pandallm.errors import BadInput


def _names(text: str) -> tuple[str, ...]:
    return tuple(t.strip() for t in text.split(",") if t.strip())


def _numbers(text: str, option: str) -> tuple[int, ...]:
    if not all(t.isdigit() for t in _names(text)) or not _names(text):
        raise BadInput(f"{option} {text}: give a number, or several with commas, such as 0,5.")
    return tuple(int(t) for t in _names(text))


@app.command(name="eval")
def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(help="Hugging Face model folder (Llama, Qwen, ...); for a server its model's name"),
    ] = None,
    tasks: Annotated[
        str,
        typer.Option(help="Tasks, comma-separated: NAME, NAME:SPLIT (c3-m, c3-m:dev, ...), or a task's YAML file"),
    ] = "",
    data: Annotated[
        list[str] | None,
        typer.Option(help="Folder or file of the questions; once for all tasks, or once per task", show_default=False),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Say which tasks there are, and which data is here.")] = False,
    download: Annotated[bool, typer.Option("--download", help="Fetch missing data from the task's address.")] = False,
    prompts: Annotated[str, typer.Option(help="Prompt names, comma-separated, or all")] = "all",
    methods: Annotated[str, typer.Option(help="likelihood, generation, or both, comma-separated")] = "likelihood",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Score a fixed random sample of this many questions per task")
    ] = None,
    limit_passages: Annotated[
        int | None, typer.Option(min=1, help="Score a fixed random sample of this many whole passages per task")
    ] = None,
    shots: Annotated[str, typer.Option(help="Examples before each question; 0,5 scores both")] = "0",
    chat: Annotated[str, typer.Option(help="The model's chat template: off, on, or both and the difference")] = "off",
    orders: Annotated[int, typer.Option(min=1, help="Rotations of the options, where the prompt shows them")] = 1,
    normalize: Annotated[
        str, typer.Option(help="What compares option texts: sum, characters, bytes or unconditional")
    ] = "sum",
    on_long: Annotated[
        str, typer.Option(help="Prompts longer than the model: cut (the passage's middle) or refuse")
    ] = "cut",
    batch_size: Annotated[str, typer.Option(help="Questions at once, or auto; changes the speed only")] = "auto",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest generated answer")] = 64,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, or auto")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1; several with commas")] = "auto",
    devices: Annotated[
        int | None, typer.Option(min=1, help="This many GPUs (or processes on a CPU) share the questions")
    ] = None,
    backend: Annotated[str, typer.Option(help="local, vllm, or server")] = "local",
    server: Annotated[
        str | None, typer.Option(help="Address of an OpenAI-compatible server, such as http://localhost:8000/v1")
    ] = None,
    server_model: Annotated[str | None, typer.Option(help="The model's name on the server")] = None,
    threads: Annotated[int | None, typer.Option(min=1)] = None,
    confidence: Annotated[float, typer.Option(help="Of all intervals")] = 0.95,
    out: Annotated[
        Path | None, typer.Option(help="Folder for rows and scores (must not exist; OUT.partial resumes)")
    ] = None,
    show_prompt: Annotated[
        int | None, typer.Option(min=1, help="Print question N exactly as the model reads it; score nothing")
    ] = None,
    json_: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Score a model on multiple-choice benchmarks, with clustered intervals.

    Example: panda eval runs/microworld-seed1/models/instruct --tasks c3-m --data c3_dev.jsonl --limit 100
    """
    limit_threads(threads)
    if list_:
        from pandallm.pipeline.show_tasks import print_task_list
        from pandallm.tasks.open import task_status

        print_task_list(task_status([Path(d) for d in data or []]), json_)
        return
    from pandallm.model.folder import check_model_folder, resolve_dtype
    from pandallm.pipeline.evaluate_one import BackendOptions, batch_tokens, evaluate_folder, load_tasks, make_spec
    from pandallm.pipeline.show import print_scores
    from pandallm.pipeline.show_prompt import print_prompts, prompt_texts
    from pandallm.terminal import progress

    asked = server_model or model
    if model is None and not (backend == "server" and server_model):
        raise BadInput("No model given; name its folder, or with --backend server the model's name.")
    if not _names(tasks):
        raise BadInput("No task given; name one with --tasks, for example --tasks c3-m; --list tells which there are.")
    if backend != "server" or show_prompt:
        check_model_folder(Path(model or ""))
    if out is not None and out.exists():
        raise BadInput(f"{out} exists already; give a new folder with --out.")
    where = _devices(device, devices)
    wanted = _numbers(shots, "--shots")
    with progress(quiet) as shown:
        loaded = load_tasks(_names(tasks), data or [], shown, shots=any(wanted), download=download)
        spec = make_spec(
            (asked or "") if backend == "server" else Path(model or "").absolute().name,
            loaded.tasks,
            {
                "prompts": "all" if prompts == "all" else _names(prompts),
                "methods": _names(methods),
                "limit": {"likelihood": limit, "generation": limit, "passages": limit_passages},
                "shots": wanted,
                "chat": chat,
                "orders": orders,
                "normalize": normalize,
                "on_long": on_long,
                "max_new_tokens": max_new_tokens,
                "dtype": resolve_dtype(dtype, where[0]) if dtype == "auto" else dtype,
                "batch_tokens": batch_tokens(batch_size, where),
                "confidence": confidence,
            },
        )
        if show_prompt:
            texts = prompt_texts(Path(model or ""), loaded, spec, show_prompt)
        else:
            options = BackendOptions(backend, server, server_model, where, threads)
            scores = evaluate_folder(model or "", loaded, spec, out=out, options=options, progress=shown)
    result: Any = texts if show_prompt else scores
    if json_:
        print(json.dumps(result, ensure_ascii=False))
    elif show_prompt:
        print_prompts(texts)
    else:
        print_scores(scores)


def _devices(device: str, count: int | None) -> tuple[str, ...]:
    """`--device cuda:0,cuda:1`, or `--devices 2`: that many GPUs, or processes on the CPU where there is none."""
    named = _names(device) or ("auto",)
    if count is None or count == 1:
        return named
    if len(named) > 1:
        raise BadInput("--devices counts them and --device names them; give one of the two.")
    from pandallm.model.folder import resolve_device

    kind = resolve_device(named[0])
    return tuple(f"cuda:{i}" for i in range(count)) if kind.startswith("cuda") else (kind,) * count
