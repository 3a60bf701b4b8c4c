"""`panda data` from the inside: what is built, drawn, added up again and compared with benchmarks."""

import glob
import io
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pandallm.data.spec import CorpusSpec
from pandallm.errors import BadInput
from pandallm.pipeline.data import (
    audit_folder,
    audit_recipe,
    build_data,
    clean_scores,
    contamination_of_recipe,
    contamination_of_run,
    excluded,
)
from pandallm.pipeline.data_samples import sample_dropped, sample_examples, sample_quarantine
from pandallm.pipeline.data_show import show_corpora, show_ids, show_stage
from pandallm.pipeline.run import Run
from pandallm.pipeline.show_contamination import print_clean_scores, print_contamination
from pandallm.pipeline.show_data import print_audit, print_build, visible
from pandallm.recipe.load import load_recipe
from pandallm.recipe.spec import Recipe
from pandallm.store import digest_folder, read_json, read_jsonl, write_json
from tests.pipeline.data_example import write_recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return load_recipe(str(write_recipe(tmp_path_factory.mktemp("data"))))


@pytest.fixture(scope="module")
def built(recipe: Recipe) -> dict[str, Any]:
    return build_data(recipe)


@pytest.fixture(scope="module")
def run_folder(recipe: Recipe, built: dict[str, Any]) -> Path:
    run = Run(recipe)
    run.execute()
    assert {"clean texts", "clean talks", "pack instruct"} <= {r.name for r in run.records if r.reused}
    return run.folder


def wide(width: int = 140, **settings: Any) -> Console:
    return Console(file=io.StringIO(), width=width, **settings)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_build_tells_what_became_of_every_record_and_a_second_one_makes_nothing(
    recipe: Recipe, built: dict[str, Any]
) -> None:
    wiki = built["corpora"]["texts"]["sources"]["wiki"]
    assert wiki["records"] == 30
    assert {reason: part["records"] for reason, part in wiki["dropped"].items()} == {
        "contaminated": 1,
        "duplicate": 2,
        "language": 1,
        "too_short": 1,
    }
    assert (wiki["quarantined"]["records"], wiki["held_out"]["records"], wiki["kept"]["records"]) == (1, 2, 22)
    assert built["corpora"]["texts"]["contamination"] == {
        "lake": {"questions": 8, "touched": 1, "documents": 1, "exclude": 0}
    }
    assert built["corpora"]["talks"]["contamination"]["lake"]["exclude"] == 1
    assert built["packs"]["pretrain"]["steps"] == 12
    again = build_data(recipe)
    assert all(part["reused"] for kind in ("corpora", "packs") for part in again[kind].values())
    assert not Path(recipe.runtime.runs).exists(), "a build leaves the run folder alone"


def test_one_corpus_needs_no_base(recipe: Recipe) -> None:
    other = recipe.model_copy(update={"base": recipe.base.model_copy(update={"model": "/nowhere/at/all"})})
    result = build_data(other, ["talks"])
    assert list(result["corpora"]) == ["talks"]
    assert result["packs"] == {}
    with pytest.raises(BadInput, match=r"has no corpus 'talk'\. Did you mean 'talks'"):
        build_data(recipe, ["talk"])


@pytest.mark.parametrize("kind", ["none", "exact", "minhash"])
def test_a_corpus_of_which_nothing_is_left_is_told(recipe: Recipe, kind: str) -> None:
    talks = recipe.corpora["talks"].model_dump(mode="json")
    talks |= {"clean": [{"kind": "length", "min_chars": 9999}], "dedup": {"kind": kind}}
    strict = recipe.model_copy(update={"corpora": {"talks": CorpusSpec.model_validate(talks)}})
    with pytest.raises(BadInput, match="nothing is left to train on"):
        build_data(strict, ["talks"])


@pytest.mark.parametrize("width", [60, 80, 140, 200])
def test_the_funnel_fits_the_terminal_and_holds_the_numbers(built: dict[str, Any], width: int) -> None:
    console = wide(width)
    print_build(built, console)
    text = printed(console)
    assert all(len(line) <= width for line in text.splitlines() if "Folder: " not in line)
    assert "Corpus texts: 38 records" in text
    assert "news [bold]" in text
    row = next(line.split() for line in text.splitlines() if line.startswith("wiki") and "30" in line)
    assert row[1] == "30"
    assert "22" in row
    for reason in ("language", "too_short"):
        assert reason in text
    assert "1 record could not be read" in text
    assert "Stage pretrain: 12 steps of 2 x 64 tokens" in text
    assert "wanted" in text
    if width >= 140:
        assert "contaminated" in text


