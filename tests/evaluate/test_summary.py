import json
from typing import Any

import pytest

from pandallm.errors import BadInput
from pandallm.evaluate.spec import EvaluateSpec
from pandallm.evaluate.summary import summarize
from pandallm.tasks.spec import TaskSpec
from pandallm.tasks.types import Question

N = 20
TASK = TaskSpec.model_validate(
    {
        "name": "t",
        "title": "T",
        "reader": "mcq",
        "near_chance": "hard",
        "prompts": {"p": {"template": "a"}, "q": {"template": "b"}},
    }
)
QUESTIONS = [Question(str(i), "t", f"c{i // 2}", "", "?", ("x", "y", "z", "w"), i % 4, "test") for i in range(N)]
CONTROL = [Question(f"n{i}", "t", f"n{i}", "", "?", ("x", "y"), 0, "never_seen") for i in range(4)]


def row(model: str, prompt: str, q: Question, right: bool, **fields: Any) -> dict[str, Any]:
    choice = q.answer if right else (q.answer + 1) % len(q.options)
    return {
        "model": model,
        "task": "t",
        "prompt": prompt,
        "method": "likelihood",
        "id": q.id,
        "cluster": q.cluster,
        "group": q.group,
        "options": len(q.options),
        "answer": q.answer,
        "choice": choice,
        "correct": right,
        "scores": None,
        "completion": None,
        **fields,
    }


def rows() -> list[dict[str, Any]]:
    """Base: prompt p right on the first quarter, q never. Tuned: p always, q on the first half. Never-seen: half."""
    out = []
    for i, q in enumerate(QUESTIONS):
        out += [row("base", "p", q, i < N / 4), row("base", "q", q, False)]
        out += [row("tuned", "p", q, True), row("tuned", "q", q, i < N / 2)]
    for i, q in enumerate(CONTROL):
        out += [row(m, p, q, i < 2) for m in ("base", "tuned") for p in ("p", "q")]
    return out


def spec(**fields: Any) -> EvaluateSpec:
    return EvaluateSpec.model_validate(
        {
            "models": ["base", "tuned"],
            "headline": {"tasks": ["t"], "group": "test"},
            "controls": {"never seen": {"tasks": ["t"], "prompts": ["p"], "group": "never_seen"}},
            **fields,
        }
    )


def bits() -> list[dict[str, Any]]:
    return [
        {
            "model": m,
            "corpus": "c",
            "source": s,
            "language": "zh",
            "id": f"{s}{i}",
            "bits": b + i,
            "bytes": 100,
            "tokens": 9,
        }
        for m, b in (("base", 200.0), ("tuned", 100.0))
        for s, n in (("wiki", 3), ("one", 1))
        for i in range(n)
    ]


def test_scores_by_hand() -> None:
    s = summarize(rows(), bits(), QUESTIONS + CONTROL, [TASK], spec())
    json.dumps(s, allow_nan=False)
    assert s["headline"]["base"]["accuracy"] == pytest.approx(0.125)
    assert s["headline"]["tuned"]["accuracy"] == pytest.approx(0.75)
    assert (s["headline"]["tuned"]["n"], s["headline"]["tuned"]["clusters"]) == (20, 10)
    assert s["headline"]["controls"]["never seen"]["accuracy"] == 0.5
    assert s["headline"]["controls"]["never seen"]["chance"] == 0.5
    assert s["headline_definition"]["group"] == "test"
    first = next(c for c in s["table"] if (c["model"], c["prompt"], c["group"]) == ("tuned", "p", "test"))
    assert (first["accuracy"], first["chance"], first["constant"], first["unparsed"]) == (1, 0.25, 0.25, 0)
    assert first["low"] < first["high"] == 1
    assert (first["title"], first["near_chance"]) == ("T", "hard")
    assert len(s["table"]) == 2 * 2 * 2
    assert [d["what"] for d in s["differences"]] == ["headline", "t/never_seen", "t/test"]
    headline = s["differences"][0]
    assert headline["difference"] == pytest.approx(0.625)
    # All ten passages improve: 2 of 1024 sign patterns.
    assert headline["p"] == pytest.approx(2 / 1024, abs=1e-6)
    assert headline["p_holm"] == headline["p"]
    assert s["differences"][1]["p"] == 1
    assert s["differences"][2]["p_holm"] == pytest.approx(4 / 1024, abs=1e-6)
    wiki = next(b for b in s["bits_per_byte"] if (b["model"], b["source"]) == ("base", "wiki"))
    assert (wiki["bits_per_byte"], wiki["documents"], wiki["bytes"]) == (pytest.approx(2.01), 3, 300)
    single = next(b for b in s["bits_per_byte"] if b["source"] == "one")
    assert single["low"] is None
    (change,) = s["bits_per_byte_changes"]
    assert change["change"] == pytest.approx(403 / 803 - 1, abs=1e-6)
    assert change["low"] < change["change"] < change["high"] < 0


def test_unparsed_counts_as_wrong_and_is_shown() -> None:
    table = [row("base", "p", q, i % 2 == 0) for i, q in enumerate(QUESTIONS)]
    for r in table[1::2]:
        r["choice"] = None
    s = summarize(table, [], QUESTIONS, [TASK], EvaluateSpec(models=("base",)))
    assert (s["table"][0]["accuracy"], s["table"][0]["unparsed"]) == (0.5, 0.5)
    assert (s["headline"], s["headline_definition"], s["differences"]) == ({}, None, [])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"headline": {"tasks": ["u"]}}, "'u' is none of the evaluated tasks"),
        ({"headline": {"tasks": ["t"], "group": "dev"}}, "group 'dev'"),
        ({"headline": {"tasks": ["t"], "method": "generation"}}, "no generation rows"),
        ({"headline": {"tasks": ["t"], "prompts": ["x"]}}, "no prompt 'x'"),
        ({"models": ["base", "gone"]}, "model 'gone' has no"),
    ],
)
def test_selection_without_rows(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        summarize(rows(), [], QUESTIONS + CONTROL, [TASK], spec(**fields))


def test_different_questions_cannot_be_compared() -> None:
    fewer = [r for r in rows() if not (r["model"] == "tuned" and r["id"] == "3")]
    with pytest.raises(BadInput, match="different questions"):
        summarize(fewer, [], QUESTIONS + CONTROL, [TASK], spec())
    with pytest.raises(BadInput, match="not among the questions"):
        summarize(rows(), [], QUESTIONS, [TASK], spec())
