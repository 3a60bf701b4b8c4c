"""base + delta = target, bit for bit, or nothing is written."""

import json
import shutil
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import zstandard

from pandallm.errors import BadInput, PandaError
from pandallm.release import apply, container, make
from pandallm.release.delta import apply_delta, inspect_delta, make_delta, verify_delta
from pandallm.store import digest_file
from tests.release.release_helpers import files, rewrite, save_llama


def round_trip(base: Path, target: Path, tmp: Path, **options: Any) -> dict[str, Any]:
    """Make, verify and apply; the files must be the target's, all of them."""
    report = make_delta(base, target, tmp / "delta", **options)
    assert verify_delta(base, tmp / "delta", target)["verified"] is True
    apply_delta(base, tmp / "delta", tmp / "out")
    assert files(tmp / "out") == files(target)
    assert not [p for p in tmp.iterdir() if p.name.endswith((".part", ".lock"))]
    return report


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("drift", [1e-3, 0.5])
def test_round_trip(tmp_path: Path, dtype: str, drift: float) -> None:
    base = save_llama(tmp_path / "b", dtype=dtype)
    target = save_llama(tmp_path / "t", drift=drift, dtype=dtype)
    report = round_trip(base, target, tmp_path)
    # In 16 bits a small drift of a norm, whose weights are near 1, rounds away.
    assert report["ops"]["delta"] >= 18
    assert sum(report["ops"].values()) == 20
    assert report["target_bytes"] == sum(len(x) for x in files(target).values())
    assert report["bytes"] == sum(len(x) for x in files(tmp_path / "delta").values())


