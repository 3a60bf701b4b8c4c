"""Cleaning: the ledger adds up, the bytes do not depend on the workers, duplicates and leaks go."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pandallm.data.clean import audit_ledger, clean_corpus
from pandallm.data.clean_spec import LanguageStep, LengthStep, NormalizeStep, RepetitionStep
from pandallm.data.corpus import corpus_examples, held_out_examples, part_batches
from pandallm.data.decontaminate import ContaminationIndex
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


@settings(max_examples=40, deadline=None)
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


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("甲乙,丙 A", max_size=30), max_size=4), st.lists(st.text("甲乙,丙 a", max_size=40), max_size=6))
def test_the_contamination_index_equals_plain_search(questions: list[str], texts: list[str]) -> None:
    def plain(text: str) -> str:
        return "".join(c for c in text.lower() if c.isalnum())

    grams = {plain(q)[i : i + 6] for q in questions for i in range(len(plain(q)) - 5)}
    index = ContaminationIndex({"t": [(str(i), q) for i, q in enumerate(questions)]}, 6)
    got = [hit is not None for hit in index.find(texts)]
    assert got == [any(g in plain(t) for g in grams) for t in texts]


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
        clean(tmp_path, ["{", "{"], spec())
    with pytest.raises(BadInput, match=r"in\.jsonl holds no record"):
        clean(tmp_path, [""], spec())
    with pytest.raises(BadInput, match=r"nothing is left to train on \(2 records read, too_short 2\)"):
        clean(tmp_path, [{"text": "a"}, {"text": "b"}], spec(clean=(LengthStep(min_chars=9),)))
    with pytest.raises(BadInput, match=r"held_out\.documents: 2 would leave nothing of source s"):
        clean(tmp_path, [{"text": "a"}, {"text": "b"}], spec(held_out=HeldOutSpec(documents=2)))
    with pytest.raises(BadInput, match=r"sources\.s\.clean: language 'fr' is unknown; choose among zh, en"):
        clean(tmp_path, [{"text": "a"}], spec(clean=(LanguageStep(keep=("fr",)),)))


def test_an_audit_notices_a_changed_folder(tmp_path: Path) -> None:
    clean(tmp_path, [{"text": prose(i)} for i in range(4)], spec())
    ledger = read_json(tmp_path / "out/ledger.json")
    ledger["sources"]["s"]["kept"]["records"] = 3
    (tmp_path / "out/ledger.json").write_text(json.dumps(ledger))
    with pytest.raises(PandaError, match="does not add up"):
        audit_ledger(tmp_path / "out")
    ledger["sources"]["s"]["held_out"]["records"] = 1
    (tmp_path / "out/ledger.json").write_text(json.dumps(ledger))
    with pytest.raises(PandaError, match="source s, held_out: the ledger says 1 records, 0 bytes, the files hold 0"):
        audit_ledger(tmp_path / "out")


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
