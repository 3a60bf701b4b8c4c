"""The trained tokenizer: lossless, deterministic, one token per Han character where asked."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pandallm.data.spec import VocabularySpec
from pandallm.data.vocabulary import train_tokenizer
from pandallm.errors import BadInput

TEXTS = [
    "The cat sat on the mat, the cat sat.",
    "小猫坐在垫子上。小猫睡着了！",
    "Prices: 12,345 yuan\n\nfor two cats",
] * 5


def corpus(folder: Path, texts: list[str]) -> Path:
    """A cleaned-corpus folder of plain texts, and one example with an untrained turn."""
    folder.mkdir(parents=True)
    rows = [{"turns": [{"text": t, "train": True}]} for t in texts]
    schema = pa.schema([("turns", pa.list_(pa.struct([("text", pa.string()), ("train", pa.bool_())])))])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "examples.parquet")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("vocabulary")
    spec = VocabularySpec(size=400, split="han_characters")
    train_tokenizer(spec, [corpus(root / "corpus", TEXTS)], root / "tokenizer")
    return root / "tokenizer"


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_text_comes_back(trained: Path, text: str) -> None:
    tokenizer = Tokenizer.from_file(str(trained / "tokenizer.json"))
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.parametrize(
    "text", ["<0x41>", "<|endoftext|>", " two  blanks ", "a\r\nb", "未见之字𠮷", "é e\u0301", "\x00", "don't ."]
)
def test_hard_texts_come_back_through_transformers(trained: Path, text: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(trained)
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) == text
    assert tokenizer.eos_token_id == 0
    assert tokenizer.pad_token_id == 1
    assert tokenizer.eos_token_id not in tokenizer("plain")["input_ids"]


def test_han_characters_and_line_breaks_stand_alone_so_that_turns_tokenize_alike_apart_and_joined(
    trained: Path,
) -> None:
    tokenizer = Tokenizer.from_file(str(trained / "tokenizer.json"))
    assert tokenizer.encode("小猫坐").tokens == ["小", "猫", "坐"]
    prompt, answer = "问：\n", "小猫"
    assert tokenizer.encode(prompt + answer).ids == tokenizer.encode(prompt).ids + tokenizer.encode(answer).ids
    assert tokenizer.encode(prompt).ids == tokenizer.encode(prompt.rstrip()).ids + tokenizer.encode("\n").ids


def test_llama3_split_joins_han_characters_into_words(tmp_path: Path) -> None:
    train_tokenizer(VocabularySpec(size=400), [corpus(tmp_path / "corpus", TEXTS)], tmp_path / "tokenizer")
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer" / "tokenizer.json"))
    assert len(tokenizer.encode("小猫坐在").tokens) < 4


def test_size_is_kept_and_bytes_are_the_same_twice(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "corpus", TEXTS)
    spec = VocabularySpec(size=315, split="han_characters")
    facts = train_tokenizer(spec, [folder], tmp_path / "a")
    train_tokenizer(spec, [folder], tmp_path / "b")
    assert facts["size"] == 315 == Tokenizer.from_file(str(tmp_path / "a" / "tokenizer.json")).get_vocab_size()
    for file in sorted((tmp_path / "a").iterdir()):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()


def test_rare_characters_are_spelt_in_bytes(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "corpus", ["abab" * 2000, "z"])  # z: less than 0.05 % of the text
    train_tokenizer(VocabularySpec(size=320), [folder], tmp_path / "tokenizer")
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer" / "tokenizer.json"))
    assert tokenizer.encode("z").tokens == ["<0x7A>"]
    assert tokenizer.token_to_id("a") is not None


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="hold no text"):
        train_tokenizer(VocabularySpec(size=400), [corpus(tmp_path / "corpus", [])], tmp_path / "tokenizer")
    with pytest.raises(BadInput, match="other is no cleaned corpus"):
        train_tokenizer(VocabularySpec(size=400), [tmp_path / "other"], tmp_path / "tokenizer")
    assert not (tmp_path / "tokenizer").exists()


def test_a_vocabulary_too_small_is_refused(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "corpus", ["".join(chr(0x4E00 + i) for i in range(200))])
    with pytest.raises(BadInput, match="raise it to 458 or more"):
        train_tokenizer(VocabularySpec(size=320), [folder], tmp_path / "tokenizer")


def test_special_tokens_stand_last_and_count(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    cleaned = [corpus(tmp_path / "corpus", TEXTS)]
    plain = train_tokenizer(VocabularySpec(size=320), cleaned, tmp_path / "plain")
    facts = train_tokenizer(VocabularySpec(size=322, special=("<|a|>", "<|b|>")), cleaned, tmp_path / "special")
    assert (plain["size"], facts["size"]) == (320, 322)
    one, other = (Tokenizer.from_file(str(tmp_path / name / "tokenizer.json")) for name in ("plain", "special"))
    assert other.encode(TEXTS[0]).ids == one.encode(TEXTS[0]).ids
    read = AutoTokenizer.from_pretrained(tmp_path / "special")
    assert read.encode("x<|b|>")[-1] == 321
    assert read.decode([320, 321], skip_special_tokens=True) == ""
    with pytest.raises(BadInput, match=r"tokenizer.special: 猫 is an ordinary token"):
        train_tokenizer(VocabularySpec(size=400, special=("猫",)), cleaned, tmp_path / "wrong")
