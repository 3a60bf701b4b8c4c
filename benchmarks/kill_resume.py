"""Trainings killed with -9 again and again, against one that nobody killed.

    python benchmarks/kill_resume.py [--quick] [--kills N] [--seed N] [--work FOLDER] [--json FILE]

A tiny Llama (two layers, width 32) trains 40 steps with AdamW in float32 and saves after every step. Each life is a process of its own, killed by SIGKILL
- at a random moment,
- in a save: before a random one of the file operations of its first three saves (flush, rename, removal), or with half of a shard written, or
- as one rank of two (gloo on the CPU), at a random moment or in a save: the other rank must then end by itself;
and gone on with until a life comes to its end. Then the model's file, and the numbers of every step in the log but the seconds, must be those of the
training that nobody killed, bit for bit (of two ranks: of one with two ranks). Kills are dealt to the three kinds in turn; --kills (default 54) is the least
number of them. `--quick`: 6.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import result, write
from tests.invariant.killing import Death, live, make_inputs, same

from pandallm.train.checkpoint import complete_checkpoints

GOALS = {"kills": 50, "equal": 1.0}
STEPS = 40
KINDS = ("random moment", "in a save", "one rank of two")
#: A chain of lives is left to its end after so many kills, so that there are several chains of each kind.
KILLS_PER_CHAIN = 6


def draw(kind: str, rng: random.Random, seconds: float) -> Death:
    """How the next life of this kind ends; `seconds`: how long a whole one takes."""
    several = kind == "one rank of two"
    rank = rng.randrange(2) if several else 0
    if kind == "random moment" or (several and rng.random() < 0.5):
        return Death(rank=rank, seconds=rng.uniform(0.05, 1.0) * seconds)
    if rng.random() < 0.2:
        return Death(rank=rank, shard=rng.randint(1, 3))
    return Death(rank=rank, operation=rng.randint(1, 6 if rank else 40))


def saved(work: Path) -> int:
    found = complete_checkpoints(work)
    return int(found[-1].name.removeprefix("step-")) if found else 0


def chain(
    kind: str, kills: int, base: Path, packs: Path, whole: Path, work: Path, rng: random.Random, seconds: float
) -> dict[str, Any]:
    """Lives until one comes to its end, the first `kills` of them killed (fewer where a death comes too late)."""
    ranks = 2 if kind == "one rank of two" else 1
    deaths: list[dict[str, Any]] = []
    while True:
        death = draw(kind, rng, seconds) if len(deaths) < kills else None
        life = live(base, packs, work, death, ranks)
        if not life.killed:
            break
        assert death is not None
        how = {k: v for k, v in vars(death).items() if v is not None}
        others = {"others_ended_seconds": round(life.others, 2)} if ranks > 1 else {}
        deaths.append({"death": how, "saved_step": saved(work), **others})
        print(
            f"{kind}: killed by {how}, step {deaths[-1]['saved_step']} of {STEPS} is saved", file=sys.stderr, flush=True
        )
    return {"kind": kind, "kills": deaths, "equal": same(whole, work)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="6 kills")
    parser.add_argument("--kills", type=int, default=54)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="a temporary folder where left out")
    parser.add_argument("--json")
    options = parser.parse_args()
    wanted = 6 if options.quick else options.kills
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(dir=options.work) as temporary:
        folder = Path(temporary)
        base, packs = make_inputs(folder, STEPS)
        wholes: dict[int, tuple[Path, float]] = {}
        for ranks in (1, 2):
            live(base, packs, folder / f"warm-{ranks}", None, ranks)  # starts the server that forks the processes
            began = time.monotonic()
            live(base, packs, folder / f"whole-{ranks}", None, ranks)
            wholes[ranks] = (folder / f"whole-{ranks}", time.monotonic() - began)
        repeatable = [same(folder / f"warm-{ranks}", wholes[ranks][0]) for ranks in (1, 2)]
        chains: list[dict[str, Any]] = []
        while (kills := sum(len(c["kills"]) for c in chains)) < wanted:
            kind = KINDS[len(chains) % len(KINDS)]
            ranks = 2 if kind == "one rank of two" else 1
            per_chain = 2 if options.quick else KILLS_PER_CHAIN
            work = folder / f"chain-{len(chains)}"
            chains.append(chain(kind, per_chain, base, packs, wholes[ranks][0], work, rng, wholes[ranks][1]))
            print(f"{kind}: {'equal' if chains[-1]['equal'] else 'NOT EQUAL'}", file=sys.stderr, flush=True)
    by_kind = {
        kind: {
            "kills": sum(len(c["kills"]) for c in chains if c["kind"] == kind),
            "chains": sum(c["kind"] == kind for c in chains),
            "equal_chains": sum(c["kind"] == kind and c["equal"] for c in chains),
        }
        for kind in KINDS
    }
    ended = [k["others_ended_seconds"] for c in chains for k in c["kills"] if "others_ended_seconds" in k]
    figures = {
        "kills": kills,
        "chains": len(chains),
        "equal": sum(c["equal"] for c in chains) / len(chains),
        "unkilled_twice_equal": {"one process": repeatable[0], "two ranks": repeatable[1]},
        "by_kind": by_kind,
        "other_rank_ended_seconds_max": max(ended, default=None),
        "log": chains,
    }
    for kind, counts in by_kind.items():
        print(f"{kind:16} {counts['kills']:3} kills in {counts['chains']:2} chains, {counts['equal_chains']:2} equal")
    met = kills >= GOALS["kills"] and figures["equal"] == 1.0
    print(f"{kills} kills, {figures['equal']:.0%} of the chains equal (goal: {GOALS['kills']} kills, all)")
    command = "python benchmarks/kill_resume.py" + (
        " --quick" if options.quick else f" --kills {wanted} --seed {options.seed}"
    )
    write(options.json, result("kill_resume", figures, GOALS, met, command))


if __name__ == "__main__":
    main()
