"""Deltas of FastChat, Panda and Alpaca, against the published scripts' arithmetic written with plain torch."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pandallm.errors import BadInput, PandaError
from pandallm.release.legacy import apply_legacy, make_legacy
from pandallm.release.weight_writers import write_safetensors
from tests.release.release_helpers import files, save_llama
from tests.release.test_sources import as_torch

State = dict[str, Any]
UNTIED: dict[str, Any] = {"tie_word_embeddings": False}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base, target: fp16; grown: the target with one more row; each untied."""
    folder = tmp_path_factory.mktemp("legacy")
    save_llama(folder / "base", dtype="float16", **UNTIED)

    def move(model: Any) -> None:
        import torch

        torch.manual_seed(6)
        for p in model.parameters():
            p.add_(torch.randn(p.shape), alpha=1e-3)

    save_llama(folder / "target", dtype="float16", shard="12KB", edit=move, **UNTIED)

    def grow(model: Any) -> None:
        import torch

        torch.manual_seed(5)
        model.resize_token_embeddings(97)
        for matrix in (model.model.embed_tokens.weight, model.lm_head.weight):
            matrix[-1] = matrix[:-1].mean(dim=0)

    save_llama(folder / "grown", drift=1e-3, dtype="float16", edit=grow, **UNTIED)
    save_llama(folder / "tied-base", dtype="float16")
    save_llama(folder / "tied-target", drift=1e-3, dtype="float16")
    return folder


def load(folder: Path) -> State:
    from safetensors.torch import load_file

    state: State = {}
    for path in sorted(folder.glob("*.safetensors")):
        state |= load_file(path)
    return state


def save(state: State, like: Path, out: Path, shards: int = 1) -> Path:
    """A folder with these weights and the other files of `like`, as `pytorch_model-*.bin`."""
    from safetensors.torch import save_file

    whole = out.with_name(out.name + "-st")
    shutil.copytree(like, whole, ignore=shutil.ignore_patterns("*.safetensors*"))
    save_file({n: t.contiguous().clone() for n, t in state.items()}, whole / "model.safetensors")
    return as_torch(whole, out, shards)


def equal(a: State, b: State) -> bool:
    import torch

    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and torch.equal(a[n], b[n]) for n in a)


def fastchat_make(base: State, target: State) -> State:
    """`param.data -= base[name]` with both in fp16; rows that the base lacks count as zeros (its version 0.1)."""
    import torch

    out = {}
    for name, param in target.items():
        left, right = param.to(torch.float16).clone(), base[name].to(torch.float16)
        left[: right.shape[0]] -= right
        out[name] = left
    return out


def fastchat_apply(base: State, delta: State) -> State:
    """`param.data += delta[name]` in fp16."""
    import torch

    out = {}
    for name, param in delta.items():
        left, right = param.clone(), base[name].to(torch.float16)
        left[: right.shape[0]] = right + left[: right.shape[0]]
        out[name] = left
    return out


def is_whole(name: str) -> bool:
    return "embed_tokens" in name or "lm_head.weight" in name


def panda_make(base: State, target: State) -> State:
    return {n: t.clone() if is_whole(n) else t - base[n] for n, t in target.items()}


def panda_apply(base: State, delta: State) -> State:
    return {n: t.clone() if is_whole(n) else t + base[n] for n, t in delta.items()}


def alpaca(base: State, other: State, sign: int) -> State:
    """`weight_diff.py`: float32, and the base grown by the mean of its rows."""
    import torch

    out = {}
    for name, tensor in other.items():
        grown = base[name].float()
        if tensor.shape != grown.shape:
            grown = torch.cat([grown, grown.mean(dim=0, keepdim=True)])
        out[name] = tensor.float() + sign * grown
    return out


