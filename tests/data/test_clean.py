"""Cleaning: the ledger adds up, the bytes do not depend on the workers, duplicates and leaks go."""

import errno
import gzip
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pandallm.data.clean import audit_ledger, clean_corpus
from pandallm.data.clean_shard import clean_shard
from pandallm.data.clean_spec import LanguageStep, LengthStep, NormalizeStep, RepetitionStep
from pandallm.data.corpus import corpus_examples, held_out_examples, part_batches
from pandallm.data.decide import id_ranks
from pandallm.data.spec import (
    CorpusSpec,
    DecontaminateSpec,
    ExactDedup,
    HeldOutSpec,
    MinhashDedup,
    NoDedup,
    SourceSpec,
)
from pandallm.data.steps import normalize, run_steps
from pandallm.data.types import Turn
from pandallm.errors import BadInput, PandaError
from pandallm.progress import Silent
from pandallm.store import digest_folder, read_json, read_jsonl

HAN = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳云腾致雨露结为霜金生丽水玉出昆冈"


def prose(seed: int, n: int = 120) -> str:
    rng = random.Random(seed)
    return "".join(rng.choice(HAN) for _ in range(n))


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r, ensure_ascii=False)) + "\n" for r in rows))
    return path


def spec(*names: str, adapter: str = "text", **more: Any) -> CorpusSpec:
    return CorpusSpec(sources={n: SourceSpec(adapter=adapter, files="-") for n in names or ("s",)}, **more)


def clean(folder: Path, rows: list[Any], corpus: CorpusSpec, **more: Any) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    return clean_corpus("c", corpus, {"s": [write(folder / "in.jsonl", rows)]}, folder / "out", **more)


def dropped_rows(folder: Path) -> list[dict[str, Any]]:
    return [row for batch in part_batches(folder, "dropped") for row in batch.to_pylist()]


LINES = st.one_of(
    st.integers(0, 6).map(lambda i: {"text": prose(i)}),
    st.integers(0, 6).map(lambda i: {"text": prose(i), "n": 1}),
    st.integers(0, 3).map(lambda i: {"text": prose(i)[:60] + "云" + prose(i)[60:]}),
    st.sampled_from(
        [{"text": ""}, {"text": "短"}, {"no": "text"}, {"text": 5}, "{broken", "[1]", "", '{"text": "\\ud800"}']
    ),
    st.text(max_size=30).map(lambda t: {"text": t}),
)


@settings(max_examples=20, deadline=None)
@given(
    a=st.lists(LINES, min_size=1, max_size=12),
    b=st.lists(LINES, min_size=1, max_size=12),
    dedup=st.sampled_from([NoDedup(), ExactDedup(), MinhashDedup()]),
)
def test_every_record_and_byte_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, a: list, b: list, dedup: Any
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    a, b = [{"text": prose(100)}, *a], [{"text": prose(101)}, {"text": prose(102)}, *b]
    files = {"a": [write(folder / "a.jsonl", a)], "b": [write(folder / "b.jsonl", b)]}
    corpus = spec(
        "a",
        "b",
        dedup=dedup,
        clean=(NormalizeStep(), LengthStep(min_chars=3), LanguageStep(), RepetitionStep()),
        decontaminate=DecontaminateSpec(against=("t",)),
    )
    facts = clean_corpus("c", corpus, files, folder / "out", contamination={"t": [("q1", prose(3)[20:60])]})
    assert audit_ledger(folder / "out") == facts
    for name in ("a", "b"):
        lines = [line for line in files[name][0].read_bytes().split(b"\n") if line.strip()]
        entry = facts["sources"][name]
        assert entry["records"] == len(lines)
        assert entry["bytes"] == sum(map(len, lines))
        parts = [entry["kept"], entry["held_out"], entry["quarantined"], *entry["dropped"].values()]
        assert sum(p["records"] for p in parts) == entry["records"]
        assert sum(p["bytes"] for p in parts) == entry["bytes"]
    kept = list(corpus_examples(folder / "out"))
    assert len(kept) == facts["total"]["kept"]["records"]
    assert len({e.id for e in kept}) == len(kept)
    assert all(prose(3)[20:60] not in e.text for e in kept)


