"""Bytes that must not change unnoticed: a failure here means that stored artifacts of the same key would differ. If the change is meant, raise the
stage's number in pipeline/run.py (VERSIONS) and store the new digest here."""

from typing import Any

import numpy as np
import pytest

from pandallm.data.clean import clean_corpus
from pandallm.data.corpus import corpus_examples
from pandallm.data.files import resolve_files
from pandallm.data.pack import pack_corpus
from pandallm.data.vocabulary import train_tokenizer
from pandallm.microworld.make import make_world
from pandallm.recipe.load import load_recipe
from pandallm.store import digest_bytes, digest_file, digest_folder, digest_json

SIZES = (
    "world.scored_people=12",
    "world.wiki_pages=300",
    "world.news_articles=100",
    "world.english_documents=400",
    "world.instructions=100",
)
GOLDEN = {
    "world": "592dd3a5ef08460b06c4c2a9cad74ce00eb86f15de4171e20520e6bc713d4d86",
    "examples": "e0c1bf3299d77d012cea03622f2af9f0793e4729e4e103254723aeefa393b3b8",
    "tokenizer": "dead46d9fb0e37849b7e6b59ae7c62c5cf0d19b2bcc73ae3b5c49d98c5ef9bff",
    "packs": "ff6f89292ba58ded3f4cf8c4042ca6587963babaabba174be55faea2e0aa5956",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digest of what each data stage makes of a small world."""
    folder = tmp_path_factory.mktemp("golden")
    recipe = load_recipe(None, SIZES)
    assert recipe.world is not None
    assert recipe.base.scratch is not None
    make_world(recipe.world, 7, folder / "world")
    corpus = recipe.corpora["chinese"]
    files: dict[str, Any] = {}
    for name, source in corpus.sources.items():
        assert isinstance(source.files, str)
        files[name] = resolve_files(source.files.replace("${world}", str(folder / "world")), name)
    clean_corpus("chinese", corpus, files, folder / "chinese")
    train_tokenizer(recipe.base.scratch.tokenizer, [folder / "chinese"], folder / "tokenizer")
    pack_corpus(
        folder / "chinese",
        folder / "tokenizer",
        folder / "packs",
        packing=corpus.packing,
        sources=corpus.sources,
        sequence_length=128,
        batch_sequences=4,
        steps=50,
        seed=7,
    )
    examples = [
        (e.id, e.source, e.language, [(t.text, t.train) for t in e.turns]) for e in corpus_examples(folder / "chinese")
    ]
    arrays = {p.stem: digest_bytes(np.load(p).tobytes()) for p in sorted((folder / "packs").glob("*.npy"))}
    return {
        "world": digest_folder(folder / "world"),
        "examples": digest_json(examples),  # contents: the bytes of Parquet depend on its writer's version
        "tokenizer": digest_file(folder / "tokenizer" / "tokenizer.json"),
        "packs": digest_json(arrays),
    }


@pytest.mark.parametrize("stage", list(GOLDEN))
def test_bytes_of_the_data_stages(made: dict[str, str], stage: str) -> None:
    assert made[stage] == GOLDEN[stage], (
        f"bytes changed: raise the number of this stage in VERSIONS (pipeline/run.py), then store {made[stage]}"
    )