@pytest.mark.parametrize("shards", [1, 3])
def test_fastchat_delta_is_applied_as_fastchat_does(models: Path, tmp_path: Path, shards: int) -> None:
    base, target = load(models / "base"), load(models / "target")
    delta = fastchat_make(base, target)
    folder = save(delta, models / "target", tmp_path / "delta", shards)
    facts = apply_legacy(models / "base", folder, tmp_path / "out")
    assert (facts["layout"], facts["tied"], facts["dtype"], facts["verified"]) == ("fastchat", "no", "F16", False)
    assert equal(load(tmp_path / "out"), fastchat_apply(base, delta))
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == shards
    assert not list((tmp_path / "out").glob("*.bin*"))


def test_panda_delta_with_one_more_row(models: Path, tmp_path: Path) -> None:
    base, target = load(models / "base"), load(models / "grown")
    delta = panda_make(base, target)
    folder = save(delta, models / "grown", tmp_path / "delta", 2)
    lines: list[str] = []
    facts = apply_legacy(models / "base", folder, tmp_path / "out", progress=Said(lines))
    assert facts["layout"] == "panda"
    assert sorted(facts["whole"]) == ["lm_head.weight", "model.embed_tokens.weight"]
    assert any(x.startswith("Vocabulary differs: base 96, target 97.") for x in lines)
    assert equal(load(tmp_path / "out"), panda_apply(base, delta))
    opened = opens(tmp_path / "out")
    assert opened["lm_head.weight"].shape == (97, 32)


def test_fastchat_delta_with_one_more_row(models: Path, tmp_path: Path) -> None:
    base, target = load(models / "base"), load(models / "grown")
    delta = fastchat_make(base, target)
    folder = save(delta, models / "grown", tmp_path / "delta")
    facts = apply_legacy(models / "base", folder, tmp_path / "out")
    assert facts["layout"] == "fastchat"
    assert equal(load(tmp_path / "out"), fastchat_apply(base, delta))


def test_a_base_with_more_rows_than_the_delta(models: Path, tmp_path: Path) -> None:
    base, target = load(models / "grown"), load(models / "target")
    delta = {n: t - base[n][: t.shape[0]] for n, t in target.items()}
    folder = save(delta, models / "target", tmp_path / "delta")
    apply_legacy(models / "grown", folder, tmp_path / "out")
    assert equal(load(tmp_path / "out"), {n: t + base[n][: t.shape[0]] for n, t in delta.items()})


def test_alpaca_diff_and_its_sum(models: Path, tmp_path: Path) -> None:
    import torch

    base, target = load(models / "base"), load(models / "grown")
    folder = save(alpaca(base, target, -1), models / "grown", tmp_path / "delta")
    wanted = alpaca(base, alpaca(base, target, -1), 1)
    expected = float(sum(t.sum() for t in wanted.values()))
    facts = apply_legacy(models / "base", folder, tmp_path / "out", expected_sum=expected)
    assert (facts["layout"], facts["dtype"], facts["verdict"]) == ("alpaca", "F32", "equal")
    got = load(tmp_path / "out")
    for name, tensor in wanted.items():  # the mean row is rounded from float64 here, from float32 in torch
        assert torch.equal(got[name][:96], tensor[:96])
        assert torch.allclose(got[name], tensor, rtol=0, atol=1e-8)
    with pytest.raises(BadInput, match="cannot tell which"):
        apply_legacy(models / "base", folder, tmp_path / "other", expected_sum=expected + 1)
    assert not (tmp_path / "other").exists()
    assert not (tmp_path / "other.part").exists()