def test_restored_model_computes_the_same(base: Path, target: Path, delta: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    apply_delta(base, delta, tmp_path / "out")
    ids = torch.arange(12)[None]
    models = [AutoModelForCausalLM.from_pretrained(p).eval() for p in (target, tmp_path / "out", base)]
    want, got, old = (m(ids).logits for m in models)
    assert torch.equal(want, got)
    assert not torch.equal(want, old)


def test_edited_card_makes_no_other_base(base: Path, target: Path, tmp_path: Path) -> None:
    old, new = shutil.copytree(base, tmp_path / "old"), shutil.copytree(target, tmp_path / "new")
    for folder in (old, new):
        (folder / "README.md").write_text("A card.")
    make_delta(old, new, tmp_path / "delta")
    (old / "README.md").write_text("A card with a typo corrected.")
    apply_delta(old, tmp_path / "delta", tmp_path / "out")
    assert files(tmp_path / "out") == files(new)


def test_weights_of_every_kind_of_bits(tmp_path: Path) -> None:
    """NaN payloads, infinities, negative zeros and denormals in both folders."""
    import torch

    def put(values: list[int]) -> Any:
        bits = torch.from_numpy(np.array(values, np.uint32).view(np.int32)).view(torch.float32)
        return lambda model: model.model.norm.weight.data[: len(values)].copy_(bits)

    odd = [0x80000000, 0, 1, 0x80000001, 0x7F800000, 0xFF800000, 0x7FC00123, 0xFF800001, 0x7FFFFFFF, 0x007FFFFF]
    base = save_llama(tmp_path / "b", edit=put(odd))
    target = save_llama(tmp_path / "t", edit=put(odd[::-1]), drift=1e-4)
    assert struct.pack("<I", 0xFF800001) in files(target)["model.safetensors"]
    round_trip(base, target, tmp_path)


def test_unchanged_and_frozen_tensors_cost_nothing(base: Path, tmp_path: Path) -> None:
    def edit(model: Any) -> None:
        model.model.layers[0].mlp.up_proj.weight[3, 4] += 1

    report = round_trip(base, save_llama(tmp_path / "t", edit=edit), tmp_path)
    assert report["ops"] == {"delta": 1, "same": 19}
    assert inspect_delta(tmp_path / "delta")["files"] == {"same": 1, "weights": 1, "whole": 2}


def test_delta_is_never_larger_than_zstd_of_the_target(tmp_path: Path) -> None:
    """Trained from another start altogether, as small float32 models are."""
    base, target = save_llama(tmp_path / "b", seed=1), save_llama(tmp_path / "t", seed=2)
    make_delta(base, target, tmp_path / "delta")
    blobs = sum(
        sum(e["blob"]["chunks"])
        for e in json.loads((tmp_path / "delta/panda_delta.json").read_text())["tensors"].values()
        if "blob" in e
    )
    assert blobs < len(zstandard.ZstdCompressor(level=1).compress(files(target)["model.safetensors"]))


def test_sharded_both_ways(tmp_path: Path) -> None:
    one = save_llama(tmp_path / "one")
    many = save_llama(tmp_path / "many", shard="20KB")
    target = save_llama(tmp_path / "t", drift=1e-3, shard="30KB")
    assert len(list(many.glob("*.safetensors"))) > 2
    round_trip(one, target, tmp_path / "a", shard_bytes=5000)
    assert inspect_delta(tmp_path / "a/delta")["shards"] > 2
    apply_delta(many, tmp_path / "a/delta", tmp_path / "b/out")  # the right base, cut otherwise
    assert files(tmp_path / "b/out") == files(target)


@pytest.mark.parametrize(("rows_base", "rows_target"), [(96, 120), (120, 96)])
def test_grown_and_cut_vocabulary(tmp_path: Path, rows_base: int, rows_target: int) -> None:
    def keep(model: Any) -> None:
        import torch

        torch.manual_seed(9)
        shared = torch.randn(96, 32)
        model.model.embed_tokens.weight[:96] = shared

    base = save_llama(tmp_path / "b", vocab_size=rows_base, edit=keep)
    target = save_llama(tmp_path / "t", vocab_size=rows_target, edit=keep)
    report = round_trip(base, target, tmp_path)
    assert report["ops"]["rows"] == 1
    blob = json.loads((tmp_path / "delta/panda_delta.json").read_text())["tensors"]["model.embed_tokens.weight"]["blob"]
    assert blob["chunks"][0] == 1  # shared rows are unchanged and cost a byte
    assert len(blob["chunks"]) == (2 if rows_target > rows_base else 1)


def test_untied_target_of_tied_base_and_back(tmp_path: Path) -> None:
    tied = save_llama(tmp_path / "tied")
    untied = save_llama(tmp_path / "untied", drift=1e-3, tie_word_embeddings=False)
    round_trip(tied, untied, tmp_path / "a")
    round_trip(untied, tied, tmp_path / "b")
    assert inspect_delta(tmp_path / "b/delta")["dropped"] == ["lm_head.weight"]


def test_tensor_stored_twice_is_an_alias(base: Path, tmp_path: Path) -> None:
    def tie(model: Any) -> None:
        model.model.embed_tokens.weight += 0.01
        model.lm_head.weight[:] = model.model.embed_tokens.weight

    target = save_llama(tmp_path / "t", tie_word_embeddings=False, edit=tie)
    assert round_trip(base, target, tmp_path)["ops"]["alias"] == 1


@pytest.mark.parametrize(("old", "new"), [("float32", "bfloat16"), ("bfloat16", "float32"), ("float16", "bfloat16")])
def test_cast(tmp_path: Path, old: str, new: str) -> None:
    base = save_llama(tmp_path / "b", dtype=old)
    report = round_trip(base, save_llama(tmp_path / "t", dtype=new, drift=1e-4), tmp_path)
    assert set(report["ops"]) <= {"cast", "alias"}  # rounded norms can be all ones, several times
    assert report["ops"]["cast"] >= 16


def test_wrong_base_is_named_before_anything_is_written(delta: Path, target: Path, tmp_path: Path) -> None:
    other = save_llama(tmp_path / "other", edit=lambda m: m.model.norm.weight.data[:1].add_(1))
    with pytest.raises(BadInput) as e:
        apply_delta(other, delta, tmp_path / "deep/out")
    assert "Wrong base: tensor 'model.norm.weight' has sha256 " in str(e.value)
    assert str(e.value).endswith("Nothing was written.")
    assert not (tmp_path / "deep").exists()
    with pytest.raises(BadInput, match="Wrong base"):
        verify_delta(other, delta, target)


def test_base_of_another_shape_or_type_or_files(delta: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"tensor '.*' is F16 \[.*\], this delta needs F32"):
        apply_delta(save_llama(tmp_path / "half", dtype="float16"), delta, tmp_path / "out")
    with pytest.raises(BadInput, match=r"has no tensor 'model\.layers\.1"):
        apply_delta(save_llama(tmp_path / "short", num_hidden_layers=1), delta, tmp_path / "out")
    changed = shutil.copytree(base, tmp_path / "changed")
    (changed / "tokenizer.json").write_text("{}")
    with pytest.raises(BadInput, match=r"Wrong base: file 'tokenizer.json' has sha256"):
        apply_delta(changed, delta, tmp_path / "out")
    (changed / "tokenizer.json").unlink()
    with pytest.raises(BadInput, match=r"Wrong base: it has no file 'tokenizer.json'"):
        apply_delta(changed, delta, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_verify_names_what_differs(base: Path, target: Path, delta: Path, tmp_path: Path) -> None:
    other = shutil.copytree(target, tmp_path / "t")
    (other / "extra.txt").write_text("more")
    (other / "tokenizer.json").write_text("{}")
    data = bytearray((other / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (other / "model.safetensors").write_bytes(data)
    report = verify_delta(base, delta, other)
    assert report["verified"] is False
    assert report["mismatches"] == [
        "Tensor 'model.norm.weight' differs.",
        "File 'model.safetensors' differs.",
        "File 'tokenizer.json' differs.",
        "The delta does not make file 'extra.txt'.",
    ]


def test_every_flipped_byte_of_a_shard_is_found(base: Path, delta: Path, tmp_path: Path) -> None:
    bad = shutil.copytree(delta, tmp_path / "bad")
    shard = next(bad.glob("*.safetensors"))
    good = shard.read_bytes()
    for at in (0, 9, len(good) // 2, len(good) - 1):
        shard.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        with pytest.raises(BadInput, match=r"Delta shard 1 of 1 is damaged \(sha256 mismatch\)\. Download it again"):
            apply_delta(base, bad, tmp_path / "out")
    shard.write_bytes(good[:-1])
    with pytest.raises(BadInput, match=r"damaged .*bytes, should be"):
        apply_delta(base, bad, tmp_path / "out")
    shard.unlink()
    with pytest.raises(BadInput, match="shard 1 of 1 is missing"):
        apply_delta(base, bad, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damage_with_a_corrected_hash_is_still_found(base: Path, delta: Path, tmp_path: Path) -> None:
    """Somebody who changes data and its sha256 together is caught by the hashes of the tensors and files."""
    bad = shutil.copytree(delta, tmp_path / "bad")
    shard = next(bad.glob("*.safetensors"))
    good = shard.read_bytes()
    random = np.random.default_rng(0)
    for at in random.integers(len(good) // 10, len(good), 25):
        shard.write_bytes(good[:at] + bytes([good[at] ^ 16]) + good[at + 1 :])
        rewrite(bad, lambda m: m["shards"][0].update(sha256=digest_file(shard)))
        with pytest.raises(BadInput):
            apply_delta(base, bad, tmp_path / "out")
        assert [p.name for p in tmp_path.iterdir()] == ["bad"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.update(version=2), "format version 2"),
        (lambda m: m.update(format="x"), "damaged at format"),
        (lambda m: m.update(surprise=1), "unknown field 'surprise'"),
        (lambda m: m["tensors"]["model.norm.weight"].update(shape=[1 << 40]), "another shape than its base"),
        (lambda m: m["tensors"]["model.norm.weight"].update(shape=[-1]), "damaged at tensors.model.norm.weight.shape"),
        (
            lambda m: m["tensors"]["model.norm.weight"].update(dtype="F32\n"),
            "damaged at tensors.model.norm.weight.dtype",
        ),
        (lambda m: m["tensors"]["model.norm.weight"].update(op="alias", of="x"), "alias of a tensor"),
        (lambda m: m["tensors"]["model.norm.weight"].update(op="same"), "data where none belongs"),
        (lambda m: m["tensors"]["model.norm.weight"]["blob"].update(shard=9), "shard that does not exist"),
        (lambda m: m["tensors"]["model.norm.weight"]["blob"].update(chunks=[1 << 50]), "chunks that do not fit"),
        (lambda m: m["tensors"]["model.norm.weight"].pop("base"), "lacks its base"),
        (lambda m: m["tensors"].pop("model.norm.weight"), "roots are not those"),
        (lambda m: m.update(target_root="0" * 64), "roots are not those"),
        (lambda m: m["files"]["model.safetensors"].update(bytes=1 << 61), "Not enough disk"),
        (lambda m: m["files"]["model.safetensors"].update(header_bytes=1 << 61), "chunks that do not fit"),
        (lambda m: m["files"].update({"../evil": m["files"]["config.json"]}), "leads out of the folder"),
        (lambda m: m["files"].update({"/evil": m["files"]["config.json"]}), "leads out of the folder"),
        (lambda m: m["files"].update({"a/b.safetensors": m["files"]["model.safetensors"]}), "leads out of the folder"),
        (lambda m: m["files"].update({".hidden": m["files"]["config.json"]}), "leads out of the folder"),
        (lambda m: m["files"].update({"config.json/x": m["files"]["config.json"]}), "leads out of the folder"),
    ],
)
def test_hostile_manifest(base: Path, delta: Path, tmp_path: Path, change: Any, says: str) -> None:
    bad = shutil.copytree(delta, tmp_path / "bad")
    rewrite(bad, change)
    with pytest.raises(PandaError, match=says):
        apply_delta(base, bad, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["bad"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"F32"', '"F16"'),
        ("model.norm", "model.nerm"),
        ("config.json", "confix.json"),
        ('"version":1', '"version":1.0'),
    ],
)
def test_changed_manifest_is_found(base: Path, delta: Path, tmp_path: Path, old: str, new: str) -> None:
    bad = shutil.copytree(delta, tmp_path / "bad")
    text = (bad / "panda_delta.json").read_text()
    (bad / "panda_delta.json").write_text(text.replace(old, new, 1))
    with pytest.raises(BadInput, match=r"damaged \(sha256 mismatch\)"):
        apply_delta(base, bad, tmp_path / "out")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"version": ' + "9" * 5000 + "}", '{"a": 1e999}', "[]", "3", "\xff"])
def test_manifests_that_are_none(base: Path, delta: Path, tmp_path: Path, text: str) -> None:
    bad = shutil.copytree(delta, tmp_path / "bad")
    (bad / "panda_delta.json").write_text(text)
    with pytest.raises(BadInput):
        apply_delta(base, bad, tmp_path / "out")


def test_existing_out_is_left_alone(base: Path, target: Path, delta: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "work.txt").write_text("dear to me")
    for call in (lambda: apply_delta(base, delta, mine), lambda: make_delta(base, target, mine)):
        with pytest.raises(BadInput, match="exists already"):
            call()
    assert files(mine) == {"work.txt": b"dear to me"}


def test_left_part_folder(base: Path, target: Path, delta: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "out.part"
    foreign.mkdir()
    (foreign / "work.txt").write_text("dear to me")
    with pytest.raises(BadInput, match="was not left by an interrupted delta"):
        apply_delta(base, delta, tmp_path / "out")
    assert files(foreign) == {"work.txt": b"dear to me"}
    (foreign / container._MARK).touch()  # as an attempt with other inputs leaves it
    apply_delta(base, delta, tmp_path / "out")
    assert files(tmp_path / "out") == files(target)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_full_disk_keeps_what_is_done(base: Path, target: Path, delta: Path, tmp_path: Path, monkeypatch: Any) -> None:
    read = make.read_base
    calls = 0

    def full_after_seven(*arguments: Any) -> bytes:
        nonlocal calls
        calls += 1
        if calls > 7:
            raise OSError(28, "No space left on device")
        return read(*arguments)

    monkeypatch.setattr(apply, "read_base", full_after_seven)
    with pytest.raises(PandaError, match=r"disk of .* is full; free some space and run the same command again"):
        apply_delta(base, delta, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["out.part"]
    calls = -100
    apply_delta(base, delta, tmp_path / "out")
    assert files(tmp_path / "out") == files(target)
    assert calls < -100 + 20  # the tensors that were finished were not decoded again
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_disk_space_is_looked_at_first(base: Path, target: Path, delta: Path, tmp_path: Path, monkeypatch: Any) -> None:
    free = 1000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    for call in (
        lambda: apply_delta(base, delta, tmp_path / "out"),
        lambda: make_delta(base, target, tmp_path / "out"),
    ):
        with pytest.raises(PandaError, match=r"Not enough disk at .*: need 0\.\d MB, have 0\.0 MB"):
            call()
    assert not list(tmp_path.iterdir())
    part = tmp_path / "out.part"  # what is there already need not fit once more
    part.mkdir()
    (part / container._MARK).write_text(container_identity(base, delta))
    (part / "model.safetensors").write_bytes(files(target)["model.safetensors"])
    free = 100_000
    apply_delta(base, delta, tmp_path / "out")
    assert files(tmp_path / "out") == files(target)


@pytest.mark.parametrize("after", [1, 5, 12, 19])
@pytest.mark.parametrize("shard_bytes", [3000, 1 << 30])
def test_interrupted_make_goes_on(
    base: Path, target: Path, tmp_path: Path, monkeypatch: Any, after: int, shard_bytes: int
) -> None:
    make_delta(base, target, tmp_path / "straight", shard_bytes=shard_bytes)
    encode_chunk = make._encode_chunk
    calls = 0

    def interrupted(job: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after + make._SAMPLED_TENSORS:
            raise KeyboardInterrupt
        return encode_chunk(job)

    monkeypatch.setattr(make, "_encode_chunk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_delta(base, target, tmp_path / "out", shard_bytes=shard_bytes)
    with open(tmp_path / "out.part/.journal.jsonl", "ab") as f:
        f.write(b'{"tensor": "cut')  # as a killed process leaves it
    done = len((tmp_path / "out.part/.journal.jsonl").read_bytes().splitlines()) - 1
    calls = -100
    make_delta(base, target, tmp_path / "out", shard_bytes=shard_bytes)
    assert calls == -100 + 20 - done + make._SAMPLED_TENSORS
    assert files(tmp_path / "out") == files(tmp_path / "straight")


def test_make_does_not_trust_what_was_damaged_or_changed_meanwhile(
    base: Path, target: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    make_delta(base, target, tmp_path / "straight")
    finish = container.ContainerWriter.finish

    def killed(writer: Any) -> Any:
        finish(writer)
        raise KeyboardInterrupt

    mine = shutil.copytree(target, tmp_path / "mine")
    for spoil in ("body", "target", "nothing"):
        monkeypatch.setattr(container.ContainerWriter, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            make_delta(base, mine, tmp_path / "out")
        monkeypatch.setattr(container.ContainerWriter, "finish", finish)
        if spoil == "body":
            body = next((tmp_path / "out.part").glob("*.safetensors"))
            data = bytearray(body.read_bytes())
            data[len(data) // 2] ^= 1
            body.write_bytes(data)
        if spoil == "target":
            (mine / "config.json").write_text("{}")
        make_delta(base, mine, tmp_path / "out")
        if spoil == "body":
            assert files(tmp_path / "out") == files(tmp_path / "straight")
        apply_delta(base, tmp_path / "out", tmp_path / "back")
        assert files(tmp_path / "back") == files(mine)
        shutil.rmtree(tmp_path / "out")
        shutil.rmtree(tmp_path / "back")


def test_apply_does_not_trust_what_was_damaged_meanwhile(base: Path, target: Path, delta: Path, tmp_path: Path) -> None:
    whole = files(target)
    for cut, flip in ((None, 900), (30_000, None), (20_000, 19_000), (100, None), (5, 2)):
        identity = container_identity(base, delta)
        part = tmp_path / "out.part"
        part.mkdir()
        (part / container._MARK).write_text(identity)
        data = bytearray(whole["model.safetensors"][:cut])
        if flip is not None:
            data[flip] ^= 1
        (part / "model.safetensors").write_bytes(data)
        (part / "config.json").write_bytes(whole["config.json"][:9])
        apply_delta(base, delta, tmp_path / "out")
        assert files(tmp_path / "out") == whole
        shutil.rmtree(tmp_path / "out")


def container_identity(base: Path, delta: Path) -> str:
    """What `apply_delta` writes into the folder under way."""
    from pandallm.release.weights import open_model
    from pandallm.store import canonical_json

    return canonical_json({"apply": [digest_file(delta / "panda_delta.json"), open_model(base, "Base").stamp()]})


def test_two_writers_of_one_folder(base: Path, delta: Path, tmp_path: Path) -> None:
    with container.staged(tmp_path / "out", "x"):
        with pytest.raises(PandaError, match="Another process is writing"):
            apply_delta(base, delta, tmp_path / "out")


def test_folders_that_are_no_models(base: Path, target: Path, tmp_path: Path) -> None:
    def refuse(folder: Path, says: str) -> None:
        for pair in ((folder, target), (base, folder)):
            with pytest.raises(BadInput, match=says):
                make_delta(*pair, tmp_path / "out")

    refuse(tmp_path / "nowhere", "does not exist")
    folder = tmp_path / "f"
    folder.mkdir()
    refuse(folder, "has no config.json")
    (folder / "params.json").write_text("{}")
    refuse(folder, "Meta's original format")
    (folder / "config.json").write_text("{}")
    refuse(folder, "has no weights")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    refuse(folder, "without running code")
    (folder / "pytorch_model.bin").unlink()
    for places, says in (
        ({"a": "../base/model.safetensors"}, "names the shard"),
        ({"a": "lost.safetensors"}, "lacks the shard"),
        ({}, "no weight_map"),
        (3, "no weight_map"),
    ):
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
        refuse(folder, says)
    (folder / "model.safetensors").write_bytes(b"\xff" * 20)
    refuse(folder, "header's length cannot be")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (b"[1]", "not a table"),
        (b"{1", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (
            b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
            "JSON",
        ),
        (b'{"a":1}', "lacks dtype"),
        (b'{"a":{"dtype":"Q9","shape":[4],"data_offsets":[0,4]}}', "not supported"),
        (b'{"a":{"dtype":"U8","shape":[-4],"data_offsets":[0,4]}}', "natural number"),
        (b'{"a":{"dtype":"U8","shape":[true],"data_offsets":[0,1]}}', "natural number"),
        (b'{"a":{"dtype":"U8","shape":[4.0],"data_offsets":[0,4]}}', "natural number"),
        (b'{"a":{"dtype":"U8","shape":[4294967296,4294967296,0],"data_offsets":[0,4]}}', "do not fit its shape"),
        (b'{"a":{"dtype":"U8","shape":[3],"data_offsets":[1,4]}}', "hole or an overlap"),
        (b'{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}', "its header describes"),
    ],
)
def test_hostile_safetensors_header(base: Path, tmp_path: Path, header: bytes, says: str) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"data")
    with pytest.raises(BadInput, match=says):
        make_delta(base, folder, tmp_path / "out")


def test_pickles_are_not_shipped_and_that_is_said(base: Path, target: Path, tmp_path: Path) -> None:
    other = shutil.copytree(target, tmp_path / "t")
    (other / "training_args.bin").write_bytes(b"\x80\x04")
    assert make_delta(base, other, tmp_path / "delta")["skipped"] == ["training_args.bin"]
    apply_delta(base, tmp_path / "delta", tmp_path / "out")
    assert files(tmp_path / "out") == files(target)


def test_delta_is_never_loaded_as_a_model(target: Path, delta: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    with pytest.raises((OSError, ValueError)):
        AutoModelForCausalLM.from_pretrained(delta)
    mixed = shutil.copytree(delta, tmp_path / "mixed")  # also where somebody adds a config
    shutil.copy(target / "config.json", mixed)
    with pytest.raises(OSError):
        AutoModelForCausalLM.from_pretrained(mixed)


def test_not_a_delta(base: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not a panda delta"):
        apply_delta(base, base, tmp_path / "out")


def test_inspect(delta: Path, target: Path) -> None:
    report = inspect_delta(delta)
    assert report["ops"] == {"delta": 20}
    assert report["bytes"] == sum(len(x) for x in files(delta).values())
    assert report["target_bytes"] == sum(len(x) for x in files(target).values())
    assert report["ratio"] == round(report["bytes"] / report["target_bytes"], 6)
    assert report["shards"] == 1


def test_same_inputs_make_the_same_bytes(base: Path, target: Path, delta: Path, tmp_path: Path) -> None:
    make_delta(base, target, tmp_path / "again")
    assert files(tmp_path / "again") == files(delta)


def test_more_than_one_chunk(tmp_path: Path, monkeypatch: Any) -> None:
    from pandallm.release import codec, manifest, weights

    for module in (codec, manifest, weights):
        monkeypatch.setattr(module, "CHUNK", 1000)
    base = save_llama(tmp_path / "b", dtype="bfloat16")
    target = save_llama(tmp_path / "t", dtype="bfloat16", drift=1e-3, vocab_size=130)
    round_trip(base, target, tmp_path)
    entry = json.loads((tmp_path / "delta/panda_delta.json").read_text())["tensors"]["model.embed_tokens.weight"]
    assert len(entry["blob"]["chunks"]) == 4 + 2  # 96 x 32 shared, 34 x 32 new
