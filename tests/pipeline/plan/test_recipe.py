"""`panda plan`: shipped recipes, this machine's store, bad input."""

import subprocess
import sys
from pathlib import Path

import pytest

from pandallm.errors import BadInput
from pandallm.pipeline.plan.recipe import plan_recipe
from pandallm.pipeline.plan.show import plan_lines, plan_row
from pandallm.recipe.load import load_recipe
from tests.pipeline.data_example import write_recipe

RECIPES = Path(__file__).parents[3] / "recipes"


@pytest.fixture
def empty(tmp_path: Path) -> list[str]:
    """Overrides that leave the plan nothing but the recipe."""
    return [f"runtime.store={tmp_path / 'store'}", f"paths.data={tmp_path / 'nowhere'}"]


def shipped(name: str, empty: list[str], *more: str):  # type: ignore[no-untyped-def]
    return load_recipe(str(RECIPES / f"{name}.yaml"), [*empty, *more])


def test_panda_7b_as_the_paper_describes_it(empty: list[str], tmp_path: Path) -> None:
    plan = plan_recipe(shipped("panda-7b", empty), on="16xA100-80G")
    (stage,) = plan["stages"]
    assert abs(stage["steps"] - 1808) <= 1
    assert stage["warnings"] == []
    assert stage["fits"]
    (hint,) = stage["hints"]
    assert "gradient_checkpointing=selective fits as well" in hint
    assert "GiB" in hint
    assert "micro_batch_tokens" not in hint, "smaller micro-batches move sharded weights more often"
    assert plan["model"]["parameters"] == 6_738_415_616
    assert stage["hours"]["low"] < stage["hours"]["hours"] < stage["hours"]["high"]
    assert stage["usd"]["usd"] == pytest.approx(16 * 1.8 * stage["hours"]["hours"])
    assert not any(row["cached"] for row in plan["data"])
    assert plan["total"]["fits"]
    text = "\n".join(plan_lines(plan))
    assert "1,809 steps" in text
    assert "will run  train pretrain" in text
    assert len(plan_row(plan)) == 7
    assert not (tmp_path / "store").exists()


def test_panda_7b_as_coded_is_warned_of(empty: list[str]) -> None:
    plan = plan_recipe(shipped("panda-7b-as-coded", empty), on="16xA100-80G")
    warnings = " ".join(plan["stages"][0]["warnings"])
    assert "115,721" in warnings
    assert "warm-up takes 1,157" in warnings


def test_what_does_not_fit_is_told_with_what_does(empty: list[str]) -> None:
    plan = plan_recipe(shipped("panda-7b", empty, "runtime.sharding=replicate"), on="16xA100-80G")
    stage = plan["stages"][0]
    assert not stage["fits"]
    assert stage["proposal"]["fits"]
    assert f"runtime.sharding={stage['proposal']['sharding']}" in stage["warnings"][-1]
    assert {c["sharding"] for c in stage["choices"]} == {"replicate", "shard_gradients", "hybrid", "shard_all"}
    alone = plan_recipe(shipped("panda-65b", empty), on="A100-40G")["stages"][0]
    assert alone["proposal"] is None
    assert "such devices would hold it with shard_all" in alone["warnings"][-1]


def test_one_device_has_nothing_to_shard(empty: list[str]) -> None:
    stage = plan_recipe(shipped("panda-7b", empty), on="H200-141G")["stages"][0]
    assert {c["sharding"] for c in stage["choices"]} == {"replicate"}


def test_devices_of_ones_own(empty: list[str], tmp_path: Path) -> None:
    table = tmp_path / "own.yaml"
    table.write_text(
        "Z1: {bf16_tflops: 1000, fp32_tflops: 100, memory_gb: 200, bandwidth_gb_s: 4000, usd_per_hour: 1}\n"
    )
    plan = plan_recipe(shipped("panda-7b", empty), on="8xZ1", device_file=table)
    assert plan["place"]["label"] == "8xZ1"
    assert plan["stages"][0]["fits"]