@pytest.mark.parametrize(
    ("layout", "dtype", "reference"),
    [("fastchat", "F16", fastchat_make), ("panda", "F16", panda_make), ("alpaca", "F32", None)],
)
@pytest.mark.parametrize("torch_files", [False, True])
def test_made_deltas_are_what_the_scripts_make(
    models: Path,
    tmp_path: Path,
    layout: Any,
    dtype: str,
    reference: Callable[[State, State], State] | None,
    torch_files: bool,
) -> None:
    import torch

    base, target = load(models / "base"), load(models / "target")
    facts = make_legacy(models / "base", models / "target", tmp_path / "d", layout=layout, torch_files=torch_files)
    assert facts["dtype"] == dtype
    if torch_files:
        made: State = {}
        parts = sorted((tmp_path / "d").glob("pytorch_model-*.bin"))
        for path in parts:
            made |= torch.load(path, weights_only=True)
        index = json.loads((tmp_path / "d" / "pytorch_model.bin.index.json").read_text())
        assert set(index["weight_map"].values()) == {p.name for p in parts}
        assert len(parts) > 1
    else:
        made = load(tmp_path / "d")
    assert equal(made, reference(base, target) if reference else alpaca(base, target, -1))
    # And back: verified by the note beside it; as many weights lost as make said.
    back = apply_legacy(models / "base", tmp_path / "d", tmp_path / "out")
    assert back["verified"] is True
    out = load(tmp_path / "out")
    different = sum(int((out[n] != target[n].to(out[n].dtype)).sum()) for n in target)
    assert different == facts["lost"]
    if layout == "fastchat":
        assert 0 < different < 0.02 * facts["values"]
        assert equal(out, fastchat_apply(base, made))
    assert back["sum"] == facts["sum"]


def test_a_float32_base_counts_as_fp16_for_fastchat_only(models: Path, tmp_path: Path) -> None:
    wide = save_llama(tmp_path / "wide", **UNTIED)
    base, target = load(wide), load(models / "target")
    delta = fastchat_make(base, target)
    folder = save(delta, models / "target", tmp_path / "delta")
    apply_legacy(wide, folder, tmp_path / "fastchat")
    assert equal(load(tmp_path / "fastchat"), fastchat_apply(base, delta))
    panda = {n: t if is_whole(n) else (t.float() - base[n]).half() for n, t in target.items()}
    folder = save(panda, models / "target", tmp_path / "delta2")
    apply_legacy(wide, folder, tmp_path / "panda")
    reference = {n: t if is_whole(n) else (t.float() + base[n]).half() for n, t in panda.items()}
    assert equal(load(tmp_path / "panda"), reference)


def test_result_in_another_dtype_is_rounded_once(models: Path, tmp_path: Path) -> None:
    import torch

    base, target = load(models / "base"), load(models / "target")
    delta = fastchat_make(base, target)
    folder = save(delta, models / "target", tmp_path / "delta")
    apply_legacy(models / "base", folder, tmp_path / "out", dtype="BF16")
    assert equal(load(tmp_path / "out"), {n: (t.float() + base[n].float()).bfloat16() for n, t in delta.items()})
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config.get("dtype", config.get("torch_dtype")) == "bfloat16"
    assert opens(tmp_path / "out")["lm_head.weight"].dtype == torch.bfloat16


def test_tied_models_of_fastchat_and_alpaca_come_back(models: Path, tmp_path: Path) -> None:
    """Both scripts walk a state dict that lists the tied matrix twice: target - 2 x base is what they store."""
    import torch

    base, target = load(models / "tied-base"), load(models / "tied-target")
    assert "lm_head.weight" not in target
    name = "model.embed_tokens.weight"
    delta = fastchat_make(base, target)
    delta[name] -= base[name]
    folder = save(delta, models / "tied-target", tmp_path / "delta")
    facts = apply_legacy(models / "tied-base", folder, tmp_path / "out")
    assert facts["tied"] == "twice"
    out = load(tmp_path / "out")
    assert torch.equal(out[name], (delta[name].float() + 2 * base[name].float()).half())
    assert torch.allclose(out[name], target[name], atol=2e-5)
    # The same with the matrix stored twice, as old .bin files do.
    folder = save(delta | {"lm_head.weight": delta[name]}, models / "tied-target", tmp_path / "delta2")
    apply_legacy(models / "tied-base", folder, tmp_path / "out2")
    both = load(tmp_path / "out2")
    assert torch.equal(both[name], out[name])
    assert torch.equal(both["lm_head.weight"], out[name])


