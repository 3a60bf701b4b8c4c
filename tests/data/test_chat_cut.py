"""Cutting: a template is rendered with marks and falls into pieces; what it makes of contents is seen or refused."""

import pytest

from pandallm.data.chat_cut import ChatTemplate, Cutter
from pandallm.errors import BadInput


def cutter(text: str, **tokens: str) -> Cutter:
    return Cutter(ChatTemplate("base", text, tuple(tokens.items())))


def talk(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]


def test_pieces_stand_around_the_contents() -> None:
    cut = cutter(
        "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}{{ '?' if add_generation_prompt }}",
        bos_token="B",
    )
    assert cut.pieces(("user", "assistant"), False) == ("B<user>", "</><assistant>", "</>")
    assert cut.pieces(("user",), True) == ("B<user>", "</>?")
    with pytest.raises(BadInput, match="what it writes before an answer"):
        cut.leads(("user", "assistant"))


def test_white_space_between_the_prompt_and_the_answer_is_counted() -> None:
    cut = cutter("{% for m in messages %}{{ ' ' if m.role == 'assistant' }}{{ m.content }};{% endfor %}")
    assert cut.leads(("user", "assistant", "user", "assistant")) == {1: 1, 3: 1}


@pytest.mark.parametrize(
    ("change", "kept"), [("", " a\n"), (" | trim", "a"), (".rstrip()", " a"), (".strip('\\n')", " a")]
)
def test_contents_are_as_the_template_writes_them(change: str, kept: str) -> None:
    cut = cutter("{% for m in messages %}[{{ m.content CHANGE }}]{% endfor %}".replace(" CHANGE", change))
    assert cut.contents(talk(" a\n", "b"), False) == [kept, "b"]


def test_marks_of_jinja_in_a_content_are_text() -> None:
    hostile = "{{ 7 * 7 }}{% raw %}]["
    cut = cutter("{% for m in messages %}[{{ m.content }}]{% endfor %}")
    assert cut.contents(talk(hostile, hostile), False) == [hostile, hostile]


def test_a_content_that_is_changed_is_refused() -> None:
    cut = cutter("{% for m in messages %}[{{ m.content | upper }}]{% endfor %}")
    assert cut.contents(talk("A", "B"), False) == ["A", "B"]
    with pytest.raises(BadInput, match="changes the content of a message"):
        cut.contents(talk("a", "B"), False)


def test_what_a_template_refuses_and_what_it_may_not_do() -> None:
    with pytest.raises(BadInput, match=r"The base's chat template cannot write a dialogue of user \(say more\)"):
        cutter("{{ raise_exception('say more') }}").render(talk("a"), False)
    # The sandbox of the library: templates come with downloaded models.
    with pytest.raises(BadInput, match="cannot write a dialogue"):
        cutter("{{ ''.__class__.__mro__ }}{{ messages.append(1) }}").render(talk("a"), False)


def test_what_is_no_template_is_refused_with_its_line() -> None:
    with pytest.raises(BadInput, match=r"The base's chat template is not a Jinja template \(line 2"):
        cutter("{% for m in messages %}\n{{ m.content")
