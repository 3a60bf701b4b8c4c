"""A stage with a chat template, from the recipe to the model that is talked with; models that are asked in another form than they learnt."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from pandallm.errors import BadInput
from pandallm.evaluate.generate import eos_ids
from pandallm.model.folder import load_model, load_tokenizer
from pandallm.model.scratch import init_scratch
from pandallm.model.spec import ArchitectureSpec
from pandallm.pipeline.chat import prompt_ids
from pandallm.pipeline.chat_forms import mismatches
from pandallm.pipeline.data import build_data
from pandallm.pipeline.data_show import show_stage
from pandallm.pipeline.evaluate_one import BackendOptions, LoadedTasks, evaluate_folder, make_spec
from pandallm.pipeline.graph import stage_graph
from pandallm.pipeline.held_out import held_out
from pandallm.pipeline.run import Run
from pandallm.recipe.load import load_recipe
from pandallm.store import read_json, write_jsonl
from tests.data.small_tokenizers import byte_level

RECIPE = """\
name: chats
base: {model: MODEL, extend: {special: ["<|im_start|>"]}}
corpora:
  texts: {sources: {wiki: {adapter: wiki, files: "RAW/wiki.jsonl"}}}
  talks: {sources: {said: {adapter: messages, files: "RAW/said.jsonl"}}}
stages:
  pretrain: {from: base, corpus: texts, steps: 1, sequence_length: 64, batch_sequences: 1, optimizer: {lr: 1e-3}}
  instruct:
    {from: pretrain, corpus: talks, steps: 2, sequence_length: 128, batch_sequences: 2, optimizer: {lr: 1e-3}, chat_template: chatml}
  more: {from: instruct, corpus: talks, steps: 1, sequence_length: 128, batch_sequences: 2, optimizer: {lr: 1e-3}}
