"""`base.extend` in a recipe: the new base is an ordinary folder, told in numbers, reused, and trained from."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pandallm.errors import BadInput
from pandallm.model.folder import load_tokenizer
from pandallm.model.scratch import init_scratch
from pandallm.model.spec import ArchitectureSpec
from pandallm.pipeline.run import Run
from pandallm.recipe.load import load_recipe
from pandallm.store import read_json, read_jsonl
from tests.data.small_tokenizers import byte_level, sentencepiece

CHINESE = [
    "熊猫喜欢吃竹子，熊猫住在四川的山里。",
    "四川的竹子长得很快，竹子是熊猫的食物。",
    "我们在中国看熊猫 the panda eats bamboo。",
]
RECIPE = """\
name: extended
base:
  model: MODEL
  extend: {corpora: [chinese], size: 80, min_frequency: 5}
corpora:
  chinese:
    dedup: {kind: none}
    held_out: {documents: 6}
    sources:
      pandas: {adapter: wiki, files: FILES}
stages:
  pretrain: {from: base, corpus: chinese, steps: 2, sequence_length: 64, batch_sequences: 2, optimizer: {lr: 1e-3}}
release: {base: original, target: pretrain}
runtime: {workers: 1, threads: 1, device: cpu, store: STORE, runs: RUNS}
"""


@pytest.fixture(scope="module", params=["bytes", "fallback"])
def recipe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bases")
    tokenizer = (byte_level if request.param == "bytes" else sentencepiece)(root / "tokenizer")
    spec = ArchitectureSpec(hidden_size=32, layers=1, heads=2, intermediate_size=32, tie_embeddings=True)
    init_scratch(spec, tokenizer, root / "base", seed=0)
    if request.param == "fallback":
        (root / "base" / "tokenizer.model").write_bytes((tokenizer / "tokenizer.model").read_bytes())
    (root / "base" / "LICENSE").write_text("free")
    lines = [{"id": str(i), "title": f"第{i}篇", "text": CHINESE[i % 3] + f"第{i}页"} for i in range(60)]
    (root / "wiki.jsonl").write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in lines), encoding="utf-8")
    text = RECIPE.replace("MODEL", str(root / "base")).replace("FILES", str(root / "wiki.jsonl"))
    file = root / "recipe.yaml"
    file.write_text(text.replace("STORE", str(root / "store")).replace("RUNS", str(root / "runs")), encoding="utf-8")
    return file


class Told:
    """Progress that keeps what was said."""

    def __init__(self) -> None:
        from pandallm.progress import SILENT

        self.lines: list[str] = []
        self.task = SILENT.task

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_the_extended_base_is_an_ordinary_folder_with_facts(recipe: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    told = Told()
    run = Run(load_recipe(str(recipe)), progress=told)
    folder, digest = run.start()
    original, before = run.original()
    assert digest != before
    record = run.records[-1]
    facts: dict[str, Any] = dict(record.artifact.manifest["facts"])
    assert record.name == "extend vocabulary"
    assert facts["tokens"] > facts["tokens_before"]
    assert facts["rows"] % 64 == 0
    total = facts["characters_per_token"]["total"]
    assert facts["characters_per_token"]["text"] == "held out"
    assert total["documents"] == 6
    assert total["characters_per_token_after"] > 2 * total["characters_per_token_before"]
    assert any("characters per token on held out text" in line for line in told.lines)

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert len(tokenizer) == facts["tokens"] <= model.config.vocab_size == facts["rows"]
    old = load_tokenizer(original)
    for text in ("the panda eats bamboo", "熊猫 and 竹子"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert (ids == old(text, add_special_tokens=False)["input_ids"]) == text.isascii()
    assert tokenizer.eos_token_id == old.eos_token_id
    assert (folder / "LICENSE").read_text() == "free"
    names = {p.name for p in folder.iterdir()}
    assert {p.name for p in original.iterdir()} <= names
    pieces = list(read_jsonl(folder.parent / "pieces.jsonl"))
    assert len(pieces) == sum(facts["pieces"].values())


def test_it_is_reused_and_its_settings_make_another(recipe: Path) -> None:
    first = Run(load_recipe(str(recipe))).start()
    again = Run(load_recipe(str(recipe)))
    assert again.start() == first
    assert again.records[-1].reused
    assert Run(load_recipe(str(recipe), ["base.extend.init=normal"])).start()[1] != first[1]


def test_training_goes_on_from_it(recipe: Path) -> None:
    run = Run(load_recipe(str(recipe)))
    run.execute()
    facts = {record.name: record.artifact.manifest["facts"] for record in run.records}
    config = read_json(run.folder / "models" / "pretrain" / "config.json")
    assert config["vocab_size"] == facts["extend vocabulary"]["rows"]
    assert (run.folder / "models" / "original" / "config.json").is_file()
    assert facts["train pretrain"]["steps"] == 2
    assert read_json(run.folder / "delta.json")["verified"]


def test_original_is_known_only_where_the_base_is_extended(recipe: Path) -> None:
    models = "evaluate={models: [original, base, pretrain], tasks: []}"
    assert load_recipe(str(recipe), [models]).evaluate is not None
    with pytest.raises(BadInput, match="unknown model 'original'"):
        load_recipe(str(recipe), [models, "base.extend=null"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["base.extend.corpora=[chinees]"], r"unknown corpus 'chinees'\. Did you mean 'chinese'\?"),
        (["base.extend.init=median"], "'median' is not known"),
        (
            ["stages.original={from: base, corpus: chinese, steps: 1, optimizer: {lr: 1e-3}}"],
            r"'original' names the model before base\.extend",
        ),
        (["corpora={}", "stages={}", "base.extend.corpora=[]"], "there is no corpus to learn new pieces on"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(recipe: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load_recipe(str(recipe), overrides)


def test_a_tokenizer_that_cannot_be_extended_is_told_before_corpora_are_cleaned(recipe: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(recipe.parent / "base", base)
    description = read_json(base / "tokenizer.json")
    description["model"]["byte_fallback"], description["pre_tokenizer"] = False, None
    (base / "tokenizer.json").write_text(json.dumps(description), encoding="utf-8")
    run = Run(load_recipe(str(recipe), [f"base.model={base}"]))
    with pytest.raises(BadInput, match="turns unknown characters into"):
        run.start()
    assert [record.kind for record in run.records] == ["import"]


def test_a_base_from_scratch_is_not_extended(recipe: Path) -> None:
    scratch = (
        "base={scratch: {architecture: {hidden_size: 32, layers: 1, heads: 2, intermediate_size: 32}, tokenizer: {size: 400},"
        " train: {corpus: chinese, steps: 1, optimizer: {lr: 1e-3}}}, extend: {size: 10}}"
    )
    with pytest.raises(BadInput, match="extend is for a model that exists already"):
        load_recipe(str(recipe), [scratch])
