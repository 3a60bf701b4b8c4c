import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pandallm.errors import BadInput, PandaError
from pandallm.evaluate.open_ended import shown_order
from pandallm.pipeline.answers import answer_side_by_side, judge_answers, tally
from pandallm.store import read_json, read_jsonl
from tests.evaluate.conftest import model_folder  # noqa: F401 (a fixture)
from tests.evaluate.judge_server import judge_server


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    file = tmp_path / "prompts.jsonl"
    lines: list[dict[str, Any]] = [{"id": f"p{i}", "turns": [f"问题{i}"], "category": "letter"} for i in range(5)]
    lines.append({"id": "talk", "turns": ["湖边", "山上"]})
    file.write_text("".join(json.dumps(x) + "\n" for x in lines), encoding="utf-8")
    return str(file)


@pytest.fixture(scope="module")
def models(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:  # noqa: F811
    """The tiny Llama, and a second one with other weights."""
    import torch
    from transformers import AutoModelForCausalLM

    other = tmp_path_factory.mktemp("answers") / "other"
    shutil.copytree(model_folder, other)
    model = AutoModelForCausalLM.from_pretrained(other, dtype=torch.float32)
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * 0.3)
    model.save_pretrained(other)
    return [f"one={model_folder}", str(other)]


def answer(models: list[str], prompts: str, out: Path, **more: Any) -> dict[str, Any]:
    return answer_side_by_side(models, prompts, out, max_new_tokens=8, dtype="float32", device="cpu", **more)


def files_of(out: Path) -> dict[str, bytes]:
    names = ("answers.jsonl", "prompts.jsonl", "answers.html")
    return {name: (out / name).read_bytes() for name in names}


