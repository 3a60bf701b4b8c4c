"""New pieces in an old tokenizer: what was a token stays one, any text comes back, both files of a Llama say the same."""

import json
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from tokenizers import Tokenizer

from pandallm.data.extend import characters_per_token, extend_tokenizer, new_parts
from pandallm.data.extend_learn import UTF8_BYTES, byte_letters
from pandallm.data.spec import ExtendSpec, VocabularySpec
from pandallm.data.tokenize import load_tokenizer
from pandallm.data.vocabulary import train_tokenizer
from pandallm.errors import BadInput
from pandallm.store import digest_folder, read_jsonl
from tests.data.small_tokenizers import ENGLISH, byte_level, sentencepiece

CHINESE = [
    "熊猫喜欢吃竹子，熊猫住在四川的山里。",
    "四川的竹子长得很快，竹子是熊猫的食物。",
    "我们在中国看熊猫 the panda eats bamboo。",
    "今天天气很好，我们去看熊猫。　　竹子！",
] * 20
SPEC = ExtendSpec(size=130, min_frequency=5)
KINDS = pytest.mark.parametrize("kind", ["bytes", "fallback"])
#: Texts of what the corpus holds, of its neighbours in Unicode and of anything else.
TEXTS = st.lists(
    st.sampled_from([*"熊猫喜欢竹子四川的，。　！我们a b1\n", "panda ", "熊猫", "竹子", "<|im_end|>", "<pad>", "</s>"])
    | st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF)
    | st.characters(min_codepoint=0x3000, max_codepoint=0x30FF)
    | st.characters(codec="utf-8", exclude_characters="\x00▁"),
    max_size=20,
).map("".join)


def corpus(folder: Path, texts: Sequence[str], held_out: Sequence[str] = (), source: str = "pandas") -> Path:
    """A cleaned-corpus folder of plain texts."""
    folder.mkdir(parents=True)
    turn = pa.list_(pa.struct([("text", pa.string()), ("train", pa.bool_())]))
    schema = pa.schema([("source", pa.string()), ("turns", turn), ("utf8_bytes", pa.int64())])
    for part, rows in (("examples", texts), ("held_out", held_out)):
        table = [{"source": source, "turns": [{"text": t, "train": True}], "utf8_bytes": len(t.encode())} for t in rows]
        if rows or part == "examples":
            pq.write_table(pa.Table.from_pylist(table, schema=schema), folder / f"{part}.parquet")
    (folder / "ledger.json").write_text("{}")
    return folder


class Pair:
    """A base, its extension, and the old tokens that new ones stand for."""

    def __init__(self, base: Path, out: Path) -> None:
        self.base, self.out = base, out
        self.old, self.new = (Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (base, out))
        for tokenizer in (self.old, self.new):
            tokenizer.encode_special_tokens = True
        self.first, self.parts = new_parts(out)

    def ids(self, text: str) -> tuple[list[int], list[int]]:
        """Old and new ids of a text."""
        old, new = (t.encode(text, add_special_tokens=False).ids for t in (self.old, self.new))
        return old, new

    def taken_apart(self, ids: Sequence[int]) -> list[int]:
        return [old for i in ids for old in (self.parts[i - self.first] if i >= self.first else (i,))]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    root = tmp_path_factory.mktemp("extend")
    made = {}
    for kind, make in (("bytes", byte_level), ("fallback", sentencepiece)):
        base = make(root / kind / "base")
        extend_tokenizer(SPEC, base, [corpus(root / kind / "corpus", CHINESE + ENGLISH)], root / kind / "new")
        made[kind] = Pair(base, root / kind / "new")
    return made


@KINDS
@given(text=TEXTS)
@settings(max_examples=300, deadline=None)
def test_any_text_comes_back_and_new_tokens_stand_where_their_parts_stood(
    pairs: dict[str, Pair], kind: str, text: str
) -> None:
    pair = pairs[kind]
    old, new = pair.ids(text)
    assert pair.taken_apart(new) == old
    assert pair.new.decode(new, skip_special_tokens=False) == text


