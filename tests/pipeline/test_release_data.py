"""`panda release RUN --data`: only what the sources' licences allow goes out, and the rest is named."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from pandallm.errors import BadInput, PandaError
from pandallm.pipeline.release_data import release_data
from pandallm.pipeline.verify_release import verify_release
from pandallm.release.bundle import write_sums
from tests.release.finished_run import SECRET, finished_run
from tests.release.release_helpers import files


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def released(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("release") / "data"
    facts = release_data(run, out)
    assert facts["left_out"] == {"chinese": {"news": "no licence is declared"}}
    assert list(facts["published"]["chinese"]) == ["wiki", "qa"]
    assert facts["rows"] == 7 + 3 + 1 + 1
    return out


def test_rows_are_those_of_allowed_sources(released: Path) -> None:
    table = pq.read_table(released / "chinese" / "examples")
    assert table.column("id").to_pylist() == [*(f"wiki-{i}" for i in range(7)), *(f"qa-{i}" for i in range(3))]
    assert table.column("turns")[0].as_py() == [{"text": "wiki 0 ", "train": True}]
    assert "record_bytes" not in table.schema.names
    held = pq.read_table(released / "chinese" / "held_out").column("id").to_pylist()
    assert held == ["wiki-7", "qa-3"]
    for name, content in files(released).items():
        assert SECRET.encode() not in content, name
        assert b"/home/someone" not in content, name


def test_the_card_names_what_is_there_and_what_is_not(released: Path) -> None:
    card = (released / "README.md").read_text()
    assert "| chinese | wiki | CC BY-SA 4.0 | 7 | 1 | cc-by-sa-4.0 allows it |" in card
    assert "| chinese | news | not stated | 5 | no licence is declared |" in card
    head = yaml.safe_load(card.split("---")[1])
    assert head["license"] == "other"
    assert head["configs"] == [
        {
            "config_name": "chinese",
            "data_files": [
                {"split": "train", "path": "chinese/examples/*.parquet"},
                {"split": "held_out", "path": "chinese/held_out/*.parquet"},
            ],
        }
    ]


def test_datasets_opens_the_folder(released: Path) -> None:
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(released), "chinese", cache_dir=str(released.parent / "cache"))
    assert {name: part.num_rows for name, part in loaded.items()} == {"train": 10, "held_out": 2}


def test_verify_counts_the_rows(released: Path, tmp_path: Path) -> None:
    import shutil

    assert verify_release(released)["rows"] == 12
    changed = Path(shutil.copytree(released, tmp_path / "changed"))
    path = changed / "chinese" / "examples" / "00000.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    write_sums(changed)
    with pytest.raises(PandaError, match="6 rows of wiki, the ledger says 7"):
        verify_release(changed)


def test_a_corpus_that_leads_out_of_the_folder_is_refused(released: Path, tmp_path: Path) -> None:
    import json
    import shutil

    changed = Path(shutil.copytree(released, tmp_path / "changed"))
    release = json.loads((changed / "release.json").read_text())
    release |= {"published": {"../out": {}}, "pages_version": 0}
    (changed / "release.json").write_text(json.dumps(release))
    write_sums(changed)
    with pytest.raises(PandaError, match="names the corpus"):
        verify_release(changed)


def test_a_store_that_is_gone_is_told(run: Path, tmp_path: Path) -> None:
    import shutil

    alone = Path(shutil.copytree(run, tmp_path / "alone", symlinks=False))
    with pytest.raises(BadInput, match="not in the store"):
        release_data(alone)
    assert not (alone / "release-data").exists()


def test_a_recipe_without_a_run_is_released_too(tmp_path: Path) -> None:
    from pandallm.pipeline.release_data import release_recipe_data
    from pandallm.recipe.load import load_recipe

    (tmp_path / "a.txt").write_text("一段可以发布的文字。\n")
    (tmp_path / "b.txt").write_text(f"{SECRET}。\n")
    (tmp_path / "plain.yaml").write_text(
        "name: plain\nbase: {model: some/one}\npaths: {here: .}\n"
        "corpora: {c: {sources: {a: {adapter: text, files: '${here}/a.txt', licence: CC0}, b: {adapter: text, files: '${here}/b.txt'}}}}\n"
        f"runtime: {{store: {tmp_path / 'store'}, runs: {tmp_path / 'runs'}, workers: 1}}\n"
    )
    facts = release_recipe_data(load_recipe(str(tmp_path / "plain.yaml")), tmp_path / "out")
    assert facts["rows"] == 1
    assert facts["left_out"] == {"c": {"b": "no licence is declared"}}
    assert facts["publish_as"] == "cc0-1.0"
    assert (
        pq.read_table(tmp_path / "out" / "c" / "examples").column("turns")[0].as_py()[0]["text"]
        == "一段可以发布的文字。"
    )
    with pytest.raises(BadInput, match="exists already"):
        release_recipe_data(load_recipe(str(tmp_path / "plain.yaml")), tmp_path / "out")