def test_the_bytes_do_not_depend_on_the_workers(tmp_path: Path) -> None:
    rows = [{"text": prose(i % 2300, 40)} for i in range(4500)]
    corpus = spec(dedup=MinhashDedup(), held_out=HeldOutSpec(documents=50))
    facts = [clean(tmp_path / str(w), rows, corpus, workers=w) for w in (1, 2)]
    assert facts[0] == facts[1]
    assert digest_folder(tmp_path / "1/out") == digest_folder(tmp_path / "2/out")
    assert facts[0]["total"]["dropped"] == {
        "duplicate": {"records": 2200, "bytes": facts[0]["total"]["bytes"] * 2200 // 4500}
    }
    assert facts[0]["total"]["held_out"]["records"] == 50


def test_near_duplicates_are_verified_and_the_first_stays(tmp_path: Path) -> None:
    base = prose(1, 400)
    near = base[:200] + "雪" + base[200:]
    unlike = base[:200] + prose(2, 200)
    full_width = "ＡＢＣ，" + base
    rows = [{"text": t} for t in (base, near, unlike, full_width, "ABC, " + base, "ABC," + base)]
    facts = clean(tmp_path / "minhash", rows, spec(dedup=MinhashDedup()))
    assert [e.text for e in corpus_examples(tmp_path / "minhash/out")] == [base, unlike]
    assert facts["total"]["dropped"]["duplicate"]["records"] == 4
    dropped = dropped_rows(tmp_path / "minhash/out")
    first = next(corpus_examples(tmp_path / "minhash/out")).id
    assert {d["detail"] for d in dropped} == {first}
    assert (dropped[0]["file"], dropped[0]["line"]) == ("in.jsonl", 2)
    clean(tmp_path / "exact", rows, spec())
    # Width folds; a blank that one copy has and the other has not does not.
    assert [e.text for e in corpus_examples(tmp_path / "exact/out")] == [base, near, unlike, full_width, "ABC, " + base]


def test_chained_near_duplicates_keep_what_has_no_like_left(tmp_path: Path) -> None:
    """b is like a, c is like b, c is not like a: c stays, since b went."""
    a = prose(5, 300)
    b, c = prose(6, 28) + a[28:], prose(6, 28) + a[28:272] + prose(7, 28)
    clean(tmp_path, [{"text": t} for t in (a, b, c)], spec(dedup=MinhashDedup(permutations=128, bands=64)))
    assert [e.text for e in corpus_examples(tmp_path / "out")] == [a, c]


def test_contaminated_examples_are_named(tmp_path: Path) -> None:
    question = prose(9, 30)
    spaced = "。".join(
        [prose(1, 30), question[5:11], question[11:19], prose(2, 30)]
    )  # 14 characters across a full stop
    short = prose(3, 30) + question[:12] + prose(4, 30)
    corpus = spec(decontaminate=DecontaminateSpec(against=("c3",)))
    facts = clean(tmp_path, [{"text": spaced}, {"text": short}], corpus, contamination={"c3": [("7", question)]})
    assert facts["total"]["dropped"]["contaminated"]["records"] == 1
    dropped = dropped_rows(tmp_path / "out")
    assert (dropped[0]["reason"], dropped[0]["detail"]) == ("contaminated", "c3:7")


def test_held_out_by_content_with_its_copies(tmp_path: Path) -> None:
    rows = [{"text": prose(i)} for i in range(30)]
    corpus = spec(held_out=HeldOutSpec(documents=5), dedup=NoDedup())
    clean(tmp_path / "a", rows + rows[:15], corpus)
    held = [e.text for e in held_out_examples(tmp_path / "a/out")]
    kept = [e.text for e in corpus_examples(tmp_path / "a/out")]
    assert len(set(held)) == 5
    assert not set(held) & set(kept)
    assert len(held) + len(kept) == 45
    clean(tmp_path / "b", rows[::-1], corpus)
    assert {e.text for e in held_out_examples(tmp_path / "b/out")} == set(held)


def test_ids_are_stable_and_copies_distinguishable(tmp_path: Path) -> None:
    rows = [{"text": prose(1)}, {"text": prose(2)}, {"text": prose(1)}]
    clean(tmp_path / "a", rows, spec(dedup=NoDedup()))
    clean(tmp_path / "b", rows[1:], spec(dedup=NoDedup()))
    a, b = ([e.id for e in corpus_examples(tmp_path / x / "out")] for x in "ab")
    assert a[2] == a[0] + "-2"
    assert b == [a[1], a[0]]


def test_turns_and_quarantine_reach_the_folder(tmp_path: Path) -> None:
    rows = [{"instruction": "问", "input": "", "output": "答"}, "{", {"instruction": "问"}]
    clean(tmp_path, rows, spec(adapter="alpaca"))
    (example,) = corpus_examples(tmp_path / "out")
    assert example.turns == (Turn("问\n", False), Turn("答", True))
    assert (example.source, example.language, example.utf8_bytes) == ("s", "zh", 7)
    quarantine = list(read_jsonl(tmp_path / "out/quarantine.jsonl"))
    assert [(q["file"], q["line"]) for q in quarantine] == [("in.jsonl", 2), ("in.jsonl", 3)]
    assert "`output` is missing" in quarantine[1]["error"]
    files = [p for p in (tmp_path / "out").rglob("*") if p.is_file()]
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in files if ".shards" not in p.parts) == [
        "examples/00000.parquet",
        "ledger.json",
        "quarantine.jsonl",
    ]


