"""`panda data` from the command line: what a user types and what comes back."""

import json
from pathlib import Path

import pytest

from pandallm.cli import main
from pandallm.store import read_json, write_json
from tests.pipeline.data_example import write_recipe


def panda(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    out, err = capsys.readouterr()
    assert isinstance(stop.value.code, int)
    return stop.value.code, out, err


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A recipe whose corpora and packs are built."""
    file = write_recipe(tmp_path_factory.mktemp("verbs"))
    with pytest.raises(SystemExit) as stop:
        main(["data", "build", str(file), "--quiet"])
    assert stop.value.code == 0
    return str(file)


def test_build_prints_the_funnel_or_json(capsys: pytest.CaptureFixture[str], recipe: str) -> None:
    code, out, err = panda(capsys, "data", "build", recipe, "--quiet")
    assert code == 0, err
    assert "Corpus texts: 38 records" in out
    assert "taken from the store" in out
    code, out, _ = panda(capsys, "data", "build", recipe, "--quiet", "--json", "--corpus", "talks")
    assert code == 0
    result = json.loads(out)
    assert list(result["corpora"]) == ["talks"]
    assert Path(result["corpora"]["talks"]["folder"], "ledger.json").is_file()


def test_show_takes_sources_seeds_and_parts(capsys: pytest.CaptureFixture[str], recipe: str) -> None:
    code, out, _ = panda(capsys, "data", "show", recipe, "--corpus", "texts", "--source", "wiki", "--n", "2")
    assert code == 0
    assert "Corpus texts: 2 examples" in out
    other = panda(capsys, "data", "show", recipe, "--corpus", "texts", "--source", "wiki", "--n", "2", "--seed", "1")[1]
    assert out != other
    assert panda(capsys, "data", "show", recipe, "--corpus", "texts", "--source", "wiki", "--n", "2")[1] == out
    _, out, _ = panda(capsys, "data", "show", recipe, "--corpus", "texts", "--held-out", "--n", "9")
    assert "Corpus texts: 4 held-out examples" in out
    _, out, _ = panda(capsys, "data", "show", recipe, "--dropped")
    assert "wiki.jsonl:28  wiki" in out
    _, out, _ = panda(capsys, "data", "show", recipe, "--reason", "quarantined")
    assert "wiki.jsonl:8  wiki" in out
    assert "duplicate" not in out
    code, out, _ = panda(capsys, "data", "show", recipe, "--stage", "pretrain", "--n", "1")
    assert code == 0
    assert "Stage pretrain: " in out
    code, _, err = panda(capsys, "data", "show", recipe, "--source", "wik")
    assert (code, err) == (2, "panda: There is no source 'wik' here. Did you mean 'wiki'?\n")


def test_audit_ends_with_1_where_a_ledger_does_not_add_up(
    capsys: pytest.CaptureFixture[str], recipe: str, tmp_path: Path
) -> None:
    code, out, err = panda(capsys, "data", "audit", recipe)
    assert code == 0, err
    assert out.count("yes") == 4
    code, out, _ = panda(capsys, "data", "audit", recipe, "--corpus", "texts", "--json")
    assert code == 0
    (row,) = json.loads(out)
    folder = Path(row["folder"])
    stored = read_json(folder / "ledger.json")
    try:
        wrong = json.loads(json.dumps(stored))
        wrong["sources"]["wiki"]["kept"]["bytes"] += 5
        wrong["sources"]["wiki"]["bytes"] += 5
        write_json(folder / "ledger.json", wrong)
        for arguments in ([recipe], [str(folder)]):
            code, out, err = panda(capsys, "data", "audit", *arguments)
            assert code == 1
            assert "source wiki, kept: the ledger says" in err
            assert "NO" in out
    finally:
        write_json(folder / "ledger.json", stored)
    code, _, err = panda(capsys, "data", "audit", str(tmp_path))
    assert code == 2
    assert "holds neither ledger.json nor pack.json" in err


def test_contamination_writes_the_list(capsys: pytest.CaptureFixture[str], recipe: str, tmp_path: Path) -> None:
    code, out, err = panda(capsys, "data", "contamination", recipe, "--list", str(tmp_path / "exclude.tsv"))
    assert code == 0, err
    assert (tmp_path / "exclude.tsv").read_text() == "lake\tq1\n"
    assert "To leave out for clean scores: lake 1." in out
    code, out, _ = panda(capsys, "data", "contamination", recipe, "--json")
    assert code == 0
    assert json.loads(out)["exclude"] == {"lake": ["q1"]}
    code, _, err = panda(capsys, "data", "contamination", str(tmp_path), "--json")
    assert code == 2
    assert "is no run folder" in err


def test_another_setting_is_another_corpus(capsys: pytest.CaptureFixture[str], recipe: str) -> None:
    code, _, err = panda(capsys, "data", "show", recipe, "corpora.talks.dedup.kind=none", "--corpus", "talks")
    assert code == 2
    assert "Corpus 'talks' was not built yet with these settings and files; run `panda data build" in err
    assert "corpora.talks.dedup.kind=none` first." in err


def test_ctrl_c_is_told_and_the_same_command_goes_on(
    capsys: pytest.CaptureFixture[str], recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pandallm.pipeline.data.build_data", stopped)
    code, out, err = panda(capsys, "data", "build", recipe, "--quiet")
    assert (code, out) == (130, "")
    assert err == "panda: Stopped. Run the same command again to go on.\n"