@KINDS
@pytest.mark.parametrize(
    "text", [*ENGLISH[:3], "naïve café — “quoted” … Привет 🐼 日本のパンダ"[:32], "def f(x):\n    return x"]
)
def test_text_without_han_characters_has_the_tokens_it_had(pairs: dict[str, Pair], kind: str, text: str) -> None:
    old, new = pairs[kind].ids(text)
    assert new == old


@KINDS
def test_old_tokens_keep_their_ids_and_new_ones_follow(pairs: dict[str, Pair], kind: str) -> None:
    pair = pairs[kind]
    before, after = pair.old.get_vocab(), pair.new.get_vocab()
    assert before.items() <= after.items()
    assert sorted(after.values()) == list(range(pair.first + len(pair.parts)))
    assert pair.first == len(before)
    assert len(pair.parts) <= SPEC.size


@KINDS
def test_transformers_reads_the_same_ids(pairs: dict[str, Pair], kind: str) -> None:
    from transformers import AutoTokenizer

    pair = pairs[kind]
    (pair.out / "tokenizer_config.json").write_bytes((pair.base / "tokenizer_config.json").read_bytes())
    loaded = AutoTokenizer.from_pretrained(pair.out)
    special = "<|im_end|>" if kind == "bytes" else "<pad>"
    assert len(loaded) == pair.first + len(pair.parts)
    assert loaded.convert_tokens_to_ids(special) == pair.old.token_to_id(special) == pair.first - 1
    text = "熊猫喜欢吃竹子 and bamboo"
    assert loaded(text, add_special_tokens=False)["input_ids"] == pair.ids(text)[1]
    assert loaded.decode(loaded(text, add_special_tokens=False)["input_ids"]) == text
    assert loaded(f"熊猫{special}", add_special_tokens=False)["input_ids"][-1] == pair.first - 1


@KINDS
def test_frequent_words_become_tokens_and_stop_at_signs(pairs: dict[str, Pair], kind: str) -> None:
    pair = pairs[kind]
    rows = list(read_jsonl(pair.out / "pieces.jsonl"))
    texts = {row["text"] for row in rows}
    assert {"熊猫", "竹子"} <= texts
    whole = [t for t in texts if "\ufffd" not in t]
    assert all(t.isalpha() or not any(c.isalpha() for c in t) for t in whole)
    assert all(pair.new.id_to_token(row["id"]) == row["token"] for row in rows)
    old, new = pair.ids("熊猫喜欢吃竹子，四川的熊猫。")
    assert len(new) < len(old) / 3


@cache
def sentencepiece_model(file: Path) -> SentencePieceProcessor:
    return SentencePieceProcessor(model_file=str(file))


@given(text=TEXTS)
@settings(max_examples=300, deadline=None)
def test_tokenizer_model_cuts_as_tokenizer_json_does(pairs: dict[str, Pair], text: str) -> None:
    pair = pairs["fallback"]
    read = sentencepiece_model(pair.out / "tokenizer.model")
    assert read.get_piece_size() == pair.first + len(pair.parts)
    assert read.encode(text) == pair.ids(text)[1]
    assert read.decode(read.encode(text)) == text
    assert read.id_to_piece(pair.first - 1) == "<pad>"
    assert read.is_control(pair.first - 1)


@KINDS
def test_the_same_base_and_corpora_give_the_same_bytes(pairs: dict[str, Pair], kind: str, tmp_path: Path) -> None:
    folder = corpus(tmp_path / "corpus", CHINESE + ENGLISH)
    for name in ("a", "b"):
        extend_tokenizer(SPEC, pairs[kind].base, [folder], tmp_path / name)
    assert digest_folder(tmp_path / "a") == digest_folder(tmp_path / "b")


