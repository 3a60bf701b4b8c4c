"""Our scores against lm-evaluation-harness 0.4.13 itself, on our exported tasks: every option of every question."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="lm_eval is not installed; it is part of the extra dev")
pytest.importorskip("accelerate", reason="lm_eval's own hf model needs accelerate: pip install lm_eval[hf]")

from pandallm.evaluate.exchange.results import export_results
from pandallm.evaluate.exchange.tasks import export_task, harness_name
from pandallm.evaluate.run import evaluate_model
from pandallm.evaluate.spec import EvaluateSpec
from pandallm.store import read_json, read_jsonl, write_json, write_jsonl
from pandallm.tasks.load import load_task
from pandallm.tasks.read import read_questions
from pandallm.tasks.spec import TaskSpec
from pandallm.tasks.types import Question
from tests.parity.small import small_llama, write_c3, write_logiqa2

TOLERANCE = 1e-3  # nats
PROMPTS = ("letter", "text")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[TaskSpec, list[Question]]]:
    folder = tmp_path_factory.mktemp("published")
    write_c3(folder / "c3-m-dev.json", "m", 40, 1)
    write_c3(folder / "c3-d-dev.json", "d", 40, 2)
    write_logiqa2(folder / "dev_zh.txt", 80, 3)
    files = {"c3-m": "c3-m-dev.json", "c3-d": "c3-d-dev.json", "logiqa2-zh": "dev_zh.txt"}
    return [(load_task(name), read_questions(load_task(name), [folder / file])) for name, file in files.items()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_llama(tmp_path_factory.mktemp("llama") / "model", positions=2048)


@pytest.fixture(scope="module")
def theirs(
    tasks: Sequence[tuple[TaskSpec, list[Question]]], folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    import datasets
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    exported = tmp_path_factory.mktemp("exported")
    names = [export_task(task, p, questions, exported).path.stem for task, questions in tasks for p in PROMPTS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", exported / ".datasets")
        patch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        return lm_eval.simple_evaluate(
            model=HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=16),
            tasks=names,
            task_manager=TaskManager(include_path=str(exported), include_defaults=False),
            bootstrap_iters=1,
        )


@pytest.fixture(scope="module")
def scores(
    tasks: Sequence[tuple[TaskSpec, list[Question]]], folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What an evaluation of ours leaves: rows.jsonl, tasks.json, questions.jsonl."""
    out = tmp_path_factory.mktemp("ours")
    spec = EvaluateSpec(models=("model",), tasks=tuple(t.name for t, _ in tasks), prompts=PROMPTS)
    evaluate_model(folder, "model", tasks, {}, spec, out, device="cpu")
    write_json(out / "tasks.json", [t.model_dump(mode="json") for t, _ in tasks])
    write_jsonl(out / "questions.jsonl", [{**q.__dict__, "options": list(q.options)} for _, qs in tasks for q in qs])
    return out


@pytest.fixture(scope="module")
def rows(scores: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in read_jsonl(scores / "rows.jsonl"):
        found.setdefault(harness_name(row["task"], row["prompt"]), []).append(row)
    return found


def test_every_option_of_every_question(theirs: Any, rows: dict[str, list[dict[str, Any]]]) -> None:
    compared = 0
    assert set(rows) == set(theirs["samples"])
    for name, samples in theirs["samples"].items():
        assert [r["id"] for r in rows[name]] == [s["doc"]["id"] for s in samples]
        for row, sample in zip(rows[name], samples):
            expected = [score for score, _ in sample["filtered_resps"]]
            assert row["scores"] == pytest.approx(expected, abs=TOLERANCE), (name, row["id"])
            gap = sorted(expected)[-1] - sorted(expected)[-2]
            assert gap > 1e-4, "a tie would make the next line a matter of rounding: choose another seed"
            assert row["choice"] == max(range(len(expected)), key=lambda i: (expected[i], -i))
            assert row["correct"] == bool(sample["acc"])
            compared += len(expected)
    assert compared > 1500


def test_accuracies_also_by_length(theirs: Any, rows: dict[str, list[dict[str, Any]]]) -> None:
    """acc; and acc_norm, acc_bytes of option texts against our choices by characters and bytes."""
    for name, of in rows.items():
        figures = theirs["results"][name]
        assert figures["acc,none"] == pytest.approx(sum(r["correct"] for r in of) / len(of))
        if name.endswith("_text") and of[0].get("choices"):
            for metric, kind in (("acc_norm", "characters"), ("acc_bytes", "bytes")):
                mine = sum(r["choices"][kind] == r["answer"] for r in of) / len(of)
                assert figures[f"{metric},none"] == pytest.approx(mine), (name, metric)


def test_questions_differ_enough_to_say_something(rows: dict[str, list[dict[str, Any]]]) -> None:
    """A model that always chose one position, or scored all alike, would agree with anything."""
    for name, of in rows.items():
        assert len({r["choice"] for r in of}) > 1, name
        spreads = [max(r["scores"]) - min(r["scores"]) for r in of]
        assert sum(s > 0.1 for s in spreads) > 0.9 * len(spreads), name


def test_exported_results_are_what_the_harness_writes(theirs: Any, scores: Path, tmp_path: Path) -> None:
    """Metrics with their standard errors, counts, versions, hashes and every sample's fields."""
    written = export_results(scores, tmp_path)
    results = read_json(next(p for p in written if p.name.startswith("results_")))
    for name, figures in theirs["results"].items():
        assert set(results["results"][name]) == set(figures)
        for key, value in figures.items():
            expected = pytest.approx(value, abs=1e-9) if isinstance(value, float) else value
            assert results["results"][name][key] == expected, (name, key)
        for part in ("versions", "n-samples", "higher_is_better"):
            assert results[part][name] == theirs[part][name], part
        config = {**theirs["configs"][name], "metadata": {"version": theirs["versions"][name]}}  # theirs adds its place
        assert {k: config[k] for k in results["configs"][name]} == results["configs"][name]
        ours = list(read_jsonl(next(p for p in written if p.name.startswith(f"samples_{name}_"))))
        for mine, sample in zip(ours, theirs["samples"][name], strict=True):
            assert set(mine) == set(sample)
            for key in (
                "doc_id",
                "doc",
                "filter",
                "metrics",
                "doc_hash",
                "prompt_hash",
                "target_hash",
                *sample["metrics"],
            ):
                assert mine[key] == sample[key], key
            assert mine["target"] == str(sample["target"])
            assert [(a["arg_0"], a["arg_1"]) for a in mine["arguments"].values()] == sample["arguments"]
            assert [float(s) for s, _ in mine["filtered_resps"]] == pytest.approx(
                [s for s, _ in sample["filtered_resps"]], abs=TOLERANCE
            )