def test_max_records_and_a_source_with_its_own_steps(tmp_path: Path) -> None:
    source = SourceSpec(adapter="text", files="-", max_records=3, clean=(LengthStep(min_chars=200),))
    corpus = CorpusSpec(sources={"s": source, "t": SourceSpec(adapter="text", files="-")}, dedup=NoDedup())
    path = write(tmp_path / "in.jsonl", [{"text": prose(i, 100 * (i + 1))} for i in range(5)])
    facts = clean_corpus("c", corpus, {"s": [path], "t": [path]}, tmp_path / "out")
    assert facts["sources"]["s"]["records"] == 3
    assert facts["sources"]["s"]["dropped"]["too_short"]["records"] == 1
    assert facts["sources"]["t"]["kept"]["records"] == 5


def test_bad_input_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        BadInput,
        match=r"corpora\.c\.sources\.s: none of its 2 records fits adapter text; .*in\.jsonl:1: not valid JSON",
    ):
        clean(tmp_path, ["not json", "{"], spec())
    with pytest.raises(BadInput, match=r"in\.jsonl holds no record"):
        clean(tmp_path, [""], spec())
    with pytest.raises(BadInput, match=r"nothing is left to train on \(2 records read, too_short 2\)"):
        clean(tmp_path, [{"text": "a"}, {"text": "b"}], spec(clean=(LengthStep(min_chars=9),)))
    with pytest.raises(BadInput, match=r"held_out\.documents: 2 would leave nothing of source s"):
        clean(tmp_path, [{"text": "a"}, {"text": "b"}], spec(held_out=HeldOutSpec(documents=2)))
    with pytest.raises(BadInput, match=r"sources\.s\.clean: language 'fr' is unknown; choose among zh, en"):
        clean(tmp_path, [{"text": "a"}], spec(clean=(LanguageStep(keep=("fr",)),)))


def test_a_contaminated_text_is_nobodys_kept_copy(tmp_path: Path) -> None:
    """What is like a contaminated text, but not contaminated itself, stays."""
    question = prose(9, 13)
    leak = prose(1, 200) + question + prose(2, 200)
    near = prose(1, 200) + question[:6] + "雪" + question[7:] + prose(2, 200)
    corpus = spec(dedup=MinhashDedup(), decontaminate=DecontaminateSpec(against=("t",)))
    rows = [{"text": leak}, {"text": near}, {"text": near}, {"text": leak}]
    facts = clean(tmp_path, rows, corpus, contamination={"t": [("q", question)]})
    assert [e.text for e in corpus_examples(tmp_path / "out")] == [near]
    assert {k: v["records"] for k, v in facts["total"]["dropped"].items()} == {"contaminated": 2, "duplicate": 1}


