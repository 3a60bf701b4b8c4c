"""`panda release RUN`: what is in the folder, what is not, and what is refused."""

import json
from pathlib import Path

import pytest
import yaml

from pandallm.errors import BadInput, PandaError
from pandallm.pipeline.release_folder import release_run, without_paths
from pandallm.pipeline.verify_release import is_release, verify_release
from pandallm.release.bundle import PAGES_VERSION, write_sums
from pandallm.store import digest_bytes
from tests.release.finished_run import SECRET, finished_run
from tests.release.release_helpers import files


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("run"), licence="Apache 2.0", authors=["A. Author"])


@pytest.fixture(scope="module")
def weights(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("release") / "weights"
    facts = release_run(run, out)
    assert facts["ship"] == "weights"
    assert "apache-2.0" in facts["why"]
    return out


@pytest.fixture(scope="module")
def delta(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("release") / "delta"
    assert release_run(run, out, ship="delta")["ship"] == "delta"
    return out


def copy(folder: Path, to: Path) -> Path:
    import shutil

    return Path(shutil.copytree(folder, to))


def test_an_open_base_gives_weights_that_plain_transformers_opens(weights: Path, run: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (weights / name).read_bytes() == (run / "models" / "instruct" / name).read_bytes()
    ids = torch.arange(8)[None]
    ours, theirs = (
        AutoModelForCausalLM.from_pretrained(p, local_files_only=True) for p in (run / "models/instruct", weights)
    )
    with torch.no_grad():
        assert torch.equal(ours(ids).logits, theirs(ids).logits)


def test_cards_say_where_all_of_it_comes_from(weights: Path) -> None:
    card = (weights / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["license"] == "apache-2.0"
    assert head["base_model"] == "someone/kite-base"
    assert head["datasets"] == ["some/qa"]
    assert head["language"] == ["en", "zh"]
    assert "| instruct | base | chinese | 4 | 1,234 | 2 | 64 | 0.001 | 1.500 | 2 s |" in card
    assert "| chinese | wiki | zh | CC BY-SA 4.0 | 9 | 7 | 140 |" in card
    assert "| chinese | news | zh | not stated | 6 | 5 | 100 |" in card
    assert "| chinese | c3-d | 13 | report | 8 | 2 | 3 | 1 |" in card
    assert "| instruct | 8 | 8 | 75.0 (" in card
    assert "A processor, 2 cores." in card
    assert "1.1 h" in card
    assert "A kite for a &lt;test" in card
    assert "| wiki | .../wiki.json, wiki | zh | CC BY-SA 4.0 | 9 | 7 | 1 | 0 | 1 |" in (weights / "DATA.md").read_text()
    citation = yaml.safe_load((weights / "CITATION.cff").read_text())
    assert citation["authors"] == [{"name": "A. Author"}]
    assert citation["license"] == "Apache-2.0"
    assert citation["date-released"] == "2026-01-02"


def test_no_text_of_a_benchmark_and_no_path_of_the_machine_goes_out(weights: Path, delta: Path) -> None:
    for folder in (weights, delta):
        for name, content in files(folder).items():
            assert SECRET.encode() not in content, name
            assert b"/home/someone" not in content, name


def test_the_delta_gives_the_weights_back(delta: Path, run: Path, tmp_path: Path) -> None:
    from pandallm.release.delta import apply_delta

    assert not (delta / "config.json").exists()
    assert not (delta / "tokenizer.json").exists()  # the base's: it comes back with the delta
    assert "panda delta apply" in (delta / "README.md").read_text()
    apply_delta(run / "models" / "base", delta, tmp_path / "tuned")
    assert files(tmp_path / "tuned") == files(run / "models" / "instruct")


def test_verify_checks_all_of_it(weights: Path, delta: Path, run: Path) -> None:
    assert is_release(weights)
    assert not is_release(run)
    facts = verify_release(weights)
    assert facts["pages"] == 3
    assert facts["numbers"] > 20
    assert facts["rows"] == 16
    assert any("not applied" in line for line in verify_release(delta)["checked"])
    assert any(
        "2" in line and "every sha256 equal" in line for line in verify_release(delta, run / "models/base")["checked"]
    )
    with pytest.raises(BadInput, match="Wrong base"):
        verify_release(delta, run / "models" / "instruct")
    with pytest.raises(BadInput, match="holds no delta"):
        verify_release(weights, run / "models" / "base")


@pytest.mark.parametrize(
    ("name", "old", "new", "sentence"),
    [
        ("README.md", "75.0", "76.0", r"README.md:\d+ says"),
        ("DATA.md", "CC BY-SA", "CC BY-SB", r"DATA.md:\d+ says"),
        ("CITATION.cff", "A. Author", "B. Author", r"CITATION.cff:\d+ says"),
        ("run/ledgers/chinese.json", '"records": 7', '"records": 8', r"README.md:\d+ says"),
        ("run/rows.jsonl", '"correct": true', '"correct": false', "against its own choice"),
        ("run/scores.json", '"n": 8', '"n": 9', "README.md:|scores.json"),
    ],
)
def test_a_number_that_was_changed_is_found_even_with_new_sums(
    weights: Path, tmp_path: Path, name: str, old: str, new: str, sentence: str
) -> None:
    changed = copy(weights, tmp_path / "changed")
    text = (changed / name).read_text()
    assert old in text
    (changed / name).write_text(text.replace(old, new, 1))
    with pytest.raises(PandaError, match="sha256 differs"):
        verify_release(changed)
    write_sums(changed)
    with pytest.raises(PandaError, match=sentence):
        verify_release(changed)


def test_other_weights_are_found_even_with_new_sums(weights: Path, run: Path, tmp_path: Path) -> None:
    changed = copy(weights, tmp_path / "changed")
    (changed / "model.safetensors").write_bytes((run / "models/base/model.safetensors").read_bytes())
    write_sums(changed)
    with pytest.raises(PandaError, match="not those of the run"):
        verify_release(changed)


@pytest.mark.parametrize(
    "broken", [{"base": None}, {"ship": None}, {"weights_root": None}, {"authors": 3}, {"kind": "data"}]
)
def test_a_release_json_that_lies_is_an_error_in_a_sentence(
    weights: Path, tmp_path: Path, broken: dict[str, object]
) -> None:
    changed = copy(weights, tmp_path / "changed")
    release = json.loads((changed / "release.json").read_text())
    (changed / "release.json").write_text(json.dumps(release | broken))
    write_sums(changed)
    with pytest.raises(PandaError) as e:
        verify_release(changed)
    assert "\n" not in str(e.value)


def test_a_closed_base_gives_a_delta_and_no_weights(tmp_path: Path) -> None:
    run = finished_run(tmp_path, base={"model": "huggyllama/llama-7b"})
    facts = release_run(run, tmp_path / "out")
    assert facts["ship"] == "delta"
    assert "does not allow" in facts["why"]
    with pytest.raises(BadInput, match=r"use release\.ship=delta"):
        release_run(run, tmp_path / "other", ship="weights")
    with pytest.raises(BadInput, match="holds all weights"):
        release_run(run, tmp_path / "other", gguf="f16")
    assert not (tmp_path / "other").exists()


def test_an_unknown_licence_gives_a_delta_and_says_so(tmp_path: Path) -> None:
    facts = release_run(finished_run(tmp_path, licence="our own terms"), tmp_path / "out")
    assert facts["ship"] == "delta"
    assert "our own terms" in facts["why"]
    assert "license: other" in (tmp_path / "out" / "README.md").read_text()


def test_what_exists_or_is_not_finished_is_refused(run: Path, weights: Path, tmp_path: Path) -> None:
    before = files(weights)
    with pytest.raises(BadInput, match="exists already"):
        release_run(run, weights)
    assert files(weights) == before
    with pytest.raises(BadInput, match="not a run folder"):
        release_run(tmp_path / "nowhere")
    half = finished_run(tmp_path / "half")
    manifest = json.loads((half / "manifest.json").read_text())
    (half / "manifest.json").write_text(json.dumps(manifest | {"state": "interrupted"}))
    with pytest.raises(BadInput, match="interrupted, not complete"):
        release_run(half)
    with pytest.raises(BadInput, match=r"release\.ship"):
        release_run(run, tmp_path / "out", ship="all")
    with pytest.raises(BadInput, match="has no model 'expert'"):
        release_run(finished_run(tmp_path / "other", target="expert"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_paths_lose_all_but_their_names() -> None:
    paths = {"a": ["/x/y/z.json", "~/d/e", "relative/f"], "b": "folder: /x/y, 3", "c": 1, "d": "http://h/i/j"}
    assert without_paths(paths) == {
        "a": [".../z.json", ".../e", "relative/f"], "b": "folder: .../y, 3", "c": 1, "d": "http://h/i/j",
    }  # fmt: skip


def test_pages_are_written_as_their_version_says(weights: Path) -> None:
    text = "".join((weights / name).read_text() for name in ("README.md", "DATA.md", "CITATION.cff"))
    digest = digest_bytes(text.encode())
    assert (PAGES_VERSION, digest[:16]) == (1, "d7f3135c21f27fd9"), (
        "pages changed: raise PAGES_VERSION in release/bundle.py"
    )
