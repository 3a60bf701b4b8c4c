import json
import subprocess
import sys
from pathlib import Path

import pytest

from pandallm.cli import main, split_arguments
from pandallm.errors import BadInput


def panda(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as e:
        main(list(arguments))
    out = capsys.readouterr()
    return int(e.value.code or 0), out.out, out.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["rnu"], "No such command 'rnu'. Did you mean 'run'?"),
        (["run", "--jsn"], "No such option: --jsn"),
        (["delta", "mak"], "No such command 'mak'"),
        (["delta", "make", "a"], "Missing argument"),
        (["run", "nothere.yaml"], "nothere.yaml does not exist."),
        (["run", "nosuch"], "No recipe 'nosuch'"),
        (["run", "seed=x"], "override 'seed=x': seed: Input should be a valid integer"),
        (["run", "microworld", "other"], "'other' is neither the recipe (which comes first) nor an override"),
        (["check", "stages.pretrain.corpus=chinees"], "unknown corpus 'chinees'. Did you mean 'chinese'?"),
        (["eval", "nowhere", "--tasks", "c3-m", "--data", "x"], "nowhere"),
        (["eval", "nowhere", "--tasks", "", "--data", "x"], "No task given"),
        (["verify", "nowhere"], "nowhere is not a folder with scores"),
        (["report", "nowhere"], "nowhere"),
        (["chat", "nowhere"], "nowhere"),
        (["release", "nowhere"], "nowhere is not a run folder"),
        (["release", "nowhere", "--push", "kite"], "write the repository as OWNER/NAME"),
        (["release", "nowhere", "a.b=c"], "a finished run takes no overrides"),
        (["release", "nowhere.yaml", "--data"], "nowhere.yaml does not exist."),
        (["release", "nowhere", "--data", "--ship", "delta"], "--ship is about the model"),
        (["export", "nowhere", "out"], "Model folder nowhere does not exist"),
        (["plan", "--on", "16xA100-80"], "Unknown device 'A100-80'. Did you mean 'A100-80G'?"),
        (["data", "buld"], "No such command 'buld'"),
        (["data", "build", "--corpus", "chinees"], "has no corpus 'chinees'. Did you mean 'chinese'?"),
        (["data", "audit"], "no corpus was built yet; run `panda data build` first"),
        (["data", "show", "--stage", "pretrain"], "no corpus was built yet; run `panda data build` first"),
        (["data", "show", "--stage", "pretrain", "--dropped"], "--stage shows packed rows; leave"),
        (["data", "show", "--held-out", "--dropped"], "are different parts"),
        (["data", "contamination"], "No corpus of recipe 'microworld' is compared with a benchmark"),
        (["train"], "so no corpus was built yet; run `panda data build` first"),
        (["train", "microworld", "pretrian"], "so no corpus was built yet; run `panda data build microworld` first"),
        (["delta", "apply", "nowhere", "nodelta", "out"], "no"),
        (["study", "plan", "nowhere.yaml"], "nowhere.yaml does not exist."),
        (["study", "run", "nowhere.yaml", "--seeds", "1"], "nowhere.yaml does not exist."),
        (["study", "report", "nowhere"], "nowhere is no study's folder"),
        (["study", "publish", "nowhere"], "nowhere is no study's folder"),
        (["study", "blueprint", "nowhere"], "nowhere is not a folder"),
        (["study", "blueprint", "--studies", "nowhere"], "--studies: nowhere is not a folder"),
        (["study", "run", "s.yaml", "--slurm", "--ray"], "--slurm and --ray are two ways to do the same"),
        (["study", "run", "s.yaml", "--sbatch", "time=1"], "--sbatch is for --slurm"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    arguments: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = panda(capsys, *arguments)
    assert code == 2, err
    assert err.startswith("panda: ")
    assert sentence in err
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_help_is_quick_to_import_and_shows_an_example_per_verb(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys; import pandallm.cli; bad = {'torch', 'transformers', 'pyarrow', 'scipy', 'altair'} & set(sys.modules); assert not bad, bad"
    subprocess.run([sys.executable, "-c", code], check=True)
    for verb in (
        "run",
        "check",
        "schema",
        "diff",
        "plan",
        "train",
        "data build",
        "data show",
        "data audit",
        "data contamination",
        "eval",
        "compare",
        "answers",
        "report",
        "verify",
        "chat",
        "release",
        "export",
        "delta make",
        "delta apply",
        "delta verify",
        "delta inspect",
        "delta legacy make",
        "delta legacy apply",
        "delta legacy sum",
        "harness task",
        "harness results",
        "harness run",
        "harness register",
        "study plan",
        "study run",
        "study report",
        "study publish",
        "study blueprint",
    ):
        status, out, _ = panda(capsys, *verb.split(), "--help")
        assert status == 0
        assert f"Example: panda {verb}" in out


def test_check_and_schema_answer_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = panda(capsys, "check", "--json")
    assert status == 0
    assert json.loads(out)["name"] == "microworld"
    status, out, _ = panda(capsys, "schema")
    assert status == 0
    assert json.loads(out)["title"] == "Recipe"


def test_the_recipe_may_be_left_out() -> None:
    assert split_arguments(["seed=1", "a.b=2"]) == (None, ["seed=1", "a.b=2"])
    assert split_arguments(["r.yaml", "seed=1"]) == ("r.yaml", ["seed=1"])
    assert split_arguments(None) == (None, [])
    with pytest.raises(BadInput):
        split_arguments(["seed=1", "r.yaml"])