def test_a_share_that_cannot_be_met_is_told(built: dict[str, Any]) -> None:
    console = wide()
    packs = {**built["packs"]["pretrain"], "warnings": ["Source [b]x[/b] is to be 90 % of the tokens."]}
    print_build({"corpora": {}, "packs": {"pretrain": packs}}, console)
    assert "Source [b]x[/b] is to be 90 %" in printed(console)


def test_examples_are_drawn_by_the_seed(built: dict[str, Any]) -> None:
    folder = Path(built["corpora"]["texts"]["folder"])
    first = sample_examples(folder, 5, 0, ["wiki"])
    assert [r["id"] for r in first] == [r["id"] for r in sample_examples(folder, 5, 0, ["wiki"])]
    assert [r["id"] for r in first] != [r["id"] for r in sample_examples(folder, 5, 1, ["wiki"])]
    assert {r["source"] for r in first} == {"wiki"}
    everything = sample_examples(folder, 1000, 0)
    assert len(everything) == built["corpora"]["texts"]["total"]["kept"]["records"]
    assert all(0 <= r["quality"] <= 1 for r in everything)
    assert len(sample_examples(folder, 1000, 0, part="held_out")) == 4
    with pytest.raises(BadInput, match=r"There is no source 'wikki' here\. Did you mean 'wiki'"):
        sample_examples(folder, 5, 0, ["wikki"])


def test_dropped_records_have_their_place_and_duplicates_their_partner(built: dict[str, Any]) -> None:
    folder = Path(built["corpora"]["texts"]["folder"])
    found = sample_dropped(folder, 20, 0)
    assert next(iter(found)) == "duplicate"
    assert {reason: entry["records"] for reason, entry in found.items()} == {
        "duplicate": 2,
        "contaminated": 1,
        "language": 1,
        "too_short": 1,
    }
    kept = {r["id"]: r for r in sample_examples(folder, 1000, 0) + sample_examples(folder, 1000, 0, part="held_out")}
    for row in found["duplicate"]["rows"]:
        assert row["partner"]["text"] == "".join(t["text"] for t in kept[row["detail"]]["turns"])
        assert row["partner"]["source"] == "wiki"
    assert found["too_short"]["rows"][0]["line"] == 28
    assert len(sample_dropped(folder, 1, 0, ["duplicate"])["duplicate"]["rows"]) == 1
    (broken,) = sample_quarantine(folder, 5, 0)["rows"]
    assert (broken["file"], broken["line"]) == ("wiki.jsonl", 8)


def test_trained_text_is_marked_with_and_without_colour(recipe: Recipe, built: dict[str, Any]) -> None:
    plain = wide(80)
    show_corpora(recipe, ["talks"], "examples", n=7, seed=0, console=plain)
    assert "问0：怎么走？\n⟦走" in printed(plain)
    assert "\x1b[32m" not in printed(plain)
    coloured = wide(80, force_terminal=True, color_system="standard")
    show_corpora(recipe, ["talks"], "examples", n=7, seed=0, console=coloured)
    assert "问0：怎么走？\n\x1b[32m走" in printed(coloured)
    assert "⟦" not in printed(coloured)
    no_colour = wide(80, force_terminal=True, no_color=True)
    show_corpora(recipe, ["talks"], "examples", n=7, seed=0, console=no_colour)
    assert "⟦走" in printed(no_colour)


def test_text_of_corpora_can_neither_style_nor_steer_the_terminal(recipe: Recipe, built: dict[str, Any]) -> None:
    console = wide(100, force_terminal=True, color_system="standard")
    show_corpora(recipe, ["texts"], "examples", n=3, seed=0, sources=["news [bold]"], console=console)
    text = printed(console)
    assert "[bold]粗[/bold]" in text
    assert "\x1b[31m" not in text
    assert "\u202e" not in text
    assert visible("a\x1b[31m\u202e\x9bb\n\tc") == "a\ufffd[31m\ufffd\ufffdb\n\tc"