@KINDS
def test_size_and_frequency_bound_the_pieces_and_the_most_frequent_come_in(
    pairs: dict[str, Pair], kind: str, tmp_path: Path
) -> None:
    folder = corpus(tmp_path / "corpus", ["熊猫熊猫熊猫"] * 30 + ["竹子"] * 9 + ["山水"] * 3)
    facts = extend_tokenizer(ExtendSpec(size=500, min_frequency=5), pairs[kind].base, [folder], tmp_path / "all")
    texts = {row["text"] for row in read_jsonl(tmp_path / "all" / "pieces.jsonl")}
    assert {"熊", "猫", "熊猫", "竹", "子", "竹子"} <= texts
    assert not {"山", "水", "山水"} & texts
    assert facts["tokens"] - facts["tokens_before"] == sum(facts["pieces"].values())
    assert (facts["documents"], facts["characters"]) == (42, 30 * 6 + 9 * 2 + 3 * 2)
    few = 5
    extend_tokenizer(ExtendSpec(size=few, min_frequency=5), pairs[kind].base, [folder], tmp_path / "few")
    rows = list(read_jsonl(tmp_path / "few" / "pieces.jsonl"))
    assert len(rows) == few
    assert {"熊", "猫", "熊猫"} <= {row["text"] for row in rows}


@KINDS
def test_non_ascii_opens_other_scripts(pairs: dict[str, Pair], kind: str, tmp_path: Path) -> None:
    folder = corpus(tmp_path / "corpus", ["Привет мир, hello world"] * 20)
    extend_tokenizer(
        ExtendSpec(size=60, min_frequency=5, characters="non_ascii"), pairs[kind].base, [folder], tmp_path / "new"
    )
    pair = Pair(pairs[kind].base, tmp_path / "new")
    assert len(pair.ids("Привет мир")[1]) == 2  # a blank before a word joins it, as in English
    assert pair.ids("hello world")[0] == pair.ids("hello world")[1]


def test_a_tokenizer_that_splits_characters_gets_no_words(tmp_path: Path) -> None:
    chinese = corpus(tmp_path / "chinese", CHINESE)
    train_tokenizer(
        VocabularySpec(size=310, split="han_characters"), [corpus(tmp_path / "english", ENGLISH)], tmp_path / "base"
    )
    facts = extend_tokenizer(SPEC, tmp_path / "base", [chinese], tmp_path / "new")
    words = [row["text"] for row in read_jsonl(tmp_path / "new" / "pieces.jsonl") if row["kind"] == "word"]
    assert words == ["\u3000\u3000"]
    assert facts["pieces"]["word"] == 1
    pair = Pair(tmp_path / "base", tmp_path / "new")
    assert pair.new.encode("熊猫，竹子").tokens == ["熊", "猫", "，", "竹", "子"]


def test_bytes_that_the_base_lacks_are_added_so_that_any_text_comes_back(
    pairs: dict[str, Pair], tmp_path: Path
) -> None:
    base = tmp_path / "base"
    byte_level(base)
    description = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = description["model"]["vocab"]
    for byte in (0x06, 0xC0, 0xF1):
        vocabulary.pop(byte_letters()[byte])
    numbers = {token: i for i, token in enumerate(sorted(vocabulary, key=lambda t: vocabulary[t]))}
    description["model"]["vocab"] = numbers
    description["added_tokens"] = [
        t | {"id": numbers.get(t["content"], len(numbers))} for t in description["added_tokens"]
    ]
    (base / "tokenizer.json").write_text(json.dumps(description), encoding="utf-8")
    facts = extend_tokenizer(SPEC, base, [corpus(tmp_path / "corpus", CHINESE)], tmp_path / "new")
    assert 0xC0 not in UTF8_BYTES
    assert facts["pieces"]["byte"] == 2
    pair = Pair(base, tmp_path / "new")
    text = "a\x06熊\U00040000"
    old, new = pair.ids(text)
    assert pair.old.decode(old) != text
    assert pair.new.decode(new) == text


def test_vocab_json_and_merges_txt_go_along(pairs: dict[str, Pair], tmp_path: Path) -> None:
    from tokenizers import models, pre_tokenizers

    base = byte_level(tmp_path / "base", extra=())
    (base / "vocab.json").write_text("{}")
    (base / "merges.txt").write_text("")
    extend_tokenizer(SPEC, base, [corpus(tmp_path / "corpus", CHINESE)], tmp_path / "new")
    files = [str(tmp_path / "new" / name) for name in ("vocab.json", "merges.txt")]
    tokenizer = Tokenizer(models.BPE.from_file(*files))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text = "熊猫喜欢吃竹子 the cat"
    assert tokenizer.encode(text).ids == Pair(base, tmp_path / "new").ids(text)[1]