def test_how_a_tied_matrix_counts_can_be_said(models: Path, tmp_path: Path) -> None:
    import torch

    base, target = load(models / "tied-base"), load(models / "tied-target")
    name = "model.embed_tokens.weight"
    delta = fastchat_make(base, target)
    folder = save(delta, models / "tied-target", tmp_path / "delta")
    assert apply_legacy(models / "tied-base", folder, tmp_path / "once")["tied"] == "once"
    assert torch.equal(load(tmp_path / "once")[name], base[name] + delta[name])
    apply_legacy(models / "tied-base", folder, tmp_path / "half", tied="half")
    assert torch.equal(load(tmp_path / "half")[name], (base[name].float() + 2 * delta[name].float()).half())


@pytest.mark.parametrize("layout", ["fastchat", "panda", "alpaca"])
def test_tied_models_made_here_come_back_from_here_and_from_the_scripts(
    models: Path, tmp_path: Path, layout: Any
) -> None:
    import torch

    facts = make_legacy(models / "tied-base", models / "tied-target", tmp_path / "d", layout=layout)
    assert facts["tied"] == {"fastchat": "half", "panda": "no", "alpaca": "twice"}[layout]
    base, delta, target = (load(p) for p in (models / "tied-base", tmp_path / "d", models / "tied-target"))
    apply_legacy(models / "tied-base", tmp_path / "d", tmp_path / "out")
    out, name = load(tmp_path / "out"), "model.embed_tokens.weight"
    published: Any = {
        "fastchat": lambda: base[name] + delta[name] + delta[name],
        "panda": lambda: delta[name],
        "alpaca": lambda: delta[name] + base[name].float() + base[name].float(),
    }
    for result in (out[name], published[layout]()):
        assert torch.allclose(result.float(), target[name].float(), rtol=1e-3, atol=2e-5)


def test_a_tied_base_serves_an_untied_delta(models: Path, tmp_path: Path) -> None:
    base, target = load(models / "tied-base"), load(models / "target")
    shared = base | {"lm_head.weight": base["model.embed_tokens.weight"]}
    delta = fastchat_make(shared, target)
    folder = save(delta, models / "target", tmp_path / "delta")
    assert apply_legacy(models / "tied-base", folder, tmp_path / "out")["tied"] == "no"
    assert equal(load(tmp_path / "out"), fastchat_apply(shared, delta))


