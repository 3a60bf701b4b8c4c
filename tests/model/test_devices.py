from pathlib import Path

import pytest

from pandallm.errors import BadInput
from pandallm.model.devices import device_of_gpu, devices, parse_devices


@pytest.mark.parametrize(("text", "count"), [("16xA100-80G", 16), ("A100-80G", 1), (" 2xa100-80g", 2)])
def test_count_and_name(text: str, count: int) -> None:
    number, name, device = parse_devices(text, devices())
    assert (number, name, device.bf16_tflops, device.memory_gb) == (count, "A100-80G", 312, 80)


@pytest.mark.parametrize("text", ["8xA100-8G", "0xA100-80G", "A100_80G", ""])
def test_unknown_device(text: str) -> None:
    with pytest.raises(BadInput, match="Unknown device") as e:
        parse_devices(text, devices())
    assert not text or "Did you mean 'A100-80G'?" in str(e.value)


def test_own_devices_go_first(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        "A100-80G: {bf16_tflops: 300, fp32_tflops: 19, memory_gb: 79, bandwidth_gb_s: 2000, usd_per_hour: 9}\n"
    )
    assert devices(own)["A100-80G"].usd_per_hour == 9
    assert "H100-80G" in devices(own)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [", "is not YAML"),
        ("- a", "must map names"),
        ("mine: {bf16_tflops: -1, fp32_tflops: 1, memory_gb: 1, bandwidth_gb_s: 1}", "mine.bf16_tflops"),
        ("mine: {bf16_tflops: 1}", "mine.fp32_tflops"),
        ("mine: 3", r'mine must hold the device\'s numbers; write `"mine": {bf16_tflops: ..'),
    ],
)
def test_bad_tables(text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(BadInput, match=sentence):
        devices(file)
    with pytest.raises(BadInput, match="does not exist"):
        devices(tmp_path / "none.yaml")


def test_the_name_that_a_driver_gives_may_stand_in_a_table_of_ones_own(tmp_path: Path) -> None:
    numbers = "{bf16_tflops: 300, fp32_tflops: 19, memory_gb: 79, bandwidth_gb_s: 2000}"
    (tmp_path / "devices.yaml").write_text(f'"NVIDIA A100-SXM4-80GB": {numbers}\n"Frobnicator 9": {numbers}\n')
    table = devices(store=tmp_path)
    assert device_of_gpu("NVIDIA A100-SXM4-80GB", table) == "NVIDIA A100-SXM4-80GB"
    assert device_of_gpu("frobnicator 9", table) == "Frobnicator 9"
    assert device_of_gpu("Frobnicator 8", table) is None
    assert device_of_gpu("NVIDIA A100-SXM4-80GB", devices()) == "A100-80G"
    assert parse_devices("2xFrobnicator 9", table)[:2] == (2, "Frobnicator 9")
