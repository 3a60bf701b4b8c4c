"""Packs: every token accounted for, boundaries and masks exact, budgets kept."""

import errno
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from pandallm.data import tokenize
from pandallm.data.audit import audit_packs
from pandallm.data.clean import clean_corpus
from pandallm.data.corpus import corpus_examples
from pandallm.data.pack import pack_corpus
from pandallm.data.packs import Packs, decode_example, decode_row
from pandallm.data.spec import CorpusSpec, NoDedup, SourceSpec
from pandallm.data.tokenize import tokenizer_facts
from pandallm.data.types import Example
from pandallm.errors import BadInput, PandaError
from pandallm.store import digest_folder, write_json

EOS, BOS = 256, 257


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One token a byte, so that lengths can be told by hand."""
    return byte_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def byte_tokenizer(folder: Path, **config: Any) -> Path:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["</s>", "<s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"eos_token": "</s>", "bos_token": {"content": "<s>"}, **config})
    return folder


def corpus(folder: Path, **sources: tuple[str, list[dict[str, Any]]]) -> tuple[Path, dict[str, SourceSpec]]:
    """source=(adapter, records) -> a cleaned corpus."""
    folder.mkdir(exist_ok=True)
    files = {}
    for name, (_, rows) in sources.items():
        files[name] = [folder / f"{name}.json"]
        write_json(files[name][0], rows)
    specs = {name: SourceSpec(adapter=adapter, files="-") for name, (adapter, _) in sources.items()}
    clean_corpus("c", CorpusSpec(sources=specs, dedup=NoDedup()), files, folder / "cleaned")
    return folder / "cleaned", specs


def pack(cleaned: Path, tokenizer: Path, out: Path, specs: dict[str, SourceSpec], **more: Any) -> Packs:
    settings: dict[str, Any] = {
        "packing": "best_fit",
        "sequence_length": 32,
        "batch_sequences": 4,
        "seed": 1,
        "sources": specs,
    }
    if not {"epochs", "documents", "tokens", "steps"} & set(more):
        settings["epochs"] = 1
    facts = pack_corpus(cleaned, tokenizer, out, **settings | more)
    packs = Packs.open(out)
    assert packs.facts == facts
    assert audit_packs(out) == facts
    assert not (out / ".tokens").exists()
    return packs


def documents(n: int, seed: int = 0, longest: int = 60) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    return [{"text": "".join(rng.choice("abcdef") for _ in range(rng.randint(1, longest)))} for _ in range(n)]


def questions(n: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = random.Random(seed)

    def word(most: int) -> str:
        return "".join(rng.choice("uvwxyz") for _ in range(rng.randint(1, most)))

    return [{"instruction": word(20), "input": "", "output": word(20)} for _ in range(n)]


def expected(example: Example, bos: bool = False) -> tuple[list[int], list[int]]:
    """(token kinds, trained) of an example by hand: bytes as characters, EOS after each trained turn."""
    text: list[Any] = [BOS] if bos else []
    trained = [0] if bos else []
    for i, turn in enumerate(example.turns):
        text += list(turn.text)
        trained += [int(turn.train)] * len(turn.text)
        if turn.train and (i + 1 == len(example.turns) or not example.turns[i + 1].train):
            text.append(EOS)
            trained.append(1)
    return text, trained


def spell(ids: Any) -> list[Any]:
    names = dict(enumerate(sorted(pre_tokenizers.ByteLevel.alphabet())))
    names = {k: {"Ċ": "\n", "Ġ": " "}.get(v, v) for k, v in names.items()}
    return [names.get(int(i), int(i)) for i in ids]


def stretches(packs: Packs) -> list[tuple[int, int, list[Any], list[int]]]:
    """(row, example, tokens, mask) of each stretch of one example in a row."""
    found = []
    for r in range(packs.rows):
        row = packs.row(r)
        assert 0 < len(row.input_ids) <= packs.sequence_length
        ids = row.example_ids.tolist()
        cuts = [0, *(i for i in range(1, len(ids)) if ids[i] != ids[i - 1]), len(ids)]
        for a, b in pairwise(cuts):
            found.append((r, ids[a], spell(row.input_ids[a:b]), row.loss_mask[a:b].tolist()))
    return found


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    packing=st.sampled_from(["best_fit", "one_per_sequence", "concatenate"]),
    length=st.integers(2, 70),
    bos=st.booleans(),
)
def test_every_token_is_where_the_ledger_says(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: Path, seed: int, packing: str, length: int, bos: bool
) -> None:
    folder = tmp_path_factory.mktemp("pack")
    cleaned, specs = corpus(folder, t=("text", documents(15, seed)), q=("alpaca", questions(15, seed)))
    packs = pack(cleaned, tokenizer, folder / "out", specs, packing=packing, sequence_length=length, add_bos=bos)
    examples = {e.id: e for e in corpus_examples(cleaned)}
    table = pq.read_table(folder / "out/examples.parquet").to_pylist()
    got: dict[int, list[Any]] = {}
    trained = 0
    rows: dict[int, list[int]] = {}
    for row, number, text, mask in sorted(stretches(packs), key=lambda s: s[1]):
        example = examples[table[number]["id"]]
        want_text, want_mask = expected(example, bos)
        rows.setdefault(number, []).append(row)
        if example.source == "q":
            assert number not in got, "an example stands in one row"
            assert text == want_text[:length]
            assert mask == [0, *want_mask[1:length]]
        else:
            # A piece stands in its document as it is; its first token is no target.
            assert any(want_text[i : i + len(text)] == text for i in range(len(want_text)))
            assert mask[0] == 0
            assert all(mask[1:])
        got.setdefault(number, []).append(text)
        trained += sum(mask)
    for number, pieces in got.items():
        example = examples[table[number]["id"]]
        if example.source == "t":
            assert Counter(chain(*pieces)) == Counter(expected(example, bos)[0])
            if packing != "concatenate" and sum(map(len, pieces)) <= length:
                assert len(pieces) == 1
    ledger = packs.facts["ledger"]
    for name in ("t", "q"):
        entry = ledger["sources"][name]
        texts = [expected(e, bos)[0] for e in examples.values() if e.source == name]
        assert entry["unique"] == sum(map(len, texts))
        assert entry["unique"] == entry["trained"] + entry["masked"] + entry["truncated"] + entry["over_budget"]
        assert entry["over_budget"] == 0
    assert ledger["sources"]["t"]["truncated"] == 0
    assert ledger["total"]["trained"] == trained
    assert ledger["total"]["exposures"] == sum(map(packs.tokens_of_step, range(packs.steps)))
    assert trained == sum(map(packs.trained_tokens_of_step, range(packs.steps)))
    stored = {row["id"] for row in table}
    for example in examples.values():
        if example.id not in stored:  # only where every target was cut
            assert not any(expected(example, bos)[1][1:length])


def test_conversations_end_every_answer(tmp_path: Path, tokenizer: Path) -> None:
    chat = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}] * 2
    cleaned, specs = corpus(tmp_path, c=("conversations", [{"conversations": chat}]))
    packs = pack(cleaned, tokenizer, tmp_path / "out", specs)
    row = packs.row(0)
    assert spell(row.input_ids) == [*"hi\nyo", EOS, *"hi\nyo", EOS]
    assert row.loss_mask.tolist() == [0, 0, 0, 1, 1, 1] * 2
    assert packs.sources == ["c"]
    assert packs.languages == ["zh"]


def test_loss_on_all_changes_the_mask_alone(tmp_path: Path, tokenizer: Path) -> None:
    cleaned, specs = corpus(tmp_path, q=("alpaca", questions(40)), t=("text", documents(20)))
    answers, everything = (pack(cleaned, tokenizer, tmp_path / on, specs, loss_on=on) for on in ("answers", "all"))
    assert everything.rows == answers.rows
    for a, b in zip((answers.row(i) for i in range(answers.rows)), (everything.row(i) for i in range(answers.rows))):
        assert a.input_ids.tolist() == b.input_ids.tolist()
        assert (b.loss_mask >= a.loss_mask).all()
    # The first token of an example or piece is never a target.
    total, pieces = everything.facts["ledger"]["total"], len(stretches(everything))
    assert total["masked"] == pieces
    assert (
        total["trained"] == total["unique"] - total["truncated"] - pieces > answers.facts["ledger"]["total"]["trained"]
    )


def test_special_tokens_in_text_are_text(tmp_path: Path, tokenizer: Path) -> None:
    cleaned, specs = corpus(tmp_path, t=("text", [{"text": "a</s>b"}]))
    assert spell(pack(cleaned, tokenizer, tmp_path / "out", specs).row(0).input_ids) == [*"a</s>b", EOS]


def test_bos_as_the_tokenizer_declares(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
    assert tokenizer_facts(byte_tokenizer(tmp_path / "a")).bos_id is None
    assert tokenizer_facts(byte_tokenizer(tmp_path / "b", add_bos_token=True)).bos_id == BOS
    path = byte_tokenizer(tmp_path / "c")
    template = Tokenizer.from_file(str(path / "tokenizer.json"))
    template.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", BOS)])
    template.save(str(path / "tokenizer.json"))
    assert tokenizer_facts(path).bos_id == BOS
    assert tokenizer_facts(path, add_bos=False).bos_id is None
    (tmp_path / "a/tokenizer_config.json").unlink()
    with pytest.raises(BadInput, match="names no end-of-sequence token"):
        tokenizer_facts(tmp_path / "a")
    with pytest.raises(BadInput, match=r"holds no tokenizer\.json"):
        tokenizer_facts(tmp_path)


def test_budgets(tmp_path: Path, tokenizer: Path) -> None:
    cleaned, specs = corpus(tmp_path, t=("text", documents(60)))
    one = pack(cleaned, tokenizer, tmp_path / "one", specs)
    order = one.arrays["order"]
    assert sorted(order.tolist()) == list(range(one.rows))
    assert one.steps == -(-one.rows // 4)
    half = pack(cleaned, tokenizer, tmp_path / "half", specs, epochs=2.5)
    rows = half.arrays["order"].tolist()
    assert len(rows) == round(2.5 * one.rows)
    assert sorted(rows[: one.rows]) == sorted(rows[one.rows : 2 * one.rows]) == list(range(one.rows))
    assert rows[: one.rows] != rows[one.rows : 2 * one.rows]
    assert rows[: one.rows] == order.tolist(), "a longer budget begins alike"
    exact = pack(cleaned, tokenizer, tmp_path / "exact", specs, steps=31)
    assert exact.steps == 31
    assert all(len(exact.rows_of_step(k)) == 4 for k in range(31))
    assert exact.facts["ledger"]["total"]["passes"] > 1
    with pytest.raises(IndexError):
        exact.rows_of_step(31)
    for wanted in (1, 500, 5000):
        packs = pack(cleaned, tokenizer, tmp_path / f"tokens{wanted}", specs, tokens=wanted)
        read = [packs.tokens_of_step(k) for k in range(packs.steps)]
        assert sum(read[:-1]) < wanted <= sum(read)
    for wanted in (1, 45, 200):
        packs = pack(cleaned, tokenizer, tmp_path / f"documents{wanted}", specs, documents=wanted)
        texts = pq.read_table(tmp_path / f"documents{wanted}/examples.parquet").to_pylist()
        begun = [0] * packs.steps  # a document cut into pieces is read where its first piece stands
        for step in range(packs.steps):
            for row in packs.rows_of_step(step).tolist():
                for number in np.unique(packs.row(row).example_ids).tolist():
                    cuts = texts[number]["begins"]
                    at = [s[0] for s in stretches(packs) if s[1] == number].index(row)
                    begun[step] += not cuts or cuts[at] == 0
        assert sum(begun[:-1]) < wanted <= sum(begun)
    few = pack(cleaned, tokenizer, tmp_path / "few", specs, steps=1)
    assert few.facts["ledger"]["total"]["over_budget"] > 0
    for budget in ({"epochs": 1, "steps": 1}, {"epochs": None}):
        with pytest.raises(BadInput, match="exactly one of epochs, documents, tokens, steps"):
            pack(cleaned, tokenizer, tmp_path / "no", specs, **budget)


def test_no_target_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    cleaned, specs = corpus(tmp_path, q=("alpaca", [{"instruction": "x" * 50, "input": "", "output": "y"}]))
    with pytest.raises(BadInput, match=r"No token of .* would be trained at sequence_length 32"):
        pack(cleaned, tokenizer, tmp_path / "out", specs)


def test_an_example_without_room_for_its_answer_is_left_out_and_counted(tmp_path: Path, tokenizer: Path) -> None:
    long, cut = (
        {"instruction": "x" * 50, "input": "", "output": "y"},
        {"instruction": "x" * 20, "input": "", "output": "y" * 20},
    )
    cleaned, specs = corpus(tmp_path, q=("alpaca", [long, cut]))
    packs = pack(cleaned, tokenizer, tmp_path / "out", specs)
    assert packs.rows == 1
    assert spell(packs.row(0).input_ids) == [*"x" * 20, "\n", *"y" * 11]
    total = packs.facts["ledger"]["total"]
    assert (total["unique"], total["trained"], total["masked"], total["truncated"]) == (53 + 42, 11, 21, 53 + 10)


@pytest.mark.parametrize("budget", [{"epochs": 1}, {"tokens": 6000}, {"steps": 60}, {"documents": 250}])
def test_shares(tmp_path: Path, tokenizer: Path, budget: dict[str, int]) -> None:
    cleaned, specs = corpus(tmp_path, big=("text", documents(300)), small=("alpaca", questions(40)))
    specs = {
        "big": specs["big"].model_copy(update={"share": 0.8}),
        "small": specs["small"].model_copy(update={"share": 0.2, "max_epochs": 8.0}),
    }
    packs = pack(cleaned, tokenizer, tmp_path / "out", specs, **budget)
    ledger = packs.facts["ledger"]["sources"]
    assert ledger["small"]["share"] == pytest.approx(0.2, abs=0.03)
    assert ledger["small"]["wanted_share"] == pytest.approx(0.2)
    for entry in ledger.values():
        assert entry["unique"] == entry["trained"] + entry["masked"] + entry["truncated"] + entry["over_budget"]
    # Copies of one example in one row must not run together.
    examples = pq.read_table(tmp_path / "out/examples.parquet").to_pylist()
    for _, number, text, _ in stretches(packs):
        assert len(text) <= examples[number]["tokens"]
    assert packs.facts["warnings"] == []
    few = {**specs, "small": specs["small"].model_copy(update={"max_epochs": 1.0})}
    capped = pack(cleaned, tokenizer, tmp_path / "capped", few, **budget)
    assert re.match(
        r"Source small is to be 20\.0% of the tokens .* raise its max_epochs to [\d.]+, lower its share",
        capped.facts["warnings"][0],
    )
    assert capped.facts["ledger"]["sources"]["small"]["passes"] <= 1.0
    with pytest.raises(BadInput, match="Source small has no share but others have"):
        pack(cleaned, tokenizer, tmp_path / "no", {**specs, "small": SourceSpec(adapter="alpaca", files="-")})


def test_the_bytes_depend_on_the_seed_and_not_on_the_workers(tmp_path: Path, tokenizer: Path) -> None:
    cleaned, specs = corpus(tmp_path, t=("text", documents(600)), q=("alpaca", questions(600)))
    for name, more in {"a": {}, "b": {"workers": 2}, "c": {"seed": 2}}.items():
        pack(cleaned, tokenizer, tmp_path / name, specs, **more)
    a, b, c = (digest_folder(tmp_path / name) for name in "abc")
    assert a == b
    assert a != c
    mixed = np.load(tmp_path / "a/source_ids.npy")
    halves = [Counter(part.tolist()) for part in np.array_split(mixed, 2)]
    assert abs(halves[0][0] - halves[1][0]) < 0.2 * len(mixed)


def write_corpus(folder: Path, parts: list[list[dict[str, Any]]], row_group: int = 7) -> Path:
    """A cleaned corpus of several shards, as the clean stage writes it."""
    turn = pa.struct([("text", pa.string()), ("train", pa.bool_())])
    columns = {"id": pa.string(), "source": pa.string(), "language": pa.string(), "turns": pa.list_(turn)}
    schema = pa.schema([*columns.items(), ("utf8_bytes", pa.int64()), ("quality", pa.float32())])
    (folder / "examples").mkdir(parents=True)
    for number, rows in enumerate(parts):
        full = [{"language": "zh", "utf8_bytes": sum(len(t["text"].encode()) for t in r["turns"]), **r} for r in rows]
        table = pa.Table.from_pylist(full, schema=schema)
        pq.write_table(table, folder / f"examples/{number:05}.parquet", row_group_size=row_group)
    return folder


def text_rows(n: int, first: int = 0, source: str = "t", **more: Any) -> list[dict[str, Any]]:
    texts = (d["text"] for d in documents(n, first))
    return [
        {"id": f"{first + i:024x}", "source": source, "turns": [{"text": t, "train": True}], **more}
        for i, t in enumerate(texts)
    ]


def test_shards_do_not_change_the_bytes(tmp_path: Path, tokenizer: Path) -> None:
    rows = [row for first in (0, 30, 60) for row in text_rows(30, first)]
    shapes = {"one": [rows], "many": [rows[:1], rows[1:50], [], rows[50:]]}
    folders = {name: write_corpus(tmp_path / name, parts) for name, parts in shapes.items()}
    specs = {"t": SourceSpec(adapter="text", files="-")}
    packs = {
        (name, workers): pack(folder, tokenizer, tmp_path / f"{name}{workers}", specs, workers=workers)
        for name, folder in folders.items()
        for workers in (1, 2)
    }
    # What is stored, not the bytes of Parquet, whose row groups follow the shards.
    one = packs["one", 1]
    for other in packs.values():
        assert all((other.arrays[name] == array).all() for name, array in one.arrays.items())
        assert other.facts == one.facts
        assert pq.read_table(other.folder / "examples.parquet").equals(pq.read_table(one.folder / "examples.parquet"))
    assert digest_folder(packs["many", 1].folder) == digest_folder(packs["many", 2].folder)


class Killed(Exception):
    pass


@pytest.mark.parametrize("after", [1, 2])
def test_a_killed_call_goes_on(tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    cleaned = write_corpus(tmp_path / "c", [text_rows(20, 20 * i) for i in range(4)])
    specs = {"t": SourceSpec(adapter="text", files="-")}
    whole = pack(cleaned, tokenizer, tmp_path / "whole", specs)
    made: list[int] = []
    write = tokenize._write_shard

    def dies(tokenizer: Any, task: tokenize.TokenTask, folder: Path) -> None:
        (folder / "ids.bin").write_bytes(b"half")
        if len(made) == after:
            raise Killed
        write(tokenizer, task, folder)
        made.append(task.number)

    monkeypatch.setattr(tokenize, "_write_shard", dies)
    with pytest.raises(Killed):
        pack(cleaned, tokenizer, tmp_path / "out", specs)
    assert made == list(range(after))
    (tmp_path / "out/.tokens/.00001-left").mkdir()  # what kill -9 leaves of a shard in hand
    after = 99
    again = pack(cleaned, tokenizer, tmp_path / "out", specs)
    assert made == [0, 1, 2, 3], "finished shards are not made twice"
    assert digest_folder(again.folder) == digest_folder(whole.folder)
    made.clear()
    after = 1
    with pytest.raises(Killed):
        pack(cleaned, tokenizer, tmp_path / "other", specs)
    after = 99
    pack(cleaned, tokenizer, tmp_path / "other", specs, add_bos=True)
    assert made == [0, 0, 1, 2, 3], "shards of other settings are not taken"


DIES = """
import os, signal, sys
from pathlib import Path
from pandallm.data import tokenize
from pandallm.data.pack import pack_corpus
write = tokenize._write_shard
def dies(tokenizer, task, folder):
    write(tokenizer, task, folder)
    if task.number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
