"""A build of a corpus killed with -9 anywhere, and gone on with, gives the same bytes; only shards in hand are done again."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pandallm.data.clean import audit_ledger, clean_corpus
from pandallm.data.spec import CorpusSpec
from pandallm.store import digest_folder, read_json

HAN = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露结为霜金生丽水玉出昆冈"
SHARD_BYTES = 40_000
CONTAMINATION = {"t": [("q1", HAN[:40])]}
SPEC = CorpusSpec.model_validate(
    {
        "sources": {s: {"adapter": "text", "files": "-"} for s in ("a", "b")},
        "dedup": {"kind": "minhash"},
        "decontaminate": {"against": ["t"]},
        "held_out": {"documents": 5},
        "clean": [{"kind": "normalize"}, {"kind": "length", "min_chars": 20}],
    }
)

# The child dies just before (or just after) its n-th rename: every step of a build ends with one. `role` says whether the
# main process or a worker dies. Workers run this file's top too.
CHILD = """
import json, multiprocessing, os, signal, sys
from pathlib import Path

role, number, when, folder, workers = sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), int(sys.argv[5])
calls, replace = 0, os.replace

def counted(a, b):
    global calls
    calls += 1
    mine = "main" if multiprocessing.parent_process() is None else "worker"
    if mine == role and calls == number and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    replace(a, b)
    if mine == role and calls == number and when == "after":
        os.kill(os.getpid(), signal.SIGKILL)

os.replace = counted

from pandallm.data import clean_shard
from pandallm.data.clean import clean_corpus
from pandallm.errors import PandaError
from tests.invariant.test_data_kill import CONTAMINATION, SHARD_BYTES, SPEC, files_in

work = clean_shard._clean

def logged(cleaner, shard, into):
    with open(folder / "cleaned.log", "a") as f:
        f.write(f"{shard.number}\\n")
    work(cleaner, shard, into)

clean_shard._clean = logged
if __name__ == "__main__":
    try:
        clean_corpus("c", SPEC, files_in(folder.parent), folder / "out", contamination=CONTAMINATION, workers=workers,
                     shard_bytes=SHARD_BYTES)
    except PandaError as e:
        print(e)
        sys.exit(1)
"""


def prose(rng: random.Random) -> str:
    return "".join(rng.choices(HAN, k=120))


def files_in(folder: Path) -> dict[str, list[Path]]:
    return {"a": [folder / "a1.jsonl", folder / "a2.jsonl.gz"], "b": [folder / "b.jsonl"]}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, Any]]:
    """Folder of the input, digest and ledger of the corpus built in one go."""
    folder = tmp_path_factory.mktemp("kill")
    rng = random.Random(3)
    lines: list[str] = []
    for i in range(700):
        text = prose(rng)
        if i % 9 == 5:
            text = str(json.loads(lines[rng.randrange(len(lines) // 9 + 1) * 9])["text"])
            text = text if i % 2 else text[:50] + "雪" + text[51:]
        if i % 50 == 7:
            text = text[:30] + HAN[3:30] + text[60:]
        lines.append(json.dumps({"text": text, "i": i}, ensure_ascii=False))
    for i in range(28, 700, 101):
        lines[i] = "{broken"
    lines[500:500] = ["", ""]
    data = ["\n".join(lines[a:b]).encode() + b"\n" for a, b in ((0, 350), (350, 420), (420, 702))]
    files = files_in(folder)
    files["a"][0].write_bytes(data[0])
    files["a"][1].write_bytes(gzip.compress(data[1], mtime=0))
    files["b"][0].write_bytes(data[2])
    facts = clean_corpus("c", SPEC, files, folder / "out", contamination=CONTAMINATION, shard_bytes=SHARD_BYTES)
    assert audit_ledger(folder / "out") == facts
    assert set(facts["total"]["dropped"]) == {"duplicate", "contaminated"}
    return folder, digest_folder(folder / "out"), facts


def start(folder: Path, workers: int, role: str = "nobody", number: int = 0, when: str = "") -> "subprocess.Popen[str]":
    folder.mkdir(exist_ok=True)
    script = folder / "child.py"
    script.write_text(CHILD)
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, str(script), role, str(number), when, str(folder), str(workers)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True)


def finish(folder: Path, workers: int) -> None:
    child = start(folder, workers)
    assert child.communicate()[0] == ""
    assert child.returncode == 0


def cleaned(folder: Path) -> int:
    """How many shards were cleaned, repeated ones each time."""
    return len((folder / "cleaned.log").read_text().split())


def shards(out: Path) -> int:
    return len(list((out / "examples").iterdir()))


@pytest.mark.parametrize(("step", "when"), [(9, "before"), (16, "after")])
def test_one_process_killed_again_and_again(made: Any, tmp_path: Path, step: int, when: str) -> None:
    data, digest, facts = made
    folder = data / f"one-{step}-{when}"
    kills = 0
    while True:
        child = start(folder, 1, "main", step, when)
        child.wait()
        if child.returncode == 0:
            break
        assert child.returncode == -signal.SIGKILL
        assert not (folder / "out/ledger.json").is_file()
        kills += 1
        assert kills < 30
    assert kills >= 2
    assert digest_folder(folder / "out") == digest
    assert read_json(folder / "out/ledger.json") == facts
    assert cleaned(folder) <= shards(folder / "out") + kills


@pytest.mark.parametrize(("workers", "after"), [(2, 2), (3, 1)])
def test_the_main_process_killed_from_outside(made: Any, workers: int, after: int) -> None:
    data, digest, _ = made
    folder = data / f"main-{workers}"
    child = start(folder, workers)
    deadline = time.monotonic() + 60
    while len(list((folder / "out/.shards").glob("0*"))) < after and child.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    finish(folder, 1)
    assert digest_folder(folder / "out") == digest
    assert cleaned(folder) <= shards(folder / "out") + workers


@pytest.mark.parametrize(("workers", "number"), [(2, 2), (3, 5)])
def test_a_worker_killed(made: Any, workers: int, number: int) -> None:
    """Told in one sentence, and what other workers did stays."""
    data, digest, _ = made
    folder = data / f"worker-{workers}"
    child = start(folder, workers, "worker", number, "before")
    told = child.communicate()[0]
    assert child.returncode == 1
    assert told == (f"A worker process died (often for lack of memory); run again with fewer workers than {workers}.\n")
    finish(folder, workers)
    assert digest_folder(folder / "out") == digest


def test_a_finished_build_is_not_done_again(made: Any) -> None:
    data, digest, facts = made
    before = {p: p.stat().st_mtime_ns for p in (data / "out").rglob("*.parquet")}
    again = clean_corpus("c", SPEC, files_in(data), data / "out", contamination=CONTAMINATION, shard_bytes=SHARD_BYTES)
    assert again == facts
    assert {p: p.stat().st_mtime_ns for p in (data / "out").rglob("*.parquet")} == before
    assert digest_folder(data / "out") == digest


def test_shards_of_other_settings_are_not_used(made: Any, tmp_path: Path) -> None:
    """What a killed build left under other settings is cleared, parts already written too."""
    data, digest, _ = made
    other = SPEC.model_copy(update={"held_out": SPEC.held_out.model_copy(update={"documents": 3})})
    out = tmp_path / "out"
    clean_corpus("c", other, files_in(data), out, contamination=CONTAMINATION, shard_bytes=SHARD_BYTES // 2)
    clean_corpus("c", SPEC, files_in(data), out, contamination=CONTAMINATION, shard_bytes=SHARD_BYTES)
    assert digest_folder(out) == digest