def test_a_sample_is_spread_evenly(pairs: dict[str, Pair], tmp_path: Path) -> None:
    texts = ["熊猫"] * 100 + ["竹子"] * 100
    size = sum(len(t.encode()) for t in texts)
    spec = ExtendSpec(size=20, min_frequency=1, sample_megabytes=size / 10 / 1e6)
    facts = extend_tokenizer(spec, pairs["bytes"].base, [corpus(tmp_path / "corpus", texts)], tmp_path / "new")
    assert facts["documents"] == 20
    assert {"熊猫", "竹子"} <= {row["text"] for row in read_jsonl(tmp_path / "new" / "pieces.jsonl")}


@KINDS
def test_characters_per_token_counts_held_out_text(pairs: dict[str, Pair], kind: str, tmp_path: Path) -> None:
    pair = pairs[kind]
    one = corpus(tmp_path / "one", ["x"], ["熊猫喜欢", "四川的竹子"], "a")
    two = corpus(tmp_path / "two", ["y"], ["The cat sat"], "b")
    report = characters_per_token(pair.base, pair.out, [one, two])
    old, new = zip(*(pair.ids(text) for text in ("熊猫喜欢", "四川的竹子")))
    assert report["text"] == "held out"
    assert report["sources"]["a"] == {
        "documents": 2,
        "characters": 9,
        "tokens_before": sum(map(len, old)),
        "tokens_after": sum(map(len, new)),
        "characters_per_token_before": round(9 / sum(map(len, old)), 4),
        "characters_per_token_after": round(9 / sum(map(len, new)), 4),
    }
    assert report["sources"]["b"]["tokens_before"] == report["sources"]["b"]["tokens_after"]
    assert report["total"]["characters"] == 20
    assert report["total"]["pieces_seen"] == len({i for ids in new for i in ids if i >= pair.first})


def test_without_held_out_text_kept_examples_are_measured_and_that_is_said(
    pairs: dict[str, Pair], tmp_path: Path
) -> None:
    pair = pairs["bytes"]
    report = characters_per_token(pair.base, pair.out, [corpus(tmp_path / "corpus", ["熊猫"])])
    assert report["text"] == "kept examples"
    assert report["total"]["documents"] == 1


def test_tokenizers_that_cannot_be_extended_are_refused(pairs: dict[str, Pair], tmp_path: Path) -> None:
    folder = corpus(tmp_path / "corpus", CHINESE)

    def attempt(change: dict[str, object], message: str) -> None:
        description = json.loads((pairs["bytes"].base / "tokenizer.json").read_text(encoding="utf-8"))
        description["model"].update(change)
        if "type" not in change:
            description["pre_tokenizer"] = None
        (tmp_path / "tokenizer.json").write_text(json.dumps(description), encoding="utf-8")
        with pytest.raises(BadInput, match=message):
            extend_tokenizer(SPEC, tmp_path, [folder], tmp_path / "out")
        assert not (tmp_path / "out").exists()

    attempt({"type": "Unigram"}, "only BPE tokenizers can be extended, this one is Unigram")
    attempt({"end_of_word_suffix": "</w>"}, "marks at the edges of words")
    attempt({"unk_token": "<unk>"}, "turns unknown characters into <unk>")
    with pytest.raises(BadInput, match=r"holds no tokenizer\.json"):
        extend_tokenizer(SPEC, folder, [folder], tmp_path / "out")


def test_a_corpus_without_such_text_is_refused(pairs: dict[str, Pair], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"hold no text of base\.extend\.characters"):
        extend_tokenizer(SPEC, pairs["bytes"].base, [corpus(tmp_path / "corpus", ENGLISH)], tmp_path / "out")