def test_answers_order_and_page_are_written_and_a_second_call_changes_nothing(
    models: list[str], prompts: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    summary = answer(models, prompts, out)
    rows = list(read_jsonl(out / "answers.jsonl"))
    assert len(rows) == 2 * 7
    assert [m["name"] for m in summary["models"]] == ["one", "other"]
    assert {r["model"] for r in rows} == {"one", "other"}
    assert [(r["turn"], r["model"]) for r in rows[-4:]] == [(0, "one"), (1, "one"), (0, "other"), (1, "other")]
    assert all(r["stopped"] == ("length" if r["tokens"] == 8 else "eos") for r in rows)
    for m in summary["models"]:
        mine = [r for r in rows if r["model"] == m["name"]]
        assert m["answers"] == 7
        assert m["mean_tokens"] == sum(r["tokens"] for r in mine) / 7
        assert m["eos"] + m["length"] == 7
        assert not m["chat_template"]
    assert summary["order"] == {f"p{i}": shown_order(0, f"p{i}", ["one", "other"]) for i in range(5)} | {
        "talk": shown_order(0, "talk", ["other", "one"])
    }
    before = files_of(out)
    assert answer(models, prompts, out)["digest"] == summary["digest"]
    assert files_of(out) == before
    assert answer(models, prompts, out, seed=5)["digest"] != summary["digest"]


def test_a_killed_call_goes_on_without_answering_again(
    models: list[str], prompts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(models, prompts, tmp_path / "whole")

    import pandallm.evaluate.generate as generate

    real = generate.generate
    calls: list[int] = []

    def counting(*a: Any, **k: Any) -> Any:
        calls.append(sum(not k["done"](i) for i in range(len(a[2]))))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*a, **k)

    monkeypatch.setattr(generate, "generate", counting)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        answer(models, prompts, out)
    assert not (out / "answers.json").exists()
    answer(models, prompts, out)
    assert calls == [6, 1, 6, 0, 0, 6, 1]  # the first model's answers were kept
    assert files_of(out) == files_of(tmp_path / "whole")


def test_other_weights_are_other_answers(models: list[str], prompts: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer([f"x={models[1]}"], prompts, out)
    first = list(read_jsonl(out / "answers.jsonl"))
    answer(["x=" + models[0].partition("=")[2]], prompts, out)
    assert [r["text"] for r in read_jsonl(out / "answers.jsonl")] != [r["text"] for r in first]


def test_bad_input_is_told_and_writes_nothing(models: list[str], prompts: str, tmp_path: Path) -> None:
    folder = models[1]
    for given, sentence in [
        ([folder, folder], "Two models are called 'other'"),
        ([str(tmp_path / "nowhere")], "is not a folder"),
    ]:
        with pytest.raises(BadInput, match=sentence):
            answer(given, prompts, tmp_path / "out")
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("x")
    with pytest.raises(BadInput, match="exists and is not a folder of panda answers"):
        answer([folder], prompts, full)
    with pytest.raises(BadInput, match="is not a folder of panda answers"):
        judge_answers(full, "http://localhost:1/v1", "j")
    assert not (tmp_path / "out").exists()
    assert [p.name for p in full.iterdir()] == ["mine.txt"]


def test_a_judge_is_written_down_and_survives_the_same_answers_only(
    models: list[str], prompts: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    answer(models, prompts, out)
    with judge_server(lambda body: (200, "First.\n[[1]]")) as (url, seen):
        judged = judge_answers(out, url, "the-judge")
        asked = len(seen)
        judge_answers(out, url, "the-judge")
        assert len(seen) == asked  # kept
    assert 0 < asked <= 12
    rows = list(read_jsonl(out / "judgements.jsonl"))
    assert len(rows) == 12
    assert {(r["judge"], r["version"]) for r in rows} == {("the-judge", "pairwise-1")}
    assert judged["judge"]["inconsistent"] == judged["judge"]["pairs"][0]["ties"] - judged["judge"]["identical"]
    assert read_json(out / "answers.json")["judge"] == judged["judge"]
    assert "the-judge" in (out / "answers.html").read_text(encoding="utf-8")
    assert answer(models, prompts, out)["judge"] == judged["judge"]
    assert "judge" not in answer(models, prompts, out, seed=3)
    assert not (out / "judgements.jsonl").exists()


def test_a_server_that_refuses_leaves_the_answers_as_they_were(models: list[str], prompts: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    answer(models, prompts, out)
    before = files_of(out)
    with (
        judge_server(lambda body: (401, {"error": "no key"})) as (url, _),
        pytest.raises(PandaError, match="OPENAI_API_KEY"),
    ):
        judge_answers(out, url, "the-judge")
    assert files_of(out) == before
    assert not (out / "judgements.jsonl").exists()


def test_votes_are_tallied_by_model_not_by_place(models: list[str], prompts: str, tmp_path: Path) -> None:
    """One reader prefers `one` on p0 to p3 wherever it stands, ties on p4, and skips the dialogue."""
    out = tmp_path / "out"
    summary = answer(models, prompts, out)
    votes = {p: [1, 2] if order[0] == "one" else [2, 1] for p, order in summary["order"].items() if p in "p0p1p2p3"}
    file = tmp_path / "votes.json"
    data = {"version": 1, "digest": summary["digest"], "votes": votes | {"p4": [1, 1]}}
    file.write_text(json.dumps(data))
    found = tally(out, [file])
    (pair,) = found["pairs"]
    assert (pair["a"], pair["b"]) == ("one", "other")
    assert (pair["a_wins"], pair["ties"], pair["b_wins"]) == (4, 1, 0)
    assert pair["win_rate"] == pytest.approx(0.9)
    assert pair["p_sign"] == pytest.approx(2 / 16)
    assert (found["readers"], found["voted"], found["votes"]) == (1, 5, 5)
    assert read_json(out / "votes_summary.json") == found


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"version": 2}, "is not a votes.json"),
        ({"digest": "x"}, "votes on other answers"),
        ({"votes": {"q": [1, 2]}}, "there is no prompt 'q'"),
        ({"votes": {"p0": [1]}}, "expected 2 ranks from 1 to 2"),
        ({"votes": {"p0": [0, 1]}}, "expected 2 ranks from 1 to 2"),
        ({"votes": {"p0": [True, 1]}}, "expected 2 ranks from 1 to 2"),
        ({"votes": {}}, "holds no votes"),
        ({"votes": []}, "is not a votes.json"),
    ],
)
def test_wrong_votes_are_refused(change: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    order = {"p0": ["a", "b"]}
    models = [{"name": "a"}, {"name": "b"}]
    (tmp_path / "answers.json").write_text(json.dumps({"digest": "d", "order": order, "models": models, "prompts": 1}))
    (tmp_path / "answers.jsonl").write_text("")
    (tmp_path / "prompts.jsonl").write_text('{"id": "p0", "turns": ["x"]}\n')
    file = tmp_path / "v.json"
    file.write_text(json.dumps({"version": 1, "digest": "d", "votes": {"p0": [1, 2]}} | change))
    with pytest.raises(BadInput, match=sentence):
        tally(tmp_path, [file])
