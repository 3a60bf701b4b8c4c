"""Tokens from packs, files, samples and expected figures."""

import random
from pathlib import Path

import pytest

from pandallm.data.spec import CorpusSpec
from pandallm.errors import BadInput
from pandallm.pipeline.plan.sample import sample_corpus
from pandallm.pipeline.plan.tokens import (
    SourceTokens,
    budget_tokens,
    expected_sources,
    source_tokens_of_packs,
    source_tokens_of_text,
    stage_tokens,
    tokens_of_packs,
)
from pandallm.store import read_json, write_jsonl
from pandallm.train.spec import TrainSpec
from tests.data.small_tokenizers import byte_level


def stage(**fields: object) -> TrainSpec:
    return TrainSpec.model_validate({"optimizer": {"lr": 1e-3}, "sequence_length": 100, "batch_sequences": 4, **fields})


def corpus(**fields: object) -> CorpusSpec:
    return CorpusSpec.model_validate(
        {"sources": {"a": {"adapter": "text", "files": "a"}, "b": {"adapter": "text", "files": "b"}}, **fields}
    )


SOURCES = {"a": SourceTokens(9_000, 100, 100), "b": SourceTokens(1_000, 50, 50, trained_share=0.5)}


@pytest.mark.parametrize(
    ("budget", "steps", "tokens"),
    [
        ({"steps": 7}, 7, 7 * 4 * 100),
        ({"tokens": 2_500}, 7, 2_800),
        ({"epochs": 2}, 50, 20_000),
        # 150 examples in 100 rows: 40 of them begin in 26.7 rows.
        ({"documents": 40}, 7, 2_800),
    ],
)
def test_steps_by_every_budget(budget: dict[str, object], steps: int, tokens: float) -> None:
    found = stage_tokens("stages.x", stage(**budget), corpus(), SOURCES, source="sample", error=0.1, fill=1.0)
    assert found.steps == steps
    assert found.tokens == pytest.approx(tokens)
    assert found.trained_share == pytest.approx(0.95)
    assert found.passes == pytest.approx(found.tokens / 10_000)


def test_one_example_a_row_has_as_many_rows_as_examples() -> None:
    found = stage_tokens(
        "stages.x", stage(documents=150), corpus(packing="one_per_sequence"), SOURCES, source="expected", error=0.2
    )
    assert found.steps == 38
    assert found.row_tokens == pytest.approx(10_000 / 150)


def test_shares_say_what_is_read() -> None:
    sources = {
        "a": {"adapter": "text", "files": "a", "share": 0.5},
        "b": {"adapter": "text", "files": "b", "share": 0.5, "max_epochs": 2},
    }
    found = stage_tokens("stages.x", stage(tokens=6_000), corpus(sources=sources), SOURCES, source="sample", error=0.1)
    assert found.by_source["b"] < found.by_source["a"]
    assert "max_epochs" in found.warnings[0]


def test_a_budget_that_no_corpus_fills_is_refused() -> None:
    with pytest.raises(
        BadInput, match=r"stages\.x: the budget of about .* would read its corpus of about 10,000 tokens"
    ):
        stage_tokens("stages.x", stage(tokens=10**9), corpus(), SOURCES, source="sample", error=0.1)
    with pytest.raises(BadInput, match="holds no token"):
        stage_tokens("stages.x", stage(steps=1), corpus(), {"a": SourceTokens(0, 0, 0)}, source="sample", error=0.1)


def test_expected_figures_by_bytes_or_tokens() -> None:
    sources = {
        "a": {"adapter": "text", "files": "a", "language": "zh", "expected": {"records": 10, "bytes_per_record": 100}},
        "b": {
            "adapter": "text",
            "files": "b",
            "language": "xx",
            "max_records": 5,
            "expected": {"records": 10, "tokens_per_record": 250},
        },
    }
    found = expected_sources(corpus(sources=sources), {"zh": 0.5, "other": 1.0}, stage(steps=1))
    assert (found["a"].unique, found["a"].rows) == (10 * 51, 10)
    assert (found["b"].unique, found["b"].rows) == (5 * 251, 5 * 2.51)
    assert expected_sources(corpus(), {"other": 1.0}, stage(steps=1)) == {}


def test_the_budget_alone() -> None:
    alone = budget_tokens(stage(steps=3))
    assert alone is not None
    assert alone.steps == 3
    assert budget_tokens(stage(epochs=1)) is None


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files, one compressed, of 1.6 MB: documents of 5 to 800 characters, in blocks of unlike length."""
    import gzip

    folder = tmp_path_factory.mktemp("collection")
    draw = random.Random(0)
    for name in ("a", "b"):
        records = []
        for i in range(900):
            size = draw.choice((5, 60, 400)) * (1 + i % 300 // 150) + draw.randrange(20)
            records.append({"text": f"{i}" + "".join(chr(0x4E00 + draw.randrange(3000)) for _ in range(size))})
        write_jsonl(folder / f"{name}.jsonl", records)
    (folder / "b.jsonl.gz").write_bytes(gzip.compress((folder / "b.jsonl").read_bytes()))
    byte_level(folder / "tokenizer")
    return folder


def _packed(collection: Path, out: Path, wanted: float) -> tuple[object, Path]:
    from pandallm.data.pack import pack_corpus

    spec = corpus(clean=[{"kind": "normalize"}])
    files = {"a": [collection / "a.jsonl"], "b": [collection / "b.jsonl.gz"]}
    sample = sample_corpus("texts", spec, files, out, wanted=wanted)
    packs = out / "packs"
    pack_corpus(
        sample.folder,
        collection / "tokenizer",
        packs,
        packing="best_fit",
        sources=spec.sources,
        sequence_length=512,
        batch_sequences=4,
        epochs=1,
        seed=0,
    )
    return sample, packs


def test_a_sample_gives_the_tokens_within_a_hundredth(collection: Path, tmp_path: Path) -> None:
    everything, packs = _packed(collection, tmp_path / "all", 1e9)
    assert everything.whole  # type: ignore[attr-defined]
    exact = tokens_of_packs(packs)
    facts = read_json(packs / "pack.json")
    assert (exact.steps, exact.tokens) == (facts["steps"], facts["ledger"]["total"]["exposures"])
    sample, packs = _packed(collection, tmp_path / "part", 300_000)
    shares = {s: v.share for s, v in sample.sources.items()}  # type: ignore[attr-defined]
    assert all(0.1 < share < 0.4 for share in shares.values())
    found = source_tokens_of_packs(packs, shares)
    for name, entry in facts["ledger"]["sources"].items():
        assert found[name].unique == pytest.approx(entry["unique"], rel=0.01), name
    # Without a tokenizer: by bytes.
    per_byte = {"zh": exact.tokens / (collection / "a.jsonl").stat().st_size / 2, "other": 1.0}
    text = source_tokens_of_text(sample.folder, shares, per_byte, stage(steps=1))  # type: ignore[attr-defined]
    assert sum(s.unique for s in text.values()) == pytest.approx(exact.tokens, rel=0.1)