def test_a_corpus_in_which_nothing_is_frequent_is_refused(pairs: dict[str, Pair], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no new piece that occurs 5 times in a sample of 4 characters"):
        extend_tokenizer(SPEC, pairs["bytes"].base, [corpus(tmp_path / "corpus", ["熊猫竹子"])], tmp_path / "out")


def test_the_report_reads_so_many_documents_of_a_source(
    pairs: dict[str, Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pandallm.data.extend.REPORT_DOCUMENTS", 3)
    pair = pairs["bytes"]
    folders = [corpus(tmp_path / name, ["x"], ["熊猫"] * count, name) for name, count in (("a", 7), ("b", 2))]
    report = characters_per_token(pair.base, pair.out, folders)
    assert [row["documents"] for row in report["sources"].values()] == [3, 2]
    assert report["total"]["characters"] == 10


def test_a_tokenizer_model_that_disagrees_is_refused(pairs: dict[str, Pair], tmp_path: Path) -> None:
    base = sentencepiece(tmp_path / "base")
    folder = corpus(tmp_path / "corpus", CHINESE)
    description = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = description["model"]["vocab"]
    vocabulary["e"], vocabulary["s"] = vocabulary["s"], vocabulary["e"]
    (base / "tokenizer.json").write_text(json.dumps(description), encoding="utf-8")
    with pytest.raises(BadInput, match="do not agree on the token with id"):
        extend_tokenizer(SPEC, base, [folder], tmp_path / "out")
    (base / "tokenizer.model").write_bytes(b"not a model")
    with pytest.raises(BadInput, match="is no SentencePiece model"):
        extend_tokenizer(SPEC, base, [folder], tmp_path / "out")


@pytest.mark.parametrize("kind", ["bytes", "fallback"])
@pytest.mark.parametrize("size", [0, 30])
def test_special_tokens_stand_last_and_text_never_becomes_one(
    pairs: dict[str, Pair], kind: str, size: int, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    base, new = pairs[kind].base, tmp_path / "new"
    spec = ExtendSpec(size=size, min_frequency=5, special=("<|im_start|>", "<|turn|>"))
    folders = [corpus(tmp_path / "corpus", CHINESE)] if size else []
    facts = extend_tokenizer(spec, base, folders, new)
    rows = list(read_jsonl(new / "pieces.jsonl"))
    assert facts["pieces"]["special"] == 2
    assert sum(facts["pieces"].values()) == len(rows)
    assert [(r["token"], r["kind"]) for r in rows[-2:]] == [("<|im_start|>", "special"), ("<|turn|>", "special")]
    assert facts["tokens"] == rows[-1]["id"] + 1
    first, parts = new_parts(new)
    assert first + len(parts) == facts["tokens"]
    old = load_tokenizer(base)
    assert old.decode(list(parts[-1]), skip_special_tokens=False).strip() == "<|turn|>"
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        if (base / file).is_file():
            shutil.copyfile(base / file, new / file)
    read = AutoTokenizer.from_pretrained(new)
    ids = read.encode("a<|turn|>", add_special_tokens=False)
    assert ids[-1] == rows[-1]["id"]
    assert read.decode(ids[-1:], skip_special_tokens=True) == ""
    assert not {r["id"] for r in rows[-2:]} & set(load_tokenizer(new).encode("a<|turn|> <|im_start|>").ids)
    if kind == "fallback":
        pieces = SentencePieceProcessor(model_file=str(new / "tokenizer.model"))
        assert pieces.get_piece_size() == facts["tokens"]
        assert pieces.is_control(rows[-1]["id"])
        assert pieces.id_to_piece(rows[-1]["id"]) == "<|turn|>"


def test_special_tokens_that_the_base_has_are_refused(pairs: dict[str, Pair], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"base.extend.special: the base has <\|im_end\|> \(id \d+\) already"):
        extend_tokenizer(ExtendSpec(special=("<|im_end|>",)), pairs["bytes"].base, [], tmp_path / "new")
    for wrong in ({}, {"special": ("a", "a")}, {"special": (" a",)}, {"special": ("",)}):
        with pytest.raises(ValueError, match="special"):
            ExtendSpec(**wrong)