@pytest.mark.parametrize("width", [80, 140])
def test_what_was_dropped_is_printed_with_file_and_line(recipe: Recipe, built: dict[str, Any], width: int) -> None:
    console = wide(width)
    show_corpora(recipe, (), "dropped", n=20, seed=0, console=console)
    text = printed(console)
    assert "wiki.jsonl:28  wiki" in text
    assert "wiki.jsonl:8  wiki" in text
    assert "quarantined: 1 record" in text
    assert "contaminated: 1 record" in text
    assert "question: lake q0" in text
    assert "湖水在夏天" in text.replace("\n", "")
    assert text.count("kept: wiki ") == 2
    only = wide(width)
    show_corpora(recipe, (), "dropped", n=20, seed=0, reasons=["too_short"], console=only)
    assert "duplicate" not in printed(only)
    with pytest.raises(BadInput, match=r"No record was dropped for 'to_short'\. Did you mean 'too_short'"):
        show_corpora(recipe, (), "dropped", n=20, seed=0, reasons=["to_short"], console=wide())


def test_records_are_found_by_id(recipe: Recipe, built: dict[str, Any]) -> None:
    folder = Path(built["corpora"]["texts"]["folder"])
    (kept,) = sample_examples(folder, 1, 0, ["wiki"])
    duplicate = sample_dropped(folder, 1, 0, ["duplicate"])["duplicate"]["rows"][0]
    console = wide()
    show_ids(recipe, (), [kept["id"], duplicate["id"]], console=console)
    assert f"id {kept['id']}" in printed(console)
    assert f"{duplicate['file']}:{duplicate['line']}" in printed(console)
    with pytest.raises(BadInput, match="has a record of id 'none'"):
        show_ids(recipe, (), ["none"], console=wide())


def test_packed_rows_show_their_examples_and_what_is_trained(recipe: Recipe, built: dict[str, Any]) -> None:
    console = wide(100)
    show_stage(recipe, "instruct", n=100, seed=0, console=console)
    text = printed(console)
    assert "Stage instruct: " in text
    assert text.count("--- alpaca, zh, id ") == built["packs"]["instruct"]["examples"]
    assert "讲讲小船" in text
    assert "⟦小船每天清晨" in text.replace("\n", "")
    only = wide(100)
    show_stage(recipe, "pretrain", n=100, seed=0, sources=["news [bold]"], console=only)
    rows = printed(only).split("Row ")[1:]
    assert rows
    assert all("--- news [bold], zh" in row for row in rows)
    with pytest.raises(BadInput, match=r"no stage 'instrukt'\. Did you mean 'instruct'"):
        show_stage(recipe, "instrukt", n=1, seed=0, console=wide())


def test_an_audit_adds_up_and_names_what_does_not(recipe: Recipe, built: dict[str, Any], tmp_path: Path) -> None:
    rows = audit_recipe(recipe)
    assert [r["what"] for r in rows] == ["corpus texts", "corpus talks", "packs pretrain", "packs instruct"]
    assert not any(r["error"] for r in rows)
    console = wide(80)
    print_audit(rows, console)
    assert printed(console).count("yes") == 4
    folder = shutil.copytree(built["corpora"]["texts"]["folder"], tmp_path / "corpus")
    ledger = read_json(folder / "ledger.json")
    for part in (ledger["sources"]["wiki"], ledger["total"]):
        part["kept"]["records"] -= 1
        part["records"] -= 1
    write_json(folder / "ledger.json", ledger)
    wrong = audit_folder(folder)
    assert "source wiki, kept: the ledger says 21 records" in wrong["error"]
    console = wide(80)
    print_audit([wrong], console)
    assert "NO" in printed(console)
    packs = shutil.copytree(built["packs"]["pretrain"]["folder"], tmp_path / "packs")
    facts = read_json(packs / "pack.json")
    facts["ledger"]["sources"]["wiki"]["exposures"] += 1
    write_json(packs / "pack.json", facts)
    assert "wiki" in audit_folder(packs)["error"]