@pytest.mark.parametrize("action", ["drop", "report"])
def test_the_contamination_report_of_a_corpus(tmp_path: Path, action: Any) -> None:
    question, other = prose(9, 30), prose(10, 30)
    texts = [prose(1, 50) + question, prose(2, 80), question, prose(3, 50) + question[:14], prose(2, 80), question]
    corpus = spec(dedup=ExactDedup(), decontaminate=DecontaminateSpec(against=("t",), action=action))
    contamination = {"t": [("q1", question), ("q2", other)]}
    clean(tmp_path, [{"text": t} for t in texts], corpus, contamination=contamination)
    ids = {e.id for e in corpus_examples(tmp_path / "out")} | {d["id"] for d in dropped_rows(tmp_path / "out")}
    report = read_json(tmp_path / "out/contamination.json")
    assert (report["ngram_chars"], report["action"]) == (13, action)
    task = report["tasks"]["t"]
    assert (task["questions"], task["touched"], task["documents"]) == (2, 1, 4)
    (row,) = task["by_question"]
    assert (row["question"], row["share"], row["documents_total"]) == ("q1", 1.0, 4)
    assert [d["grams"] for d in row["documents"]] == [18, 18, 18, 2]
    fates = [d["fate"] for d in row["documents"]]
    assert fates == (["dropped"] * 4 if action == "drop" else ["kept", "kept", "duplicate", "kept"])
    assert {d["id"] for d in row["documents"]} <= ids
    assert task["exclude"] == ([] if action == "drop" else ["q1"])


def test_held_out_share_and_sources_with_their_own(tmp_path: Path) -> None:
    sources = {
        "a": SourceSpec(adapter="text", files="-"),
        "b": SourceSpec(adapter="text", files="-", held_out=HeldOutSpec(documents=3, share=0.02)),
        "c": SourceSpec(adapter="text", files="-", held_out=HeldOutSpec()),
    }
    corpus = CorpusSpec(sources=sources, held_out=HeldOutSpec(share=0.1))
    files = {s: [write(tmp_path / s, [{"text": prose(100 * i + j)} for j in range(40)])] for i, s in enumerate("abc")}
    for path in files.values():
        path[0] = path[0].rename(path[0].with_suffix(".jsonl"))
    facts = clean_corpus("c", corpus, files, tmp_path / "out")
    assert {s: facts["sources"][s]["held_out"]["records"] for s in "abc"} == {"a": 4, "b": 3, "c": 0}
    greedy = corpus.model_copy(update={"sources": {"a": SourceSpec(adapter="text", files="-")}})
    greedy = greedy.model_copy(update={"held_out": HeldOutSpec(share=0.99)})
    with pytest.raises(
        BadInput, match=r"corpora\.c\.held_out\.share: 0\.99 would leave nothing of source a, which has 40"
    ):
        clean_corpus("c", greedy, {"a": files["a"]}, tmp_path / "greedy")
    assert not [p for p in (tmp_path / "greedy").rglob("*") if p.is_file()]


def test_quality_is_read_from_the_record(tmp_path: Path) -> None:
    rows = [
        {"text": prose(1), "q": 0.25},
        {"text": prose(2)},
        {"text": prose(3), "q": "good"},
        {"text": prose(4), "q": 1},
    ]
    corpus = CorpusSpec(sources={"s": SourceSpec(adapter="text", files="-", quality_field="q")})
    facts = clean(tmp_path, rows, corpus)
    qualities = [q for b in part_batches(tmp_path / "out", columns=["quality"]) for q in b["quality"].to_pylist()]
    assert qualities == [0.25, None, 1.0]
    assert facts["total"]["quarantined"]["records"] == 1
    (row,) = read_jsonl(tmp_path / "out/quarantine.jsonl")
    assert row["error"] == "field `q` (quality_field) is not a number but str"


def test_lines_are_numbered_through_a_file_that_is_cut(tmp_path: Path) -> None:
    rows = [
        "",
        *({"text": prose(i), "n": i} for i in range(50)),
        "{broken",
        "",
        *({"text": prose(i)} for i in range(50)),
    ]
    facts = clean(tmp_path, rows, spec(), shard_bytes=1_500)
    assert len(list((tmp_path / "out/examples").iterdir())) > 3
    assert facts["total"]["dropped"]["duplicate"]["records"] == 50
    assert [d["line"] for d in dropped_rows(tmp_path / "out")] == list(range(54, 104))
    assert [q["line"] for q in read_jsonl(tmp_path / "out/quarantine.jsonl")] == [52]
    clean(tmp_path / "whole", rows, spec())
    examples = list(corpus_examples(tmp_path / "out"))
    assert examples == list(corpus_examples(tmp_path / "whole/out"))
    assert dropped_rows(tmp_path / "out") == dropped_rows(tmp_path / "whole/out")
    assert audit_ledger(tmp_path / "out") == facts