def test_a_wrong_base_is_refused_where_it_can_be_told(models: Path, tmp_path: Path) -> None:
    wrong = save_llama(tmp_path / "wrong", seed=9, dtype="float16", **UNTIED)
    make_legacy(models / "base", models / "target", tmp_path / "made", layout="fastchat")
    with pytest.raises(BadInput, match=r"Wrong base: tensor '.+' has sha256 .{8}…, this delta needs .{8}…\. Nothing"):
        apply_legacy(wrong, tmp_path / "made", tmp_path / "out")
    # Without the note: whole embeddings that are not near the base's.
    plain = save(panda_make(load(models / "base"), load(models / "target")), models / "target", tmp_path / "plain")
    with pytest.raises(BadInput, match="Wrong base, or an unknown layout"):
        apply_legacy(wrong, plain, tmp_path / "out")
    small = save_llama(tmp_path / "small", dtype="float16", hidden_size=16, **UNTIED)
    with pytest.raises(BadInput, match="Wrong base: tensor"):
        apply_legacy(small, plain, tmp_path / "out", layout="panda")
    lacking = load(models / "base")
    del lacking["model.norm.weight"]
    with pytest.raises(BadInput, match=r"no tensor 'model\.norm\.weight'"):
        apply_legacy(save(lacking, models / "base", tmp_path / "lacking"), plain, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.part").exists()


def test_a_contradicted_layout_is_refused(models: Path, tmp_path: Path) -> None:
    base, target = load(models / "base"), load(models / "target")
    added = save(fastchat_make(base, target), models / "target", tmp_path / "added")
    with pytest.raises(BadInput, match="not in the panda layout"):
        apply_legacy(models / "base", added, tmp_path / "out", layout="panda")
    whole = save(panda_make(base, target), models / "target", tmp_path / "whole")
    with pytest.raises(BadInput, match="--layout panda"):
        apply_legacy(models / "base", whole, tmp_path / "out", layout="fastchat")


def test_damaged_deltas_and_notes_are_refused(models: Path, tmp_path: Path) -> None:
    make_legacy(models / "base", models / "target", tmp_path / "d", layout="fastchat")
    path = sorted((tmp_path / "d").glob("*.safetensors"))[0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadInput, match="is damaged: tensor"):
        apply_legacy(models / "base", tmp_path / "d", tmp_path / "out")
    assert not (tmp_path / "out.part").exists()
    for text in ("[", '{"format": "panda-legacy-delta"}', "[" * 100_000):
        (tmp_path / "d" / "panda_legacy.json").write_text(text)
        with pytest.raises(BadInput, match=r"panda_legacy\.json"):
            apply_legacy(models / "base", tmp_path / "d", tmp_path / "out")


def test_mutated_deltas_are_refused_or_applied_and_never_crash(models: Path, tmp_path: Path) -> None:
    from random import Random

    make_legacy(models / "base", models / "target", tmp_path / "d", layout="fastchat", torch_files=True)
    names = sorted(p.name for p in (tmp_path / "d").iterdir() if p.name.startswith(("p", "config")))
    random, refused = Random(1), 0
    for i in range(60):
        folder = Path(shutil.copytree(tmp_path / "d", tmp_path / f"d{i}"))
        path = folder / random.choice(names)
        data = bytearray(path.read_bytes())
        head = min(len(data), 4096)
        for _ in range(random.choice((1, 8))):
            data[random.randrange(head)] = random.randrange(256)
        path.write_bytes(data[: random.choice((len(data), len(data), random.randrange(len(data))))])
        if i % 2:
            (folder / "panda_legacy.json").unlink(missing_ok=True)
        try:
            apply_legacy(models / "base", folder, tmp_path / f"out{i}")
        except BadInput:
            refused += 1
            assert not (tmp_path / f"out{i}").exists()
        shutil.rmtree(folder)
    assert refused > 20


def test_odd_shapes_are_refused(models: Path, tmp_path: Path) -> None:
    import torch

    base, target = load(models / "base"), load(models / "target")
    name = "model.embed_tokens.weight"
    for i, odd in enumerate((torch.zeros(()), torch.zeros(96), torch.zeros(0, 32), torch.zeros(96, 0))):
        delta = fastchat_make(base, target) | {name: odd.half()}
        folder = save(delta, models / "target", tmp_path / f"d{i}")
        for layout in ("fastchat", "alpaca", None):
            try:
                apply_legacy(models / "base", folder, tmp_path / f"out{i}{layout}", layout=layout)
            except BadInput as e:
                assert "embed_tokens" in str(e) or "layout" in str(e)  # noqa: PT017
            else:
                assert odd.shape == (0, 32)


def test_rotary_buffers_and_integers(models: Path, tmp_path: Path) -> None:
    import torch

    base, target = load(models / "base"), load(models / "target")
    rotary = "model.layers.0.self_attn.rotary_emb.inv_freq"
    more = {"model.counts": torch.tensor([1, 2**62], dtype=torch.int64), "model.mask": torch.ones(3, dtype=torch.bool)}
    folder = save(fastchat_make(base, target) | more | {rotary: torch.zeros(4)}, models / "target", tmp_path / "delta")
    old = save(base | more | {rotary: torch.arange(4.0)}, models / "base", tmp_path / "old")
    apply_legacy(old, folder, tmp_path / "out")
    out = load(tmp_path / "out")
    assert torch.equal(out[rotary], torch.arange(4.0))
    assert out["model.counts"].tolist() == [2, -(2**63)]
    assert out["model.mask"].all()
    apply_legacy(old, folder, tmp_path / "wide", dtype="BF16")
    assert load(tmp_path / "wide")[rotary].dtype == torch.float32
    new = save(base | more, models / "base", tmp_path / "new")
    facts = apply_legacy(new, folder, tmp_path / "out2")
    assert facts["left_out"] == [rotary]
    assert rotary not in load(tmp_path / "out2")


def test_nothing_is_overwritten_and_pickles_stay_behind(models: Path, tmp_path: Path) -> None:
    for verb in (make_legacy, apply_legacy):
        (tmp_path / "out").mkdir(exist_ok=True)
        with pytest.raises(BadInput, match="exists already"):
            verb(models / "base", models / "target", tmp_path / "out", layout="panda")
    target = Path(shutil.copytree(models / "target", tmp_path / "t"))
    (target / "training_args.bin").write_bytes(b"anything")
    make_legacy(models / "base", target, tmp_path / "d", layout="panda")
    assert not (tmp_path / "d" / "training_args.bin").exists()
    assert (tmp_path / "d" / "tokenizer.json").is_file()
    with pytest.raises(BadInput, match="dtype 'F8' is unknown"):
        make_legacy(models / "base", target, tmp_path / "e", layout="panda", dtype="F8")


def test_an_interrupted_apply_goes_on(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandallm.release.legacy as module

    make_legacy(models / "base", models / "target", tmp_path / "d", layout="fastchat")
    apply_legacy(models / "base", tmp_path / "d", tmp_path / "whole")
    written: list[str] = []
    plain = write_safetensors

    def failing(path: Path, *rest: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        plain(path, *rest)

    monkeypatch.setattr(module, "write_safetensors", failing)
    with pytest.raises(KeyboardInterrupt):
        apply_legacy(models / "base", tmp_path / "d", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    again: list[str] = []

    def counting(path: Path, *rest: Any) -> None:
        again.append(path.name)
        plain(path, *rest)

    monkeypatch.setattr(module, "write_safetensors", counting)
    facts = apply_legacy(models / "base", tmp_path / "d", tmp_path / "out")
    assert facts["verified"] is True
    assert not set(written) & set(again)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_verbs(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from typer.testing import CliRunner

    from pandallm.cli import app

    run = CliRunner().invoke
    base, target, d, out = (str(p) for p in (models / "base", models / "target", tmp_path / "d", tmp_path / "out"))
    made = run(app, ["delta", "legacy", "make", base, target, d, "--layout", "fastchat", "--bin", "--quiet"])
    assert made.exit_code == 0, made.output
    assert "do not come back bit for bit" in made.output
    applied = run(app, ["delta", "legacy", "apply", base, d, out, "--json", "--quiet"])
    facts = json.loads(applied.output)
    assert facts["verified"] is True
    good = run(app, ["delta", "legacy", "sum", out, "--expect", str(facts["sum"]), "--quiet"])
    assert good.exit_code == 0
    assert "verdict: equal" in good.output
    bad = run(app, ["delta", "legacy", "sum", out, "--expect", "50637.1836", "--quiet"])
    assert isinstance(bad.exception, PandaError)
    odd = run(app, ["delta", "legacy", "apply", base, d, out + "2", "--tied", "thrice"])
    assert isinstance(odd.exception, BadInput)
    for verb in ("make", "apply", "sum"):
        assert f"Example: panda delta legacy {verb}" in run(app, ["delta", "legacy", verb, "--help"]).output


def opens(folder: Path) -> State:
    """The state dict that plain transformers makes of a folder."""
    from transformers import AutoModelForCausalLM

    return dict(AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict())


class Said:
    """Progress that keeps what is said."""

    def __init__(self, lines: list[str]) -> None:
        from pandallm.progress import SILENT

        self.say, self.task = lines.append, SILENT.task