def test_only_data_can_be_audited(recipe: Recipe, run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is a run folder"):
        audit_folder(run_folder)
    with pytest.raises(BadInput, match=r"holds neither ledger.json nor pack.json"):
        audit_folder(tmp_path)


def test_packs_that_were_not_built_are_told_but_corpora_must_be(
    recipe: Recipe, built: dict[str, Any], tmp_path: Path
) -> None:
    runtime = recipe.runtime.model_copy(update={"store": str(tmp_path / "store")})
    elsewhere = recipe.model_copy(update={"runtime": runtime})
    with pytest.raises(BadInput, match=r"no corpus was built yet; run `panda data build x\.yaml` first"):
        audit_recipe(elsewhere, build="panda data build x.yaml")
    assert not (tmp_path / "store").exists()
    build_data(elsewhere, ["talks"])
    with pytest.raises(BadInput, match="Corpus 'texts' was not built yet"):
        audit_recipe(elsewhere)
    build_data(elsewhere, ["texts"])
    rows = audit_recipe(elsewhere)
    assert [r["folder"] is None for r in rows] == [False, False, True, True]
    console = wide(80)
    print_audit(rows, console)
    assert printed(console).count("not built") == 2


def test_verbs_that_look_leave_the_store_as_it_is(recipe: Recipe, built: dict[str, Any]) -> None:
    artifacts = Path(recipe.runtime.store) / "artifacts"
    before = sorted(p.name for p in artifacts.iterdir())
    digest = digest_folder(Path(built["corpora"]["texts"]["folder"]))
    show_corpora(recipe, (), "dropped", n=2, seed=0, console=wide())
    audit_recipe(recipe)
    contamination_of_recipe(recipe)
    assert sorted(p.name for p in artifacts.iterdir()) == before
    assert digest_folder(Path(built["corpora"]["texts"]["folder"])) == digest


def test_contamination_lists_what_to_leave_out(recipe: Recipe, built: dict[str, Any]) -> None:
    reports = contamination_of_recipe(recipe)
    assert list(reports) == ["texts", "talks"]
    assert excluded(reports) == {"lake": ["q1"]}, "the document about q0 was dropped"
    console = wide(80)
    print_contamination(reports, excluded(reports), 3, console)
    text = printed(console)
    assert "To leave out for clean scores: lake 1." in text
    assert "dropped" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    without = recipe.model_copy(
        update={"corpora": {"talks": recipe.corpora["talks"].model_copy(update={"decontaminate": None})}, "stages": {}}
    )
    with pytest.raises(BadInput, match="No corpus of recipe 'lakes' is compared with a benchmark"):
        contamination_of_recipe(without)


def test_a_run_is_scored_on_the_clean_questions_too(run_folder: Path) -> None:
    reports = contamination_of_run(run_folder)
    exclude = excluded(reports)
    scores = clean_scores(run_folder, exclude)
    rows = list(read_jsonl(run_folder / "rows.jsonl"))
    assert [r["model"] for r in scores["table"]] == ["base", "instruct"]
    for entry in scores["table"]:
        mine = [r for r in rows if r["model"] == entry["model"]]
        clean = [r for r in mine if r["id"] != "q1"]
        assert (entry["all"]["n"], entry["clean"]["n"]) == (8, 7)
        assert entry["all"]["accuracy"] == pytest.approx(sum(r["correct"] for r in mine) / 8)
        assert entry["clean"]["accuracy"] == pytest.approx(sum(r["correct"] for r in clean) / 7)
        assert entry["clean"]["low"] <= entry["clean"]["accuracy"] <= entry["clean"]["high"]
    stored = {(r["model"], r["prompt"]): r["low"] for r in read_json(run_folder / "scores.json")["table"]}
    assert all(e["all"]["low"] == stored[e["model"], e["prompt"]] for e in scores["table"])
    console = wide(80)
    print_clean_scores(scores, console)
    assert "instruct" in printed(console)
    everything = clean_scores(run_folder, {"lake": [f"q{i}" for i in range(8)]})
    assert all(e["clean"] is None for e in everything["table"])
    console = wide(80)
    print_clean_scores(everything, console)
    assert "none left" in printed(console)


def test_a_run_folder_without_the_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is no run folder"):
        contamination_of_run(tmp_path)
    write_json(tmp_path / "manifest.json", {})
    with pytest.raises(BadInput, match="holds no contamination report"):
        contamination_of_run(tmp_path)


def test_the_recipe_over_all_real_text_names_every_file() -> None:
    data = os.environ.get("PANDA_DATA")
    if not data or not Path(data, "corpora").is_dir():
        pytest.skip("needs the real text: PANDA_DATA names its folder")
    corpora = load_recipe(str(Path(__file__).parents[2] / "recipes" / "corpora.yaml")).corpora
    patterns = [s.files for c in corpora.values() for s in c.sources.values()]
    files = [p for ps in patterns for p in ([ps] if isinstance(ps, str) else ps)]
    named = {f for p in files for f in glob.glob(p.replace("${data}", data))}
    assert named >= {str(f) for part in ("corpora", "instruct") for f in Path(data, part).iterdir()}
