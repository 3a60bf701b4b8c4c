"""Rows for new tokens: old logits stay, new rows are what was asked for."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pandallm.errors import BadInput
from pandallm.model.folder import load_model, load_tokenizer, save_model
from pandallm.model.grow import grow_rows
from pandallm.model.scratch import init_scratch
from pandallm.model.spec import ArchitectureSpec

OLD = 258  # tokens of the small tokenizer; its models have 320 rows
PARTS = [(5, 9), (7,), (20, 21, 22), ()]


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def base(request: pytest.FixtureRequest, tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = ArchitectureSpec(
        hidden_size=32,
        layers=2,
        heads=4,
        intermediate_size=48,
        embedding_std=0.7,
        head_std=0.5,
        tie_embeddings=request.param,
    )
    folder = tmp_path_factory.mktemp("base") / "model"
    init_scratch(spec, tokenizer_folder, folder, seed=1)
    return folder


def matrices(folder: Path) -> list[Any]:
    model = load_model(folder)
    return [model.get_input_embeddings().weight.detach(), model.get_output_embeddings().weight.detach()]


def logits(folder: Path) -> Any:
    ids = torch.tensor([[3, 14, 15, 92, 65, 35, 89]])
    with torch.no_grad():
        return load_model(folder)(ids).logits[0]


def test_old_rows_and_logits_stay_as_they_were(base: Path, tmp_path: Path) -> None:
    facts = grow_rows(base, tmp_path / "m", 320, PARTS, pad_to_multiple=8)
    assert (facts["rows_before"], facts["rows"]) == (320, 328)
    before, after = logits(base), logits(tmp_path / "m")
    assert after.shape == (7, 328)
    assert torch.allclose(before, after[:, :320], atol=1e-5)  # a product of another shape may round otherwise
    for old, new in zip(matrices(base), matrices(tmp_path / "m")):
        assert torch.equal(old, new[:320])


def test_a_mean_of_parts_is_never_the_best(base: Path, tmp_path: Path) -> None:
    grow_rows(base, tmp_path / "m", 320, PARTS)
    before, after = logits(base), logits(tmp_path / "m")
    assert torch.equal(before.argmax(-1), after.argmax(-1))
    assert after[:, 320].tolist() == pytest.approx(before[:, [5, 9]].mean(-1).tolist(), abs=1e-4)


def test_rows_are_means_of_their_parts_or_of_all(base: Path, tmp_path: Path) -> None:
    facts = grow_rows(base, tmp_path / "m", OLD, PARTS)
    assert facts["rows"] == facts["rows_before"] == 320  # rows that no token had are taken first
    for old, new in zip(matrices(base), matrices(tmp_path / "m")):
        mean = old[:OLD].double().mean(0).float()
        assert torch.equal(new[:OLD], old[:OLD])
        assert torch.allclose(new[OLD], (old[5] + old[9]) / 2)
        assert torch.equal(new[OLD + 1], old[7])
        assert torch.allclose(new[OLD + 2], old[20:23].mean(0))
        assert torch.allclose(new[OLD + 3], mean)
        assert torch.equal(new[OLD + 4 :], old[OLD + 4 :])
    grow_rows(base, tmp_path / "all", 320, PARTS, init="mean_all")
    for old, new in zip(matrices(base), matrices(tmp_path / "all")):
        assert new.shape[0] == 384
        assert torch.allclose(new[320:], old.mean(0).expand(64, -1), atol=1e-6)


def test_normal_rows_have_the_old_mean_and_deviation_and_depend_on_the_seed(base: Path, tmp_path: Path) -> None:
    parts = [(1,)] * 3000
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        grow_rows(base, tmp_path / name, 320, parts, init="normal", seed=seed)
    first, again, other = (matrices(tmp_path / name)[1] for name in "abc")
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    old, new = first[:320], first[320:3320]
    assert torch.allclose(new.mean(0), old.mean(0), atol=0.06)
    assert torch.allclose(new.std(0), old.std(0), rtol=0.06)


def test_plain_transformers_loads_it_and_the_type_is_kept(base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    save_model(load_model(base, "bfloat16"), load_tokenizer(base), tmp_path / "half")
    grow_rows(tmp_path / "half", tmp_path / "m", 320, PARTS)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype="auto")
    assert model.dtype == torch.bfloat16
    assert model.config.vocab_size == model.get_input_embeddings().weight.shape[0] == 384
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tied == load_model(base).config.tie_word_embeddings


def test_a_bias_of_the_output_grows_too(tmp_path: Path) -> None:
    from transformers import PhiConfig, PhiForCausalLM

    config = PhiConfig(
        vocab_size=40, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, dtype="float32"
    )
    model = PhiForCausalLM(config)
    with torch.no_grad():
        model.lm_head.bias.copy_(torch.arange(40.0))
    save_model(model, None, tmp_path / "base")
    grow_rows(tmp_path / "base", tmp_path / "m", 40, [(2, 5), ()], pad_to_multiple=1)
    assert load_model(tmp_path / "m").lm_head.bias.tolist() == [*map(float, range(40)), 3.5, 19.5]


def test_a_tokenizer_that_does_not_fit_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="has 320 rows, but its tokenizer holds 500 tokens"):
        grow_rows(base, tmp_path / "m", 500, [(450,)])
    assert not (tmp_path / "m").exists()


def test_an_added_token_without_a_row_gets_one(base: Path, tmp_path: Path) -> None:
    grow_rows(base, tmp_path / "m", 321, [(5, 9)], pad_to_multiple=2)
    for old, new in zip(matrices(base), matrices(tmp_path / "m")):
        assert new.shape[0] == 322
        assert torch.allclose(new[320], old.mean(0), atol=1e-6)
        assert torch.allclose(new[321], (old[5] + old[9]) / 2)
