"""Deltas of models in other shapes: PyTorch files, renamed tensors, LoRA adapters."""

import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pandallm.errors import BadInput
from pandallm.release.delta import apply_delta, inspect_delta, make_delta, verify_delta
from pandallm.release.merge import merge_adapter
from pandallm.release.torch_files import read_torch_file
from tests.release.release_helpers import files, save_llama


def as_torch(folder: Path, out: Path, shards: int = 1) -> Path:
    """The same model with `pytorch_model*.bin`."""
    import torch
    from safetensors.torch import load_file

    shutil.copytree(folder, out, ignore=shutil.ignore_patterns("*.safetensors*"))
    state = load_file(folder / "model.safetensors")
    names = sorted(state)
    if shards == 1:
        torch.save(state, out / "pytorch_model.bin")
        return out
    places: dict[str, str] = {}
    for i in range(shards):
        file = f"pytorch_model-{i + 1:05d}-of-{shards:05d}.bin"
        torch.save({n: state[n] for n in names[i::shards]}, out / file)
        places |= dict.fromkeys(names[i::shards], file)
    (out / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return out


def same_tensors(a: Path, b: Path) -> bool:
    import torch
    from transformers import AutoModelForCausalLM

    left, right = (AutoModelForCausalLM.from_pretrained(p).state_dict() for p in (a, b))
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_torch_base_is_the_same_base(base: Path, target: Path, delta: Path, tmp_path: Path) -> None:
    for shards in (1, 3):
        pickled = as_torch(base, tmp_path / f"b{shards}", shards)
        apply_delta(pickled, delta, tmp_path / f"out{shards}")
        assert files(tmp_path / f"out{shards}") == files(target)


@pytest.mark.parametrize("shards", [1, 3])
def test_torch_target_comes_back_as_safetensors(base: Path, target: Path, tmp_path: Path, shards: int) -> None:
    pickled = as_torch(target, tmp_path / "t", shards)
    (pickled / "training_args.bin").write_bytes(b"anything")
    report = make_delta(base, pickled, tmp_path / "delta")
    assert report["ops"] == {"delta": 20}
    assert report["skipped"] == ["training_args.bin"]
    assert verify_delta(base, tmp_path / "delta", pickled)["verified"] is True
    apply_delta(base, tmp_path / "delta", tmp_path / "out")
    assert same_tensors(tmp_path / "out", target)
    assert not list((tmp_path / "out").glob("*.bin*"))
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == shards


def test_renamed_tensors_are_found(base: Path, target: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    def renamed(change: Any, out: Path) -> Path:
        shutil.copytree(target, out)
        state = {change(n): t for n, t in load_file(target / "model.safetensors").items()}
        save_file(state, out / "model.safetensors")
        return out

    def prefixed(name: str) -> str:
        return name.replace("model.", "language_model.", 1)

    report = make_delta(base, renamed(prefixed, tmp_path / "t"), tmp_path / "delta")
    assert report["ops"] == {"delta": 20}
    assert inspect_delta(tmp_path / "delta")["renamed"] == 20
    assert inspect_delta(tmp_path / "delta")["dropped"] == []
    apply_delta(base, tmp_path / "delta", tmp_path / "out")
    assert files(tmp_path / "out") == files(tmp_path / "t")


def test_names_without_any_likeness_are_found_by_contents(base: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    other = shutil.copytree(base, tmp_path / "t")
    state = load_file(base / "model.safetensors")
    big = [n for n, t in state.items() if t.ndim == 2]  # norms are all ones
    save_file({f"w{i}": state[n] for i, n in enumerate(big)}, other / "model.safetensors")
    assert make_delta(base, other, tmp_path / "delta")["ops"] == {"same": len(big)}
    apply_delta(base, tmp_path / "delta", tmp_path / "out")
    assert files(tmp_path / "out") == files(other)


def adapter_of(base: Path, out: Path) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"),
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.05)
    model.save_pretrained(str(out))
    return out


def test_adapter_is_shipped_as_adapter_and_knows_its_base(base: Path, target: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    adapter = adapter_of(base, tmp_path / "a")
    assert make_delta(base, adapter, tmp_path / "delta")["ops"] == {"whole": 8}
    apply_delta(base, tmp_path / "delta", tmp_path / "out")
    assert files(tmp_path / "out") == files(adapter)
    assert verify_delta(base, tmp_path / "delta", adapter)["verified"] is True
    with pytest.raises(BadInput, match=r"Wrong base: tensor 'model\.layers\.0\.\w+\.\w+\.weight'"):
        apply_delta(target, tmp_path / "delta", tmp_path / "wrong")
    with pytest.raises(BadInput, match="is a LoRA adapter; give the model that it adapts"):
        make_delta(adapter, target, tmp_path / "wrong")


@pytest.mark.parametrize(
    ("name", "value"),
    [("print", print), ("path", Path("x")), ("nested", {"model": {}}), ("transposed", None)],
)
def test_torch_files_that_would_run_code_or_are_odd(base: Path, tmp_path: Path, name: str, value: Any) -> None:
    import torch

    folder = as_torch(base, tmp_path / "t")
    content = {"w": torch.zeros(3, 4).t()} if name == "transposed" else {"w": torch.zeros(2), "x": value}
    torch.save(content, folder / "pytorch_model.bin")
    with pytest.raises(BadInput, match="cannot be read without running code"):
        make_delta(base, folder, tmp_path / "out")


def test_damaged_torch_files(base: Path, tmp_path: Path) -> None:
    folder = as_torch(base, tmp_path / "t")
    path = folder / "pytorch_model.bin"
    good = path.read_bytes()
    for bad in (b"", b"PK\3\4", good[: len(good) // 2], good.replace(b"little", b"biggie"), b"\x80\x02}q\0."):
        path.write_bytes(bad)
        with pytest.raises(BadInput, match="cannot be read without running code"):
            make_delta(base, folder, tmp_path / "out")


def test_torch_files_changed_by_chance_are_refused_or_read_within_the_file(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "x.bin"
    torch.save({f"w{i}": torch.randn(3, 4) for i in range(3)}, path)
    good, draw = path.read_bytes(), random.Random(0)
    outcomes = Counter[str]()
    for _ in range(600):
        data = bytearray(good)
        for _ in range(draw.choice([1, 1, 2, 5])):
            at, way = draw.randrange(len(data)), draw.randrange(3)
            data[at : at + (0, 1, 10)[way]] = draw.randbytes((2, 1, 0)[way])
        path.write_bytes(data)
        try:
            found = read_torch_file(path)
        except BadInput:
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        assert all(0 <= offset <= offset + size <= len(data) for _, _, offset, size in found.values())
    assert outcomes["refused"] > 300
    assert outcomes["read"] > 10


def test_shared_storage_of_tied_tensors(base: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = as_torch(base, tmp_path / "t")
    state = load_file(base / "model.safetensors")
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    torch.save(state, folder / "pytorch_model.bin")
    report = make_delta(base, folder, tmp_path / "delta")
    assert report["ops"] == {"same": 21}
    apply_delta(base, tmp_path / "delta", tmp_path / "out")
    assert same_tensors(tmp_path / "out", base)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_merged_adapter_is_peft_s_within_a_rounding_and_ships_exactly(tmp_path: Path, dtype: str) -> None:
    peft = pytest.importorskip("peft")
    import torch
    from transformers import AutoModelForCausalLM

    base = save_llama(tmp_path / "b", dtype=dtype)
    adapter = adapter_of(base, tmp_path / "a")
    merge_adapter(base, adapter, tmp_path / "merged")
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").state_dict()
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(plain, str(adapter)).merge_and_unload().state_dict()
    old = AutoModelForCausalLM.from_pretrained(base).state_dict()
    for name, tensor in ours.items():
        assert torch.allclose(tensor.float(), theirs[name], rtol=2**-8 if dtype == "bfloat16" else 1e-6, atol=1e-7)
        assert torch.equal(tensor, old[name]) == (not name.endswith(("q_proj.weight", "down_proj.weight")))
    assert make_delta(base, tmp_path / "merged", tmp_path / "delta")["ops"] == {"same": 16, "delta": 4}
    apply_delta(base, tmp_path / "delta", tmp_path / "out")
    assert files(tmp_path / "out") == files(tmp_path / "merged")


def test_adapters_that_are_not_merged(base: Path, target: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    adapter = adapter_of(base, tmp_path / "a")
    with pytest.raises(BadInput, match="is no LoRA adapter"):
        merge_adapter(base, target, tmp_path / "out")
    config = json.loads((adapter / "adapter_config.json").read_text())
    for change, says in (({"use_dora": True}, "use_dora"), ({"peft_type": "IA3"}, "not of type LORA")):
        (adapter / "adapter_config.json").write_text(json.dumps(config | change))
        with pytest.raises(BadInput, match=says):
            merge_adapter(base, adapter, tmp_path / "out")
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match=r"the base has no weight|the base's"):
        merge_adapter(save_llama(tmp_path / "other", hidden_size=16), adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()
