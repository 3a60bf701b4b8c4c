import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from pandallm.errors import BadInput
from pandallm.evaluate.journal import Journal
from pandallm.evaluate.open_ended import Answer, OpenPrompt, answer_prompts, dialogue, load_prompts, shown_order


def test_the_builtin_prompts_cover_both_languages_and_the_same_categories() -> None:
    prompts = load_prompts("builtin")
    by_language = {x: Counter(p.category for p in prompts if p.language == x) for x in ("zh", "en")}
    assert by_language["zh"] == by_language["en"]
    assert len(prompts) == 24
    assert {"refusing", "translating", "code", "letter", "summarising"} <= set(by_language["zh"])
    assert any(len(p.turns) > 1 for p in prompts)
    for p in prompts:
        assert p.id.startswith(f"{p.language}-")
        assert (p.language == "zh") == any("一" <= c <= "鿿" for c in p.turns[0])


def test_jsonl_and_yaml_are_read_alike(tmp_path: Path) -> None:
    lines = tmp_path / "p.jsonl"
    lines.write_text(
        '{"question_id": 81, "category": "writing", "turns": ["甲", "乙"], "reference": ["x"]}\n\n{"prompt": "one"}\n',
        encoding="utf-8",
    )
    yaml = tmp_path / "p.yaml"
    yaml.write_text('- {id: 81, category: writing, turns: ["甲", "乙"]}\n- {prompt: one}\n', encoding="utf-8")
    expected = [
        OpenPrompt(id="81", category="writing", turns=("甲", "乙")),
        OpenPrompt(id="2", turns=("one",)),
    ]
    assert load_prompts(str(lines)) == expected
    assert load_prompts(str(yaml)) == expected


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        (
            "p.jsonl",
            '{"id": "a", "turns": ["x"]}\n{"id": "a", "turns": ["y"]}\n',
            "p.jsonl: record 2: the id 'a' is given twice",
        ),
        ("p.jsonl", '{"id": "a", "turns": []}\n', "p.jsonl: record 1: turns: Tuple should have at least 1 item"),
        ("p.jsonl", '{"id": "a", "turns": ["x", " "]}\n', "record 1: turns: a turn is empty."),
        ("p.jsonl", '{"id": "a", "turn": ["x"]}\n', "unknown field 'turn'. Did you mean 'turns'?"),
        ("p.jsonl", '{"id": "a"}\n', "record 1: turns: Field required."),
        ("p.jsonl", "[1]\n", "expected a mapping with `id` and `turns`, found list"),
        ("p.jsonl", "{\n", "p.jsonl:1: not valid JSON"),
        ("p.jsonl", "", "holds no prompts"),
        ("p.yaml", "a: [", "is not valid YAML"),
        ("p.yaml", "a: 1", "expected a list of prompts"),
        ("p.txt", "x", "give a .jsonl or .yaml file, or builtin"),
    ],
)
def test_wrong_prompts_are_told_in_one_sentence(tmp_path: Path, name: str, text: str, sentence: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(BadInput) as e:
        load_prompts(str(tmp_path / name))
    assert sentence in str(e.value)
    assert "\n" not in str(e.value)


@given(st.lists(st.lists(st.text().filter(lambda t: t.strip()), min_size=1, max_size=3), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_any_text_survives_a_jsonl_file(tmp_path_factory: pytest.TempPathFactory, turns: list[list[str]]) -> None:
    file = tmp_path_factory.mktemp("open") / "p.jsonl"
    file.write_text("".join(json.dumps({"turns": t}) + "\n" for t in turns), encoding="utf-8")
    assert [list(p.turns) for p in load_prompts(str(file))] == turns


def test_the_blind_order_is_fixed_by_seed_and_prompt_and_balanced() -> None:
    names = ["a", "b", "c"]
    ids = [f"p{i}" for i in range(3000)]
    orders = [tuple(shown_order(7, i, names)) for i in ids]
    assert orders == [tuple(shown_order(7, i, names[::-1])) for i in ids]
    assert orders != [tuple(shown_order(8, i, names)) for i in ids]
    counts = Counter(orders)
    assert len(counts) == 6
    # 3000 draws of 6 orders: 500 each, standard deviation 20.4.
    assert all(abs(n - 500) < 4 * 20.4 for n in counts.values())


def encoder(tokenizer: Any) -> Callable[[list[dict[str, str]]], list[int]]:
    return lambda turns: list(tokenizer.encode("".join(f"{t['role']}: {t['content']}\n" for t in turns)))


@pytest.fixture(scope="module")
def loaded(model_folder: Path) -> tuple[Any, Any]:
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32).eval()
    return model, AutoTokenizer.from_pretrained(model_folder)


PROMPTS = [
    OpenPrompt(id="one", turns=("湖边",)),
    OpenPrompt(id="two", turns=("The answer", "山上")),
    OpenPrompt(id="long", turns=("海" * 60, "猫")),
]


def answers(
    loaded: tuple[Any, Any], file: Path, new: int = 6, batch: int = 4096
) -> tuple[list[list[Answer]], list[int]]:
    told: list[int] = []
    with Journal(file, "key") as journal:
        found = answer_prompts(
            *loaded,
            encoder(loaded[1]),
            PROMPTS,
            journal,
            max_new_tokens=new,
            window=100,
            batch_tokens=batch,
            advance=told.append,
        )
    return found, told


def test_answers_are_what_single_greedy_passes_say(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    model, tokenizer = loaded
    found, told = answers(loaded, tmp_path / "j")
    assert [len(a) for a in found] == [1, 2, 2]
    assert sum(told) == 3  # the long prompt's turns are not asked
    for prompt, said in zip(PROMPTS[:2], found):
        for k, answer in enumerate(said):
            ids = encoder(tokenizer)(dialogue(prompt.turns[: k + 1], [a.text for a in said[:k]]))
            new: list[int] = []
            with torch.inference_mode():
                while len(new) < 6:
                    token = int(model(torch.tensor([ids + new])).logits[0, -1].argmax())
                    if token == tokenizer.eos_token_id:
                        break
                    new.append(token)
            assert answer.text == tokenizer.decode(new, skip_special_tokens=True).strip()
            assert answer.tokens == len(new)
            assert answer.stopped == ("length" if len(new) == 6 else "eos")
    assert [a.stopped for a in found[2]] == ["no_room", "no_room"]
    assert found[2][0].text == ""
    assert answers(loaded, tmp_path / "k", batch=1)[0] == found


def test_an_answer_that_ends_itself_is_told_from_one_cut_off(loaded: tuple[Any, Any], tmp_path: Path) -> None:
    model, tokenizer = loaded
    first = int(model(torch.tensor([encoder(tokenizer)(dialogue(PROMPTS[0].turns, []))])).logits[0, -1].argmax())
    stored = model.generation_config.eos_token_id
    model.generation_config.eos_token_id = [0, first]
    try:
        found, _ = answers(loaded, tmp_path / "j")
    finally:
        model.generation_config.eos_token_id = stored
    assert found[0] == [Answer(text="", tokens=0, stopped="eos")]


def test_a_killed_run_goes_on(loaded: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = answers(loaded, tmp_path / "whole", batch=1)
    monkeypatch.setattr(Journal, "add", limited(Journal.add, 1))
    with pytest.raises(KeyboardInterrupt):
        answers(loaded, tmp_path / "killed", batch=1)
    monkeypatch.undo()
    again, told = answers(loaded, tmp_path / "killed", batch=1)
    assert again == whole
    assert told[0] == 1
    assert sum(told) == 3


def limited(add: Callable[..., None], calls: int) -> Callable[..., None]:
    left = [calls]

    def few(self: Journal, values: Any) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        add(self, values)

    return few
