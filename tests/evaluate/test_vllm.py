"""Against a scripted module of vLLM's interface: what is sent, and how answers are read. vLLM itself does not run here."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pandallm.errors import BadInput
from pandallm.evaluate import vllm as ours
from pandallm.evaluate.backend import Asked
from pandallm.evaluate.backends import local_backend, open_backend
from pandallm.evaluate.server import STOPS
from pandallm.evaluate.vllm import VllmBackend


@dataclass
class SamplingParams:
    """The documented fields that are used, with their documented defaults; an unknown one is a TypeError."""

    temperature: float = 1.0
    max_tokens: int | None = 16
    stop: list[str] | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True

    def __post_init__(self) -> None:
        assert not (self.stop and not self.detokenize)


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class Text:
    text: str


@dataclass
class RequestOutput:
    prompt_token_ids: list[int]
    prompt_logprobs: list[dict[int, Logprob] | None] | None
    outputs: list[Text] = field(default_factory=list)


class LLM:
    """Computes with the real tiny model, so that scores can be compared with the local backend's."""

    made: list["LLM"] = []

    def __init__(self, model: str, **settings: Any) -> None:
        from transformers import AutoModelForCausalLM

        self.folder, self.settings = model, settings
        self.calls: list[tuple[list[list[int]], SamplingParams]] = []
        self.model = AutoModelForCausalLM.from_pretrained(model).eval()
        LLM.made.append(self)

    def generate(self, prompts: Any, sampling_params: SamplingParams, *, use_tqdm: bool = True) -> list[RequestOutput]:
        import torch

        assert not use_tqdm
        lists = [p["prompt_token_ids"] for p in prompts]
        self.calls.append((lists, sampling_params))
        out = []
        for ids in lists:
            assert len(ids) + (sampling_params.max_tokens or 0) <= self.settings["max_model_len"]
            given: list[dict[int, Logprob] | None] | None = None
            if sampling_params.prompt_logprobs is not None:
                with torch.inference_mode():
                    logits = self.model(torch.tensor([ids])).logits[0].float()
                values = torch.log_softmax(logits, -1)
                given = [None]
                for k in range(1, len(ids)):
                    top = int(values[k - 1].argmax())
                    own = {ids[k]: Logprob(float(values[k - 1, ids[k]]))}
                    given.append({top: Logprob(float(values[k - 1, top]), 1), **own})
            out.append(RequestOutput(ids, given, [Text(f"答案：{len(ids)}")]))
        return out


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("vllm")
    module.LLM, module.SamplingParams, module.__version__ = LLM, SamplingParams, "0.0-scripted"
    module.TokensPrompt = dict
    monkeypatch.setitem(sys.modules, "vllm", module)
    LLM.made.clear()


def asked() -> list[Asked]:
    out = []
    for passage in ("小明住在湖边的城里，他养了一只猫。", "小红住在山上。"):
        for n in range(3):
            context = f"{passage}\n问题：他住在哪里？{n}\n答案：\n"
            out.append(Asked(context, (" 湖边", " 山上", " the lake", " 湖边"), (0, len(passage))))
    return out


def never(i: int, text: str = "") -> bool:
    return False


def test_scores_equal_the_local_backends(fake: None, model_folder: Path) -> None:
    backend = VllmBackend(model_folder, dtype="float32")
    local = local_backend(str(model_folder), "cpu", dtype="float32", batch_tokens=512)
    groups = ["p"] * 3 + ["q"] * 3
    found = dict(pair for batch in backend.score(asked(), groups, never) for pair in batch)
    want = dict(pair for batch in local.score(asked(), groups, never) for pair in batch)
    assert sorted(found) == list(range(6))
    for i, scored in want.items():
        assert found[i].scores == pytest.approx(scored.scores, abs=1e-4)
        assert not found[i].truncated
    ((sent, parameters),) = LLM.made[0].calls
    assert len(sent) == 6 * 3  # the option that comes twice is sent once
    assert parameters == SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=1, detokenize=False)


def test_the_engine_is_opened_with_what_was_asked_for(fake: None, model_folder: Path) -> None:
    open_backend("vllm", str(model_folder), devices=["cuda:0", "cuda:1"], dtype="bfloat16")
    made = LLM.made[0]
    assert made.folder == str(model_folder)
    assert made.settings == {
        "dtype": "bfloat16",
        "max_model_len": 160,
        "tensor_parallel_size": 2,
        "enable_prefix_caching": True,
        "seed": 0,
        "generation_config": "vllm",
    }


def test_generation_is_greedy_and_comes_in_lots(
    fake: None, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "LOT", 2)
    backend = VllmBackend(model_folder, dtype="float32")
    batches = list(backend.generate(asked(), 12, never, lambda i: i == 1))
    assert [[i for i, _ in batch] for batch in batches] == [[0, 2], [3, 4], [5]]
    lengths = [len(p) for sent, _ in LLM.made[0].calls for p in sent]
    assert [a.text for batch in batches for _, a in batch] == [f"答案：{n}" for n in lengths]
    assert LLM.made[0].calls[0][1] == SamplingParams(temperature=0.0, max_tokens=12, stop=list(STOPS))


def test_long_prompts_lose_the_middle_of_their_passage(fake: None, model_folder: Path) -> None:
    backend = VllmBackend(model_folder, dtype="float32")
    passage = "".join(chr(0x4E00 + 7 * i) for i in range(100))
    long = Asked(passage + "小明\n答案：", ("湖边", "山上"), (0, 100))
    ((_, scored),) = next(iter(backend.score([long], ["p"], never)))
    ((_, answered),) = next(iter(backend.generate([long], 9, never, never)))
    assert scored.truncated
    assert answered.truncated
    assert all(len(p) <= 160 - (s.max_tokens or 0) for sent, s in LLM.made[0].calls for p in sent)


def test_identity_changes_with_the_version_and_the_dtype(fake: None, model_folder: Path) -> None:
    one = VllmBackend(model_folder, dtype="float32").identity
    assert one["vllm"] == "0.0-scripted"
    assert VllmBackend(model_folder, dtype="bfloat16").identity != one
    assert json.loads(json.dumps(dict(one))) == one


def test_without_vllm_the_extra_is_named(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(BadInput, match=r"pip install pandallm\[vllm\]"):
        VllmBackend(model_folder)


def test_vllm_needs_gpus_and_a_model(fake: None, model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="runs on GPUs, not on cpu"):
        VllmBackend(model_folder, devices=["cpu"])
    with pytest.raises(BadInput, match=r"has no config\.json"):
        VllmBackend(tmp_path)
