from pathlib import Path

import pytest

from pandallm.model.devices import DeviceSpec
from pandallm.model.shape import ModelShape
from pandallm.pipeline.plan.hours import Place, rate_key, read_rates, remember_rate, scored_tokens, stage_hours
from pandallm.store import write_json
from pandallm.train.spec import TrainSpec, WatchSpec

SHAPE = ModelShape(4096, 32, 32, 32, 128, 11008, 32000)
SPEC = TrainSpec.model_validate({"steps": 100, "optimizer": {"lr": 1e-3}, "dtype": "bfloat16"})
A100 = DeviceSpec(bf16_tflops=312, fp32_tflops=19.5, memory_gb=80, bandwidth_gb_s=2039, usd_per_hour=2)
RESULT = {
    "seconds_per_step": 2.0,
    "tokens_per_step": 1000.0,
    "warm_seconds": 3.0,
    "save_seconds": 5.0,
    "overhead_seconds": 36.0,
}


def hours(rates: list[dict[str, object]], spec: TrainSpec = SPEC, shape: ModelShape = SHAPE, count: int = 1):  # type: ignore[no-untyped-def]
    place = Place("A100-80G", count, A100, "gpu")
    return stage_hours(
        place, shape, spec, dtype="bfloat16", steps=100, tokens=100_000, flops=6e15, rates=rates, token_error=0.0
    )


def test_without_a_rate_a_share_of_the_peak_with_a_wide_interval() -> None:
    guess = hours([])
    assert guess.by == "guess"
    assert guess.seconds_per_step * 100 == pytest.approx(6e15 / (0.45 * 312e12))
    assert guess.low < guess.hours < guess.high
    assert guess.high / guess.hours == pytest.approx(1.6)


def test_a_probe_of_the_same_stage_gives_its_own_steps_and_a_narrow_interval(tmp_path: Path) -> None:
    key = rate_key(Place("A100-80G", 1, A100, "gpu"), SHAPE, SPEC, "bfloat16")
    remember_rate(tmp_path, key, RESULT, flops_per_token=4e10)
    found = hours(read_rates(tmp_path))
    assert found.by == "probe"
    assert found.seconds == pytest.approx(203)
    assert found.hours == pytest.approx((203 + 36) / 3600)
    assert found.high / found.hours == pytest.approx(1.15)
    assert hours(read_rates(tmp_path), count=4).seconds_per_step == pytest.approx(0.5)


def test_checkpoints_and_held_out_text_take_time_of_the_steps(tmp_path: Path) -> None:
    place = Place("A100-80G", 1, A100, "gpu")
    remember_rate(tmp_path, rate_key(place, SHAPE, SPEC, "bfloat16"), RESULT, flops_per_token=4e10)

    def seconds(**more: float) -> float:
        found = stage_hours(
            place,
            SHAPE,
            SPEC,
            dtype="bfloat16",
            steps=100,
            tokens=100_000,
            flops=6e15,
            rates=read_rates(tmp_path),
            **more,
        )
        assert found.seconds_per_step == pytest.approx(2.0)
        return found.seconds

    assert seconds() == pytest.approx(203)
    assert seconds(save_every_seconds=60) == pytest.approx(203 + 3 * 5)
    assert seconds(save_every_seconds=1) == pytest.approx(203 + 4 * 5)  # at most a tenth of the time goes into saves
    assert seconds(scored_tokens=30_000) == pytest.approx(203 + 20)  # a third of the time of trained tokens
    watched = SPEC.model_copy(update={"watch": WatchSpec(every=30)})
    assert scored_tokens(watched, 100, 1000) == 5 * 1000  # at the start, after 30, 60 and 90 steps, at the end
    assert scored_tokens(watched, 90, 1000) == 4 * 1000
    assert scored_tokens(SPEC, 100, 1000) == 0


def test_a_rate_of_another_setting_or_size_counts_less(tmp_path: Path) -> None:
    key = rate_key(Place("A100-80G", 1, A100, "gpu"), SHAPE, SPEC, "bfloat16")
    remember_rate(tmp_path, key, RESULT, flops_per_token=4e10)  # 2e13 FLOP/s
    rates = read_rates(tmp_path)
    longer = hours(rates, SPEC.model_copy(update={"micro_batch_tokens": 8192}))
    assert longer.by == "same model"
    assert longer.seconds_per_step == pytest.approx(3.0)
    other = ModelShape(5120, 40, 40, 40, 128, 13824, 32000)
    assert hours(rates, shape=other).by == "this device"
    assert hours(rates, shape=ModelShape(128, 2, 4, 4, 32, 512, 1000)).by == "guess"


def test_the_newest_rate_of_a_key_replaces_the_older(tmp_path: Path) -> None:
    key = rate_key(Place("A100-80G", 1, A100, "gpu"), SHAPE, SPEC, "bfloat16")
    for seconds in (2.0, 3.0):
        remember_rate(tmp_path, key, RESULT | {"seconds_per_step": seconds}, flops_per_token=4e10)
    assert [r["seconds_per_step"] for r in read_rates(tmp_path)] == [3.0]
    (tmp_path / "rates.json").write_text("{broken")
    assert read_rates(tmp_path) == []


def test_errors_of_tokens_and_rates_add_up_as_factors() -> None:
    place = Place("A100-80G", 1, A100, "gpu")
    wide = stage_hours(place, SHAPE, SPEC, dtype="bfloat16", steps=1, tokens=1, flops=1e15, rates=[], token_error=0.5)
    assert wide.high / wide.hours > 1.6
    assert wide.hours / wide.low == pytest.approx(wide.high / wide.hours)


@pytest.mark.parametrize(
    "damage",
    [
        '[{"flops_per_second": 1e9, "device": "A100-80G", "threads": null, "dtype": "bfloat16"}]',
        '[7, {"flops_per_second": "fast"}]',
        '{"flops_per_second": 1}',
        "[{broken",
        b"\xff\xfe",
    ],
)
def test_damaged_rates_are_left_out_with_a_sentence(damage: str | bytes, tmp_path: Path) -> None:
    file = tmp_path / "rates.json"
    file.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    notes: list[str] = []
    assert hours(read_rates(tmp_path, notes)).by == "guess"
    (note,) = notes
    assert note.startswith("warning:")
    assert str(file) in note
    assert "panda plan --probe" in note


def test_a_damaged_line_does_not_cost_the_others(tmp_path: Path) -> None:
    key = rate_key(Place("A100-80G", 1, A100, "gpu"), SHAPE, SPEC, "bfloat16")
    good = remember_rate(tmp_path, key, RESULT, flops_per_token=4e10)
    write_json(
        tmp_path / "rates.json",
        [{**good, "shape": {"layers": 2}}, {**good, "tokens_per_step": 0}, {**good, "save_seconds": -1.0}, good],
    )
    notes: list[str] = []
    assert read_rates(tmp_path, notes) == [good]
    assert "3 of 4 entries" in notes[0]
    remember_rate(tmp_path, key, RESULT, flops_per_token=4e10)
    notes.clear()
    assert len(read_rates(tmp_path, notes)) == 1
    assert notes == []