def test_bad_input(empty: list[str]) -> None:
    with pytest.raises(BadInput, match=r"Unknown device 'A100-8G'\. Did you mean 'A100-80G'\?"):
        plan_recipe(shipped("panda-7b", empty), on="16xA100-8G")
    with pytest.raises(
        BadInput, match=r"config of base\.model nobody/nothing is not at hand; give base\.shape with hidden_size"
    ):
        plan_recipe(shipped("panda-7b", empty, "base.model=nobody/nothing"), on="A100-80G")
    with pytest.raises(BadInput, match=r"stages\.pretrain: the budget of about .* lower the budget"):
        plan_recipe(shipped("panda-7b", empty, "stages.pretrain.tokens=10000000000000"), on="A100-80G")
    gone = ["corpora.chinese.sources={wiki: {adapter: wiki, files: nowhere.json}}"]
    with pytest.raises(BadInput, match=r"nothing says how much they hold"):
        plan_recipe(shipped("panda-7b", empty, *gone), on="A100-80G")


def test_a_stated_shape_needs_no_config(empty: list[str]) -> None:
    shape = "{hidden_size: 4096, layers: 32, heads: 32, intermediate_size: 11008, vocab_size: 32000}"
    plan = plan_recipe(shipped("panda-7b", empty, "base.model=nobody/nothing", f"base.shape={shape}"), on="8xA100-80G")
    assert plan["model"]["parameters"] == 6_738_415_616


def test_files_are_counted_before_anything_is_built_and_the_packs_say_the_same(tmp_path: Path) -> None:
    from pandallm.pipeline.data import build_data

    recipe = load_recipe(str(write_recipe(tmp_path)))
    before = plan_recipe(recipe, on="A100-40G")
    assert not (tmp_path / "store").exists()
    assert [s["tokens"]["from"] for s in before["stages"]] == ["all files", "all files"]
    built = build_data(recipe)
    after = plan_recipe(recipe, on="A100-40G")
    for early, late in zip(before["stages"], after["stages"], strict=True):
        ledger = built["packs"][early["name"]]["ledger"]["total"]
        assert early["tokens"]["tokens"] == late["tokens"]["tokens"] == ledger["exposures"]
        assert early["steps"] == late["steps"] == built["packs"][early["name"]]["steps"]
        assert late["tokens"]["from"] == "packs"
    cached = {row["name"]: row for row in after["data"]}
    assert all(
        cached[n]["cached"] for n in ("clean texts", "clean talks", "import base", "pack pretrain", "pack instruct")
    )
    assert cached["clean texts"]["bytes"] > 0
    assert not cached["train pretrain"]["cached"]
    assert cached["train pretrain"]["expected_bytes"] > 0


def test_after_a_run_everything_is_cached_and_nothing_is_left_to_train(tmp_path: Path) -> None:
    from pandallm.pipeline.run import Run

    file = str(write_recipe(tmp_path))
    recipe = load_recipe(file)
    assert not any(s["cached"] for s in plan_recipe(recipe, on="A100-40G")["stages"])
    Run(recipe).execute()
    plan = plan_recipe(recipe, on="A100-40G")
    assert [s["cached"] for s in plan["stages"]] == [True, True]
    assert [row["name"] for row in plan["data"] if not row["cached"]] == []
    assert (plan["total"]["hours"], plan["total"]["steps"], plan["total"]["usd"]) == (0, 0, None)
    text = "\n".join(plan_lines(plan))
    assert "pretrain (in the store): 12 steps" in text
    assert "cached    train pretrain" in text
    assert text.endswith("Every training stage is in the store.")
    changed = plan_recipe(load_recipe(file, ["stages.instruct.optimizer.lr=0.01"]), on="A100-40G")
    assert [s["cached"] for s in changed["stages"]] == [True, False]
    assert changed["total"]["steps"] == changed["stages"][1]["steps"]


