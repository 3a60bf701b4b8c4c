"""The loop: its files, what it refuses, how it stops."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pandallm.errors import BadInput, Interrupted, PandaError
from pandallm.train.checkpoint import Checkpoints
from pandallm.train.loop import train_stage
from pandallm.train.spec import OptimizerSpec
from pandallm.train.watch import Watch
from tests.train.tiny import metrics, tiny_spec, weights, write_packs


def test_learns_and_writes_what_the_contract_says(stage: Callable[..., Any], packs: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from pandallm.data.packs import Packs
    from pandallm.model.folder import load_model

    facts = stage(spec={"optimizer": OptimizerSpec(lr=2e-2, warmup=2)})
    lines, opened = metrics(tmp_path / "work"), Packs.open(packs)
    assert [line["step"] for line in lines] == list(range(1, 21))
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.3
    assert set(lines[0]) == {
        "step", "steps", "loss", "lr", "grad_norm", "trained_tokens", "tokens", "seconds", "tokens_per_second",
        "trained_tokens_per_second", "loss_by_source", "loss_by_language",
    }  # fmt: skip
    assert facts["steps"] == lines[0]["steps"] == 20
    assert facts["tokens"] == sum(line["tokens"] for line in lines) == sum(map(opened.tokens_of_step, range(20)))
    assert facts["trained_tokens"] == sum(line["trained_tokens"] for line in lines)
    assert facts["final_loss"] == lines[-1]["loss"]
    assert facts["resumed_from"] == []
    assert lines[0]["lr"] == pytest.approx(1e-2)
    assert set(lines[0]["loss_by_source"]) == {"even", "odd"}
    assert lines[0]["loss_by_language"] == {"zh": pytest.approx(lines[0]["loss"])}
    assert min(lines[0]["loss_by_source"].values()) <= lines[0]["loss"] <= max(lines[0]["loss_by_source"].values())
    ids = torch.tensor([[5, 6, 7]])
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "work" / "model", attn_implementation="sdpa")
    assert torch.equal(plain(ids).logits, load_model(tmp_path / "work" / "model")(ids).logits)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "work" / "model")) == 258


def test_bfloat16_and_gradient_checkpointing(stage: Callable[..., Any], tmp_path: Path) -> None:
    stage("plain")
    stage("saved", spec={"gradient_checkpointing": True})
    for name, tensor in weights(tmp_path / "plain").items():
        torch.testing.assert_close(weights(tmp_path / "saved")[name], tensor)
    stage("half", spec={"dtype": "bfloat16"})
    assert weights(tmp_path / "half")["lm_head.weight"].dtype == torch.bfloat16
    full, half = metrics(tmp_path / "plain")[-1]["loss"], metrics(tmp_path / "half")[-1]["loss"]
    assert full != half
    assert half == pytest.approx(full, rel=0.02)


def test_packs_of_another_model_are_refused(stage: Callable[..., Any], tmp_path: Path) -> None:
    examples = [([300, 301, 400], [1, 1, 1])]
    with pytest.raises(BadInput, match="holds token 400"):
        stage(packs=write_packs(tmp_path / "ids", [[0]], examples, batch_sequences=1))
    examples = [([3, 4, 5], [1, 1, 1])]
    with pytest.raises(BadInput, match="sequence_length 65 is more than the 64 positions"):
        stage(packs=write_packs(tmp_path / "long", [[0]], examples, batch_sequences=1, sequence_length=65))
    with pytest.raises(BadInput, match="no trained token"):
        stage(packs=write_packs(tmp_path / "mask", [[0]], [([3, 4, 5], [0, 0, 0])], batch_sequences=1))


def test_a_step_without_trained_tokens_changes_nothing(stage: Callable[..., Any], base: Path, tmp_path: Path) -> None:
    examples = [([3, 4, 5], [0, 0, 0]), ([5, 6, 7], [1, 1, 1])]
    facts = stage(packs=write_packs(tmp_path / "packs", [[0], [1], [0]], examples, batch_sequences=1))
    lines = metrics(tmp_path / "work")
    assert [line["loss"] is None for line in lines] == [True, False, True]
    assert facts["final_loss"] == lines[1]["loss"]
    assert facts["trained_tokens"] == 2


def test_not_finite_stops_and_names_the_examples(stage: Callable[..., Any], base: Path, tmp_path: Path) -> None:
    """A token whose embedding is so large that its square overflows, met first in step 2."""
    import json
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    tensors = load_file(broken / "model.safetensors")
    tensors["model.embed_tokens.weight"][250] = 3e38
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    examples = [([3, 4, 5], [1, 1, 1]), ([5, 250, 7], [1, 1, 1])]
    where = write_packs(tmp_path / "packs", [[0], [1], [0]], examples, batch_sequences=1)
    with pytest.raises(PandaError, match=r"not finite at step 2 \(examples example-1;"):
        stage(packs=where, start=broken)
    assert json.loads((tmp_path / "work/logs/not_finite.json").read_text()) == {"step": 2, "examples": ["example-1"]}
    assert not (tmp_path / "work" / "model").exists()


def test_a_start_that_is_not_finite_is_refused_and_its_tensor_named(
    stage: Callable[..., Any], base: Path, tmp_path: Path
) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    tensors = load_file(broken / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4:6] = float("nan")
    save_file(tensors, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadInput, match=r"broken: 2 of the 1,536 numbers of model\.layers\.1\.mlp\.up_proj\.weight"):
        stage(start=broken)
    assert not (tmp_path / "work").exists()


def test_out_of_memory_says_which_setting_helps(
    stage: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from pandallm.train.forward import Forward
    from pandallm.train.memory import OutOfMemory

    def greedy(self: Any, batch: Any) -> Any:
        return torch.empty(2**50)

    monkeypatch.setattr(Forward, "__call__", greedy)
    with pytest.raises(OutOfMemory) as told:
        stage(spec={"micro_batch_tokens": 128})
    sentence = str(told.value)
    assert "out of memory on cpu in step 1;" in sentence
    assert "4194304.0 GiB more was asked for" in sentence
    assert "lower micro_batch_tokens (128) to 64, or set gradient_checkpointing: selective, or set " in sentence
    assert "\n" not in sentence
    with pytest.raises(OutOfMemory) as told:
        stage(spec={"micro_batch_tokens": 64, "gradient_checkpointing": True})
    assert "gradient_checkpointing" not in str(told.value)
    assert "micro_batch_tokens" not in str(told.value)


@pytest.mark.parametrize(
    ("place", "when"),
    [
        (
            "pandallm.model.folder.load_model",
            r"while .*model is loaded; its weights alone take 0\.0 GiB in float32: use a",
        ),
        ("pandallm.model.packed.packing_probe", "while packing is probed; weights, gradients and optimizer take"),
        ("pandallm.train.checkpoint.Checkpoints._copy", r"while a checkpoint is taken after step 20; weights, grad"),
    ],
)
def test_out_of_memory_outside_a_step_is_told_too(
    stage: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, place: str, when: str
) -> None:
    from pandallm.train.memory import OutOfMemory

    monkeypatch.setattr(place, lambda *_, **__: torch.empty(2**50))
    with pytest.raises(OutOfMemory, match=f"^train: out of memory on cpu {when}"):
        stage()


def test_other_errors_of_torch_stay_what_they_are(stage: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from pandallm.train.forward import Forward

    monkeypatch.setattr(Forward, "__call__", lambda self, batch: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        stage()


def test_steps_can_be_named_after_which_numbers_are_read_and_a_checkpoint_is_taken(
    stage: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []
    save = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", lambda self, *a: (saved.append(a[2]), save(self, *a))[1])
    monkeypatch.setattr(Watch, "every", property(lambda self: 16, lambda self, n: None), raising=False)  # as on a GPU
    stage(read_after=(4,), save_after=(7,))
    assert saved == [7, 20]
    seconds = [line["seconds"] for line in metrics(tmp_path / "work")]
    reads = [n + 1 for n in range(len(seconds)) if seconds[n : n + 1] != seconds[n + 1 : n + 2]]
    assert reads == [4, 7, 20]


def test_deadline_saves_and_says_how_to_go_on(stage: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(
        Interrupted, match="the time budget after step 0 of 20 and is saved: run the same command again"
    ):
        stage(deadline=time.monotonic() - 1)
    assert stage()["resumed_from"] == [0]


class Kill:
    """Progress that sends the signal after so many steps."""

    def __init__(self, after: int) -> None:
        self.steps, self.after = 0, after

    def say(self, text: str) -> None:
        pass

    def task(self, name: str, total: float | None, unit: str = "") -> Any:
        import contextlib

        return contextlib.nullcontext(self)

    def advance(self, amount: float = 1.0, note: str = "") -> None:
        self.steps += int(amount)
        if amount and self.steps == self.after:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_in_the_last_step_is_not_swallowed(stage: Callable[..., Any], tmp_path: Path) -> None:
    """What follows the stage must not begin; the next call has nothing left to train."""
    with pytest.raises(Interrupted, match="SIGTERM after step 20 of 20 and is saved: run the same command again"):
        stage(progress=Kill(20))
    assert stage()["resumed_from"] == [20]
    stage("whole")
    assert all(torch.equal(t, weights(tmp_path / "work")[n]) for n, t in weights(tmp_path / "whole").items())


def test_sigterm_saves(stage: Callable[..., Any], tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="SIGTERM after step 3 of 20"):
        stage(progress=Kill(3))
    assert signal.getsignal(signal.SIGTERM) is before
    assert len(metrics(tmp_path / "work")) == 3
    assert stage()["resumed_from"] == [3]
    assert len(metrics(tmp_path / "work")) == 20


def test_checkpoints_of_another_training_are_not_gone_on_with(stage: Callable[..., Any]) -> None:
    with pytest.raises(Interrupted):
        stage(deadline=0.0)
    with pytest.raises(BadInput, match="another training"):
        stage(seed=2)


def test_works_outside_the_main_thread(base: Path, packs: Path, tmp_path: Path) -> None:
    """Where signals cannot be caught."""
    results: list[dict[str, Any]] = []

    def run() -> None:
        results.append(train_stage(base, packs, tiny_spec(), tmp_path / "work", seed=0, device="cpu", threads=1))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert results[0]["steps"] == 20


def test_a_leaky_attention_is_refused_at_the_start(stage: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AttentionInterface

    import pandallm.model.packed as packed_module

    right = packed_module.packed_attention

    def leaky(module: Any, q: Any, k: Any, v: Any, mask: Any, packed: Any = None, **kwargs: Any) -> Any:
        if packed is None:
            return right(module, q, k, v, mask, **kwargs)
        return right(module, q, k, v, mask, packed=packed_module.packed_layout([q.shape[2]]), **kwargs)

    monkeypatch.setitem(AttentionInterface._global_mapping, packed_module.PACKED_ATTENTION, leaky)
    with pytest.raises(PandaError, match="leak"):
        stage()