def test_max_records_over_files_and_shards(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{i}.jsonl", [{"text": prose(10 * i + j)} for j in range(10)]) for i in range(4)]
    source = SourceSpec(adapter="text", files="-", max_records=23)
    facts = clean_corpus("c", CorpusSpec(sources={"s": source}), {"s": files}, tmp_path / "out", shard_bytes=1_500)
    assert facts["total"]["records"] == 23
    assert [e.text for e in corpus_examples(tmp_path / "out")] == [prose(i) for i in range(23)]


def test_what_stands_before_damage_is_kept(tmp_path: Path) -> None:
    rng = random.Random(5)
    lines = [json.dumps({"text": "".join(rng.choices(HAN, k=300))}, ensure_ascii=False) + "\n" for _ in range(400)]
    packed = gzip.compress("".join(lines).encode())
    (tmp_path / "in.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    told: list[str] = []
    progress = Silent()
    progress.say = told.append  # type: ignore[method-assign]
    facts = clean_corpus("c", spec(), {"s": [tmp_path / "in.jsonl.gz"]}, tmp_path / "out", progress=progress)
    kept = facts["total"]["kept"]["records"]
    assert 100 < kept < 300
    assert facts["total"]["quarantined"]["records"] == 1
    assert len(told) == 1
    assert f"in.jsonl.gz:{kept + 1}: the compressed file is damaged here" in told[0]
    assert audit_ledger(tmp_path / "out") == facts


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_told_and_the_same_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    rows = [{"text": prose(i)} for i in range(60)]
    clean(tmp_path / "a", rows, spec(), shard_bytes=4_000)

    with monkeypatch.context() as m:
        m.setattr("pandallm.data.clean.clean_shard", full_after_two)
        with pytest.raises(
            PandaError, match=r"clean c: the disk of .*out is full; what is done is kept: free some space"
        ):
            clean(tmp_path / "b", rows, spec(), shard_bytes=4_000, workers=workers)
    shards = sorted((tmp_path / "b/out/.shards").glob("0*"))
    assert [s.name for s in shards[:2]] == ["00000", "00001"]
    before = shards[0].stat().st_mtime_ns
    with monkeypatch.context() as m:
        m.setattr("pandallm.data.clean.write_shard", full_disk)
        with pytest.raises(PandaError, match="is full"):
            clean_again(tmp_path / "b")
    assert shards[0].stat().st_mtime_ns == before
    clean_again(tmp_path / "b")
    assert digest_folder(tmp_path / "b/out") == digest_folder(tmp_path / "a/out")


def full_disk(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def full_after_two(cleaner: Any, shard: Any) -> int:
    return full_disk() if shard.number > 1 else clean_shard(cleaner, shard)


def clean_again(folder: Path) -> None:
    clean_corpus("c", spec(), {"s": [folder / "in.jsonl"]}, folder / "out", shard_bytes=4_000)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=30))
def test_ranks_of_equal_ids(pairs: list[tuple[int, int]]) -> None:
    digests = [a.to_bytes(8, "big") + b.to_bytes(4, "big") for a, b in pairs]
    ranks = id_ranks(np.frombuffer(b"".join(digests), np.dtype((np.void, 12))))
    assert ranks.tolist() == [digests[:i].count(d) for i, d in enumerate(digests)]


def test_steps_by_hand() -> None:
    assert normalize("a\r\nb\rc\x00\ufeff\n\n\n \n\nd，e\u0301") == "a\nb\nc\n\nd，é"

    def reason(text: str, step: Any) -> str | None:
        return run_steps((Turn(text, True),), (step,))[1]

    assert reason("ab", LengthStep(min_chars=3)) == "too_short"
    assert reason("abcd", LengthStep(max_chars=3)) == "too_long"
    assert reason("привет мир", LanguageStep()) == "language"
    assert reason("12345", LanguageStep()) == "language"
    assert reason("茶 tea", LanguageStep(keep=("zh",), min_share=0.25)) is None
    assert reason("茶 teapot", LanguageStep(keep=("zh",), min_share=0.25)) == "language"
    assert reason("点击这里了" * 3 + prose(1, 30), RepetitionStep()) == "repetition"
    assert reason("点击这里了" * 2 + prose(1, 30), RepetitionStep()) is None
    assert reason("呵" * 4, RepetitionStep()) is None
    assert reason("呵" * 40, RepetitionStep()) == "repetition"
    assert reason("\x00 ", NormalizeStep()) == "empty"