def test_disk_counts_cleaned_corpora(empty: list[str], tmp_path: Path) -> None:
    """By the ledger once they are built, by their files before, by what the recipe expects without files."""
    by_name = {r["name"]: r for r in plan_recipe(shipped("panda-7b", empty), on="16xA100-80G")["data"]}
    expected = 1_043_224 * 1500 + 2_430_000 * 3600 + 1_425_000 * 1000 + 4_120_000 * 900 + 5_160_000 * 210
    assert by_name["clean chinese"]["expected_bytes"] == pytest.approx(0.45 * expected)
    gone = "corpora.chinese.sources.wiki2019zh.expected=null"
    unknown = plan_recipe(
        shipped(
            "panda-7b", empty, gone, "stages.pretrain={from: base, corpus: chinese, steps: 10, optimizer: {lr: 1e-5}}"
        ),
        on="16xA100-80G",
    )
    row = next(r for r in unknown["data"] if r["name"] == "clean chinese")
    assert row["expected_bytes"] is None
    assert "will run  clean chinese (size not known)" in "\n".join(plan_lines(unknown))
    assert "and what clean chinese takes" in plan_lines(unknown)[-1]

    from pandallm.pipeline.data import build_data

    recipe = load_recipe(str(write_recipe(tmp_path / "own")))
    before = {r["name"]: r for r in plan_recipe(recipe, on="A100-40G")["data"]}
    raw = sum((tmp_path / "own" / "raw" / f).stat().st_size for f in ("wiki.jsonl", "news.jsonl"))
    assert before["clean texts"]["expected_bytes"] == pytest.approx(0.45 * raw, rel=0.05)
    build_data(recipe)
    plan = plan_recipe(recipe, on="A100-40G")
    after = {r["name"]: r for r in plan["data"]}
    assert after["clean texts"]["expected_bytes"] is None
    assert after["clean texts"]["bytes"] > 0
    under_way = max(s["disk_bytes"]["checkpoints"] for s in plan["stages"])
    kept = sum(r["bytes"] or r["expected_bytes"] or 0 for r in plan["data"])
    assert plan["total"]["disk_bytes"] == round(kept + under_way)


@pytest.mark.parametrize("dataset", ["{id: nobody/nothing, files: '*.jsonl'}", "nobody/nothing"])
def test_no_connection_is_opened(dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    opened = []

    def connect(*arguments: object, **more: object) -> None:
        opened.append(arguments)
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", connect)
    monkeypatch.setattr(socket.socket, "connect", connect)
    (tmp_path / "store").mkdir()
    source = f"{{talks: {{adapter: alpaca, dataset: {dataset}, expected: {{records: 1000, bytes_per_record: 300}}}}}}"
    recipe = load_recipe(
        str(write_recipe(tmp_path / "own")), [f"corpora.talks.sources={source}", f"runtime.store={tmp_path / 'store'}"]
    )
    plan = plan_recipe(recipe, on="A100-40G")
    assert plan["stages"][1]["tokens"]["from"] == "expected"
    assert not opened


def test_no_torch_is_imported(empty: list[str]) -> None:
    code = (
        "import sys; from pandallm.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as e: assert not e.code, e.code\n"
        "bad = {'torch', 'transformers', 'datasets'} & set(sys.modules); assert not bad, bad"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "plan",
        str(RECIPES / "panda-7b.yaml"),
        *empty,
        "--on",
        "8xH100-80G",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_recipe_that_trains_nothing_shows_its_corpora(empty: list[str], tmp_path: Path) -> None:
    raw = tmp_path / "data" / "corpora"
    raw.mkdir(parents=True)
    (raw / "en_wiki.jsonl.zst").write_bytes(bytes(5000))
    here = [empty[0], f"paths.data={tmp_path / 'data'}"]
    plan = plan_recipe(shipped("corpora", here), on="A100-40G")
    assert [row["name"] for row in plan["data"]] == [
        f"clean {c}" for c in ("chinese", "english", "translation", "instructions", "originals")
    ]
    text = plan_lines(plan)[-1]
    assert text.startswith("The recipe trains nothing; `panda data build` makes its corpora: disk ")
    assert "in the store" not in text
