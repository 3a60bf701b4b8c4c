import json
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from pandallm.errors import BadInput
from pandallm.report.answers import SCRIPT_TEXTS, render, write_answers
from pandallm.report.answers_text import TEXT
from pandallm.store import write_json, write_jsonl

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028&\"'"


def example(models: list[str], judged: bool = False) -> tuple[dict[str, Any], list[Any], list[Any], list[Any]]:
    prompts = [
        {"id": "p1", "category": "letter", "language": "zh", "turns": [EVIL]},
        {"id": "p2", "category": "code", "language": "en", "turns": ["one", "two"]},
    ]
    answers = [
        {
            "id": p["id"],
            "category": p["category"],
            "language": p["language"],
            "model": m,
            "turn": k,
            "text": f"{EVIL} {m_i}.{k}",
            "tokens": 7,
            "stopped": "length",
        }
        for p in prompts
        for m_i, m in enumerate(models)
        for k in range(len(p["turns"]))
    ]
    fact = {
        "chat_template": True,
        "max_new_tokens": 9,
        "answers": 3,
        "eos": 0,
        "length": 3,
        "no_room": 0,
        "empty": 0,
        "mean_tokens": 7.0,
        "mean_characters": 9.0,
        "seconds": 1.0,
    }
    summary: dict[str, Any] = {
        "digest": "d" * 64,
        "seed": 0,
        "prompts": 2,
        "max_new_tokens": 9,
        "dtype": "float32",
        "device": "cpu",
        "models": [{"name": m, **fact} for m in models],
        "order": {"p1": models[::-1], "p2": models},
    }
    rows = []
    if judged:
        pair = {
            "a": models[0],
            "b": models[1],
            "prompts": 2,
            "a_wins": 1,
            "ties": 1,
            "b_wins": 0,
            "win_rate": 0.75,
            "low": 0.0,
            "high": 1.0,
            "p": 0.5,
            "p_sign": 1.0,
            "p_holm": 0.5,
        }
        summary["judge"] = {
            "model": EVIL,
            "left_out": 0,
            "version": "v",
            "system": "s",
            "asked": 4,
            "unparsed": 0,
            "too_long": 0,
            "identical": 0,
            "consistent": 1,
            "inconsistent": 1,
            "first_preferred": None,
            "pairs": [pair],
        }
        rows = [
            {
                "id": "p1",
                "a": models[0],
                "b": models[1],
                "first": models[0],
                "verdict": "1",
                "preferred": models[0],
                "identical": False,
                "reply": EVIL,
            }
        ]
    return summary, prompts, answers, rows


class Tags(HTMLParser):
    """The tags of a page, the text of its scripts, and the text that readers see."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else self._inside

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif not self._inside:
            self.text += data


@pytest.mark.parametrize("models", [["甲 <b>x</b>", "other"], ["alone"], ["a", "b", "c"]])
def test_no_text_becomes_markup_and_nothing_comes_from_the_network(models: list[str]) -> None:
    page = render(*example(models, judged=len(models) > 1))
    found = Tags(page)
    assert [t for t, _ in found.tags].count("script") == 2
    assert "img" not in [t for t, _ in found.tags]
    assert not [
        a
        for _, a in found.tags
        if "src" in a or a.get("href", "#results") != "#results" or any(k.startswith("on") for k in a)
    ]
    assert "://" not in re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    assert EVIL.replace("\u2028", "") in found.text.replace("\u2028", "")
    data = json.loads(found.scripts[0])
    assert data["models"] == models
    if len(models) > 1:
        assert data["judged"]["p1"][0]["reply"] == EVIL


def test_names_stand_nowhere_among_the_answers() -> None:
    """The tables that name models lie in the part that stays hidden until all is revealed."""
    page = render(*example(["first-model", "second-model"], judged=True))
    cards, rest = page.split('<section aria-labelledby="results">')
    assert "first-model" not in cards
    assert "second-model" not in cards
    assert 'id="revealed" hidden' in rest
    assert rest.index('id="revealed" hidden') < rest.index("first-model")


def test_answers_stand_in_the_order_drawn() -> None:
    cards = render(*example(["a", "b"])).split("<article")

    def texts(card: str) -> list[str]:
        return re.findall(r'class="text">.*?&#39; (\d\.\d)</p>', card, re.S)

    assert texts(cards[1]) == ["1.0", "0.0"]
    assert texts(cards[2]) == ["0.0", "1.0", "0.1", "1.1"]


def test_every_sentence_is_used_and_bilingual_with_the_same_holes() -> None:
    assets = files("pandallm.report") / "assets"
    source = (assets / "answers.html.j2").read_text(encoding="utf-8")
    used = set(re.findall(r't\("(\w+)"', source)) | set(SCRIPT_TEXTS)
    assert used == set(TEXT)
    for key, (en, zh) in TEXT.items():
        assert set(re.findall(r"\{(\w+)\}", en)) == set(re.findall(r"\{(\w+)\}", zh)), key
        assert key == "p" or en != zh


def test_the_page_is_written_from_the_folder_and_a_missing_file_told(tmp_path: Path) -> None:
    summary, prompts, answers, _ = example(["a", "b"])
    write_json(tmp_path / "answers.json", summary)
    write_jsonl(tmp_path / "prompts.jsonl", prompts)
    with pytest.raises(BadInput, match=r"answers\.jsonl does not exist"):
        write_answers(tmp_path)
    assert not (tmp_path / "answers.html").exists()
    write_jsonl(tmp_path / "answers.jsonl", answers)
    assert write_answers(tmp_path).read_text(encoding="utf-8").startswith("<!doctype html>")