tasks: {lake: "RAW/lake.yaml"}
evaluate: {models: [instruct], tasks: [lake], prompts: [text], methods: [likelihood], chat: on}
runtime: {workers: 1, threads: 1, device: cpu, store: "ROOT/store", runs: "ROOT/runs"}
"""


class Told:
    """Progress that keeps what was said."""

    def __init__(self) -> None:
        from pandallm.progress import SILENT

        self.lines: list[str] = []
        self.task = SILENT.task

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("forms")
    raw = root / "raw"
    raw.mkdir()
    roles = ("system", "user", "assistant", "user", "assistant")
    said = [[f"简短{i}", f"问{i}<|im_end|>？", f"答{i}。", f"再问{i}", f"再答{i}。"] for i in range(8)]
    talks = [{"messages": [{"role": r, "content": c} for r, c in zip(roles, s, strict=True)]} for s in said]
    write_jsonl(raw / "said.jsonl", talks)
    write_jsonl(
        raw / "wiki.jsonl", [{"id": str(i), "title": "", "text": f"第{i}篇讲的是湖水和远处的山。"} for i in range(8)]
    )
    write_jsonl(raw / "lake.jsonl", [{"id": "q", "context": "c", "question": "q", "options": ["a", "b"], "answer": 0}])
    (raw / "lake.yaml").write_text(
        'name: lake\nreader: mcq\nfiles: lake.jsonl\nprompts: {text: {template: "{question}\\n"}}\n', encoding="utf-8"
    )
    spec = ArchitectureSpec(hidden_size=16, layers=1, heads=2, intermediate_size=16, max_position_embeddings=512)
    init_scratch(spec, byte_level(root / "tokenizer"), root / "base", seed=0)
    recipe = root / "recipe.yaml"
    text = RECIPE.replace("MODEL", str(root / "base")).replace("RAW", str(raw)).replace("ROOT", str(root))
    recipe.write_text(text, encoding="utf-8")
    return recipe


def run_of(file: Path, *changes: str) -> tuple[Run, Told]:
    told = Told()
    return Run(load_recipe(str(file), changes), progress=told), told


def test_from_recipe_to_the_model_that_is_talked_with(file: Path) -> None:
    from transformers import AutoTokenizer

    run, told = run_of(file)
    run.execute()
    folder = run.folder / "models" / "instruct"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), load_model(folder)
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert tokenizer.decode([start, end], skip_special_tokens=True) == ""
    asked = [{"role": "system", "content": "s"}, {"role": "user", "content": "问"}]
    text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\n问<|im_end|>\n<|im_start|>assistant\n"
    assert prompt_ids(tokenizer, asked) == tokenizer.encode(text)
    assert eos_ids(model, tokenizer) == {end, tokenizer.eos_token_id}
    # The stage before has no template, the one after keeps what it started from.
    assert load_tokenizer(run.folder / "models" / "pretrain").chat_template is None
    assert load_tokenizer(run.folder / "models" / "more").chat_template == tokenizer.chat_template
    assert not any("Warning" in line for line in told.lines)
    # Eight examples of two answers: each ends with a trained end of turn, and what the user typed is none.
    made = {r.name: r.artifact for r in run.records}
    packs = made["pack instruct"].manifest["facts"]
    assert packs["chat_template"] == {"name": "chatml", "end_of_turn": "<|im_end|>", "end_of_turn_id": end}
    assert made["extend vocabulary"].manifest["facts"]["pieces"]["special"] == 1
    scores = read_json(run.folder / "scores.json")
    assert [(row["model"], row["chat"]) for row in scores["table"]] == [("instruct", True)]
    again, told = run_of(file)
    again.execute()
    assert all(r.reused for r in again.records)
    nodes = {node.name: node for node in stage_graph(run.recipe)}
    for record in run.records:
        if record.kind in ("extend", "pack", "train"):
            assert nodes[record.name].settings == record.artifact.manifest["settings"], record.name
            assert set(nodes[record.name].inputs) == set(record.artifact.manifest["inputs"]), record.name


def test_an_adapter_is_merged_into_a_model_with_the_template(file: Path) -> None:
    pytest.importorskip("peft")
    run, _ = run_of(file, "stages.instruct.method={kind: lora, rank: 2}", "evaluate.chat=both")
    run.execute()
    folder = run.folder / "models" / "instruct"
    assert "<|im_start|>" in (folder / "chat_template.jinja").read_text(encoding="utf-8")
    assert len(read_json(folder / "generation_config.json")["eos_token_id"]) == 2
    assert {row["chat"] for row in read_json(run.folder / "scores.json")["table"]} == {False, True}


def test_another_template_makes_the_packs_anew_and_none_makes_others(file: Path) -> None:
    def key(*changes: str) -> str:
        from pandallm.pipeline.corpora import pack

        run, _ = run_of(file, *changes)
        spec, corpus, _ = run.plans()["instruct"]
        return pack(run, "instruct", spec, corpus).key

    keys = [key(), key("stages.instruct.chat_template=panda"), key("stages.instruct.chat_template=none")]
    assert len(set(keys)) == 3


def test_data_show_tells_the_template_and_the_end_of_turn(file: Path) -> None:
    recipe = load_recipe(str(file))
    console = Console(file=io.StringIO(), width=140)
    show_stage(recipe, "instruct", n=1, seed=0, console=console)
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert "Chat template chatml; an answer ends with <|im_end|>." in printed
    assert "message['role']" in printed
    assert "⟦答" in printed
    assert "。<|im_end|>⟧" in printed


def test_what_does_not_fit_is_told_before_anything_is_trained(file: Path) -> None:
    with pytest.raises(BadInput, match=r"needs <\|start_header_id\|> and .* which the base's vocabulary lacks"):
        run_of(file, "stages.instruct.chat_template=llama3")[0].execute()
    with pytest.raises(BadInput, match=r"chat_template: base is asked for, but the base \(.*\) has no chat template"):
        run_of(file, "stages.instruct.chat_template=base")[0].execute()
    with pytest.raises(
        BadInput, match=r"evaluate\.chat is on, but model pretrain has no chat template: set chat_template"
    ):
        run_of(file, "evaluate.models=[pretrain]")[0].execute()
    with pytest.raises(BadInput, match="chat_template"):
        load_recipe(str(file), ["stages.instruct.chat_template=vicuna"])


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ([], []),
        (
            ["evaluate.chat=off"],
            ["instruct learnt dialogues with chat template chatml (stage instruct) and is asked without"],
        ),
        (["evaluate.chat=both"], []),
        (
            ["evaluate.models=[more]"],
            ["more learnt dialogues without a template (stage more) and is asked with chatml"],
        ),
        (["evaluate.models=[more]", "evaluate.chat=off"], []),
        (["evaluate.models=[pretrain]", "evaluate.chat=off"], []),
    ],
)
def test_a_model_asked_in_another_form_than_it_learnt_is_told(
    file: Path, changes: list[str], wanted: list[str]
) -> None:
    run, _ = run_of(file, *changes)
    plans: Any = run.plans()
    told = mismatches(run.recipe, plans, run.start()[0], {"instruct", "more"})
    assert len(told) == len(wanted)
    assert all(line.startswith(w) for line, w in zip(told, wanted, strict=True))


def test_data_build_tells_what_does_not_fit_before_a_corpus_is_cleaned(file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(
        str(file), ["base.extend=null", f"runtime.store={tmp_path / 'store'}", "stages.instruct.chat_template=llama3"]
    )
    with pytest.raises(BadInput, match="which the base's vocabulary lacks"):
        build_data(recipe)
    made = list((tmp_path / "store" / "artifacts").glob("*/"))
    assert [(folder / "model").is_dir() for folder in made] == [True], "the imported base alone"


def test_held_out_dialogues_are_watched_in_the_form_of_the_stage(file: Path) -> None:
    changes = ["corpora.talks.held_out.documents=2", "stages.instruct.watch={every: 1}"]
    keys = set()
    for template in ("chatml", "none"):
        run, _ = run_of(file, *changes, f"stages.instruct.chat_template={template}")
        spec, corpus, _ = run.plans()["instruct"]
        made = held_out(run, "instruct", spec, corpus)
        assert made is not None
        keys.add(made.key)
        tokenizer = load_tokenizer(run.start()[0])
        ids, scored = (np.load(made.path / f"{name}.npy") for name in ("input_ids", "scored"))
        text, answers = tokenizer.decode(ids), tokenizer.decode(ids[scored.astype(bool)])
        assert ("<|im_start|>user\n问" in text) == (template == "chatml")
        assert re.fullmatch(r"(答\d。再答\d。){2}", answers)
        assert made.manifest["facts"]["bytes"] == len(answers.encode())
    assert len(keys) == 2


def test_panda_eval_tells_of_a_model_that_is_asked_without_its_template(file: Path) -> None:
    run, _ = run_of(file)
    run.execute()
    folder = str(run.folder / "models" / "instruct")
    loaded = LoadedTasks([run.tasks()["lake"]])
    heard = {}
    for chat in ("off", "on"):
        told = Told()
        spec = make_spec(folder, loaded.tasks, {"prompts": ["text"], "chat": chat})
        evaluate_folder(folder, loaded, spec, out=None, options=BackendOptions(devices=("cpu",)), progress=told)
        heard[chat] = [line for line in told.lines if "chat template" in line]
    assert heard["on"] == []
    (line,) = heard["off"]
    assert line.endswith("learnt dialogues with chat template chatml and is asked without; --chat on asks with it.")


SCRATCH = (
    "base={scratch: {architecture: {hidden_size: 16, layers: 1, heads: 2, intermediate_size: 16},"
    " tokenizer: {size: 420, special: SPECIAL}, train: {corpus: texts, steps: 1, sequence_length: 64, batch_sequences: 1,"
    " optimizer: {lr: 1e-3}}}}"
)


def test_a_base_from_scratch_has_the_tokens_of_a_template_or_is_refused_at_once(file: Path, tmp_path: Path) -> None:
    changes = ["evaluate.models=[instruct]", f"runtime.store={tmp_path / 'store'}"]
    with pytest.raises(BadInput, match=r"needs <\|im_start\|> and <\|im_end\|>: add base.scratch.tokenizer.special"):
        build_data(load_recipe(str(file), [*changes, SCRATCH.replace("SPECIAL", "[]")]))
    assert not list((tmp_path / "store").glob("artifacts/*"))
    run, _ = run_of(file, *changes, SCRATCH.replace("SPECIAL", '["<|im_start|>", "<|im_end|>"]'))
    run.execute()
    assert [row["chat"] for row in read_json(run.folder / "scores.json")["table"]] == [True]
    assert load_tokenizer(run.folder / "models" / "instruct").chat_template
