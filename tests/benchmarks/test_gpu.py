"""The parts of the GPU benchmark that need no GPU: its data, our side on a CPU, the verdict."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pandallm.data.packs import Packs
from tests.benchmarks.test_scripts import load


@pytest.fixture(scope="module")
def gpu() -> Any:
    return load("gpu")


def test_rows_are_full_and_examples_end_where_they_should(gpu: Any, tmp_path: Path) -> None:
    setting = gpu.SETTINGS["tiny"]
    gpu.write_data(setting, tmp_path)
    packs = Packs.open(tmp_path)
    assert packs.steps == setting.steps
    assert packs.sequence_length == setting.sequence
    rows = gpu.packed_rows(setting)
    assert all(sum(row) == setting.sequence for row in rows)
    peer = gpu.peer_rows({"packs": str(tmp_path), "setting": "tiny"})
    for number, lengths in enumerate(rows):
        row = packs.row(number)
        assert row.input_ids.tolist() == peer[number]["input_ids"]
        starts = np.flatnonzero(np.array(peer[number]["position_ids"]) == 0)
        assert np.diff([*starts, setting.sequence]).tolist() == lengths
        assert [peer[number]["labels"][i] for i in starts] == [-100] * len(lengths)


def test_our_side_counts_every_step_after_the_warm_up(gpu: Any, tmp_path: Path) -> None:
    import pandallm.train.step as step_module

    setting, before = gpu.SETTINGS["tiny"], step_module.optimizer_step
    gpu.write_model(setting, tmp_path / "model")
    gpu.write_data(setting, tmp_path / "packs")
    job = {"setting": "tiny", "device": "cpu", "model": tmp_path / "model", "packs": tmp_path / "packs"}
    job |= {"work": tmp_path / "work", "threads": 1, "variant": {"layers": "bfloat16", "compiled": False}}
    done = gpu.ours(job)
    assert done["steps"] == setting.steps - setting.warm
    assert done["tokens_per_second"] > 0
    assert 4 < done["loss"] < 8  # invented tokens: about ln 300
    assert (done["synchronisations"], done["compilations"]) == (None, 0)
    assert step_module.optimizer_step is before


def test_useful_work_is_that_of_the_weights_and_short_contexts(gpu: Any) -> None:
    flops = gpu.useful_flops_per_token(gpu.SETTINGS["1.1b"])
    assert 6 * 0.95e9 < flops < 6 * 1.15e9


def test_the_verdict(gpu: Any) -> None:
    def figures(**changes: Any) -> dict[str, Any]:
        mine = {"tokens_per_second": 120.0, "mfu": 0.55, "synchronisations": 0, "compilations": 0} | changes
        slow = {"tokens_per_second": 90.0, "mfu": 0.4, "synchronisations": 0, "compilations": 0}
        peers = {"Trainer, sdpa": {"tokens_per_second": 100.0}, "TRL, sdpa": {"error": "memory"}}
        return {"1.1b": {"sides": {"pandallm": slow, "pandallm, compiled": mine, **peers}}}

    met = gpu.judged(figures())["1.1b"]
    assert met == {
        "ours": "pandallm, compiled",
        "fastest_peer": "Trainer, sdpa",
        "over_fastest_peer": 1.2,
        "mfu": 0.55,
        "met": True,
    }
    for changes in ({"mfu": 0.45}, {"synchronisations": 1}, {"compilations": 1}, {"tokens_per_second": 105.0}):
        assert not gpu.judged(figures(**changes))["1.1b"]["met"], changes
    alone = figures()
    alone["1.1b"]["sides"] = {"pandallm": alone["1.1b"]["sides"]["pandallm, compiled"]}
    assert gpu.judged(alone)["1.1b"] == {
        "ours": "pandallm",
        "fastest_peer": None,
        "over_fastest_peer": None,
        "mfu": 0.55,
        "met": False,
    }
    assert gpu.judged({"1.1b": {"sides": {"pandallm": {"error": "memory"}}}}) == {"1.1b": {"met": False}}