tokenize._write_shard = dies
cleaned, tokenizer, out = map(Path, sys.argv[1:])
pack_corpus(cleaned, tokenizer, out, packing="best_fit", sources={}, sequence_length=32, batch_sequences=4, epochs=1, seed=1)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_after_kill_9_only_the_shard_in_hand_is_made_again(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleaned = write_corpus(tmp_path / "c", [text_rows(20, 20 * i) for i in range(4)])
    whole = pack(cleaned, tokenizer, tmp_path / "whole", {})
    killed = subprocess.run([sys.executable, "-c", DIES, cleaned, tokenizer, tmp_path / "out"], check=False)
    assert killed.returncode == -signal.SIGKILL
    made: list[int] = []
    write = tokenize._write_shard

    def counts(tokenizer: Any, task: tokenize.TokenTask, folder: Path) -> None:
        made.append(task.number)
        write(tokenizer, task, folder)

    monkeypatch.setattr(tokenize, "_write_shard", counts)
    again = pack(cleaned, tokenizer, tmp_path / "out", {})
    assert made == [2, 3]
    assert digest_folder(again.folder) == digest_folder(whole.folder)


def test_quality_is_cut_at_packing(tmp_path: Path, tokenizer: Path) -> None:
    good, bad, unknown = (text_rows(5, 10 * i, quality=q) for i, q in enumerate((0.7, 0.5, None)))
    other = text_rows(5, 50, source="o")
    cleaned = write_corpus(tmp_path / "c", [[*good, *bad], [*unknown, *other]])
    specs = {name: SourceSpec(adapter="text", files="-") for name in ("t", "o")}
    cut = {**specs, "t": specs["t"].model_copy(update={"min_quality": 0.7})}
    packs = pack(cleaned, tokenizer, tmp_path / "out", cut)
    ledger = packs.facts["ledger"]
    lost = sum(len(r["turns"][0]["text"]) for r in [*bad, *unknown])
    assert ledger["sources"]["t"]["below_quality"] == {"examples": 10, "bytes": lost}
    assert ledger["total"]["below_quality"] == {"examples": 10, "bytes": lost}
    assert ledger["sources"]["o"]["below_quality"] == {"examples": 0, "bytes": 0}
    assert ledger["sources"]["t"]["unique"] == sum(len(r["turns"][0]["text"]) + 1 for r in good)
    kept = {row["id"] for row in pq.read_table(tmp_path / "out/examples.parquet").to_pylist()}
    assert kept == {r["id"] for r in [*good, *other]}
    all_cut = {**specs, "t": specs["t"].model_copy(update={"min_quality": 0.9})}
    assert pack(cleaned, tokenizer, tmp_path / "o", all_cut).facts["ledger"]["sources"]["t"]["unique"] == 0
    shares = {name: spec.model_copy(update={"share": 0.5}) for name, spec in all_cut.items()}
    with pytest.raises(BadInput, match="Source t has a share but none of its examples can be packed"):
        pack(cleaned, tokenizer, tmp_path / "no", shares)
    both = {name: specs[name].model_copy(update={"min_quality": 0.9}) for name in specs}
    with pytest.raises(BadInput, match=r"20 of its examples lie below min_quality"):
        pack(cleaned, tokenizer, tmp_path / "no", both)


def test_a_full_disk_is_told(tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned = write_corpus(tmp_path / "c", [text_rows(5)])

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tokenize, "_write_shard", full)
    with pytest.raises(PandaError, match=r"The disk that holds .* is full; make room and run the same command again"):
        pack(cleaned, tokenizer, tmp_path / "out", {"t": SourceSpec(adapter="text", files="-")})


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("loss_mask", lambda a: a.__setitem__(np.flatnonzero(a)[0], 0), "trained_tokens of an example differs"),
        ("example_ids", lambda a: a.__setitem__(0, a[0] + 1), "the first token of an example is a target"),
        ("order", lambda a: a.__setitem__(0, a[1]), "source t, (trained|exposures)"),
        ("row_trained_tokens", lambda a: a.__setitem__(0, a[0] + 1), "row_trained_tokens differs"),
    ],
)
def test_audit_names_what_differs(tmp_path: Path, tokenizer: Path, file: str, change: Any, told: str) -> None:
    cleaned = write_corpus(tmp_path / "c", [text_rows(40)])
    pack(cleaned, tokenizer, tmp_path / "out", {"t": SourceSpec(adapter="text", files="-")}, epochs=1)
    array = np.load(tmp_path / f"out/{file}.npy")
    change(array)
    np.save(tmp_path / f"out/{file}.npy", array)
    with pytest.raises(PandaError, match=told):
        audit_packs(tmp_path / "out")


def test_rows_and_examples_as_text(tmp_path: Path, tokenizer: Path) -> None:
    chat = [{"text": "问：", "train": False}, {"text": "答é", "train": True}]
    long = {"id": "b", "source": "t", "turns": [{"text": "雪" * 20, "train": True}]}
    cleaned = write_corpus(tmp_path / "c", [[{"id": "a", "source": "q", "turns": chat}, long]])
    specs = {name: SourceSpec(adapter="text", files="-") for name in ("q", "t")}
    packs = pack(cleaned, tokenizer, tmp_path / "out", specs)
    loaded = tokenize.load_tokenizer(tokenizer)
    [first] = decode_example(packs, 0, loaded)
    assert (first.id, first.source, first.language) == ("a", "q", "zh")
    assert first.spans == (("问：", False), ("答é</s>", True))
    pieces = decode_example(packs, 1, loaded)
    assert len(pieces) == 2
    # A character cut by the row's end shows as a replacement character on both sides.
    assert sum(text.count("雪") for piece in pieces for text, _ in piece.spans) == 19
    rows = [piece for row in range(packs.rows) for piece in decode_row(packs, row, loaded)]
    assert sorted(p.example for p in rows) == [0, 1, 1]
    with pytest.raises(IndexError):
        decode_example(packs, 2, loaded)
