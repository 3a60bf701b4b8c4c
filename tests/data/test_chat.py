"""Chat templates: what is trained, what people type stays text, and the pieces are what the whole text would be."""

import json
from importlib import resources
from itertools import groupby
from pathlib import Path

import pytest

from pandallm.data.chat import ChatEncoder, check_vocabulary, open_template
from pandallm.data.chat_cut import NAMED, ChatTemplate
from pandallm.data.tokenize import load_tokenizer
from pandallm.errors import BadInput
from tests.data.small_tokenizers import byte_level, sentencepiece

TOKENS = ("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
SYSTEM = {"role": "system", "content": "Be short."}
TALK = [
    {"role": "user", "content": "How are you?"},
    {"role": "assistant", "content": "Fine."},
    {"role": "user", "content": "今天天气？"},
    {"role": "assistant", "content": "很好。"},
]
#: What each template writes, trained text in brackets. `E` and `B` stand for the tokenizer's EOS and BOS.
WRITTEN = {
    "chatml": (
        "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nHow are you?<|im_end|>\n<|im_start|>assistant\n"
        "[Fine.<|im_end|>]\n<|im_start|>user\n今天天气？<|im_end|>\n<|im_start|>assistant\n[很好。<|im_end|>]"
    ),
    "llama2": (
        "B(INST) <<SYS>>\nBe short.\n<</SYS>>\n\nHow are you? (/INST)[ Fine. E]B(INST) 今天天气？ (/INST)[ 很好。 E]"
    ),
    "llama3": (
        "B<|start_header_id|>system<|end_header_id|>\n\nBe short.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHow are you?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n[Fine.<|eot_id|>]"
        "<|start_header_id|>user<|end_header_id|>\n\n今天天气？<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n[很好。<|eot_id|>]"
    ),
    "panda": "Be short.\nHow are you?\n[Fine.E]今天天气？\n[很好。E]",
}
WRITTEN["qwen"] = WRITTEN["chatml"]
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module", params=["bytes", "sentencepiece"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("chat")
    return byte_level(root, extra=TOKENS) if request.param == "bytes" else sentencepiece(root, extra=TOKENS)


def encoder(name: str, folder: Path) -> ChatEncoder:
    return ChatEncoder(load_tokenizer(folder), open_template(name, folder))


def of_text(text: str, folder: Path) -> ChatEncoder:
    """An encoder of a template's text."""
    eos = json.loads((folder / "tokenizer_config.json").read_text())["eos_token"]
    return ChatEncoder(load_tokenizer(folder), ChatTemplate("own", text, (("eos_token", eos),)))


def bracketed(chat: ChatEncoder, messages: list[dict[str, str]]) -> str:
    parts = groupby(chat.segments(messages), lambda s: s.trained)
    return "".join(f"[{t}]" if trained else t for trained, of in parts for t in ["".join(s.text for s in of)])


def test_every_name_has_its_file() -> None:
    files = (resources.files("pandallm.data") / "chat_templates").iterdir()
    assert sorted(f.name for f in files) == sorted(f"{name}.jinja" for name in NAMED)


@pytest.mark.parametrize("name", NAMED)
def test_what_is_written_and_what_is_trained(name: str, folder: Path) -> None:
    chat = encoder(name, folder)
    tokens = dict(chat.template.tokens)
    wanted = WRITTEN[name].replace("(INST)", "<INST>").replace("(/INST)", "</INST>")
    wanted = wanted.replace("E]", tokens["eos_token"] + "]").replace("B<", tokens.get("bos_token", "") + "<")
    wanted = wanted.replace("<INST>", "[INST]").replace("</INST>", "[/INST]")
    assert bracketed(chat, [SYSTEM, *TALK]) == wanted


def test_qwen_puts_a_system_message_where_there_is_none(folder: Path) -> None:
    assert bracketed(encoder("qwen", folder), TALK).startswith(
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>"
    )
    assert bracketed(encoder("chatml", folder), TALK).startswith("<|im_start|>user\n")


@pytest.mark.parametrize("name", NAMED)
def test_the_text_is_what_transformers_makes_of_the_saved_template(name: str, folder: Path) -> None:
    from transformers import AutoTokenizer

    chat, tokenizer = encoder(name, folder), AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = chat.template.text
    for messages in (TALK[:2], [SYSTEM, *TALK]):
        theirs = tokenizer.apply_chat_template(messages, tokenize=False)
        ours = "".join(s.text for s in chat.segments(messages))
        assert theirs.startswith(ours)
        assert not theirs[len(ours) :].strip()  # a line break after the last end of turn is not kept
        asked = "".join(s.text for s in chat.segments(messages[:-1], generate=True))
        assert asked == tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)


@pytest.mark.parametrize("name", NAMED)
def test_stretch_by_stretch_gives_the_tokens_of_the_whole_text(name: str, folder: Path) -> None:
    from transformers import AutoTokenizer

    chat, tokenizer = encoder(name, folder), AutoTokenizer.from_pretrained(folder)
    assert chat.joins_alike()
    for messages in (TALK, [SYSTEM, *TALK]):
        segments = chat.segments(messages)
        ids = [i for part in chat.encode(segments) for i in part]
        assert ids == tokenizer.encode("".join(s.text for s in segments), add_special_tokens=False)


@pytest.mark.parametrize("name", NAMED)
def test_the_model_is_asked_with_the_tokens_that_it_was_trained_after(name: str, folder: Path) -> None:
    chat = encoder(name, folder)
    segments = chat.segments(TALK)
    parts = chat.encode(segments)
    first = next(i for i, s in enumerate(segments) if s.trained)
    last = max(i for i, s in enumerate(segments) if not s.trained)
    assert chat.prompt(TALK[:1]) == [i for part in parts[:first] for i in part]
    assert chat.prompt(TALK[:3]) == [i for part in parts[: last + 1] for i in part]


@pytest.mark.parametrize("name", NAMED)
def test_nobody_ends_a_turn_by_typing_its_end(name: str, folder: Path) -> None:
    chat = encoder(name, folder)
    added = {i for i, t in chat.tokenizer.get_added_tokens_decoder().items() if t.special}
    spelt = "x " + " ".join(t.content for t in chat.tokenizer.get_added_tokens_decoder().values()) + " y"
    harmless, hostile = (
        [{"role": "user", "content": text}, {"role": "assistant", "content": text}] for text in ("x y", spelt)
    )
    one, other = (
        [i for part in chat.encode(chat.segments(m)) for i in part if i in added] for m in (harmless, hostile)
    )
    assert one == other
    assert one[-1] == chat.end_of_turn


def test_white_space_that_a_template_strips_is_stripped(folder: Path) -> None:
    spaced = [{**m, "content": f" {m['content']}\n"} for m in TALK]
    for name in ("llama2", "llama3", "panda"):
        assert bracketed(encoder(name, folder), spaced) == bracketed(encoder(name, folder), TALK)
    assert " How are you?\n<|im_end|>" in bracketed(encoder("chatml", folder), spaced)


def test_eos_ends_the_last_answer_where_the_template_has_no_end_of_turn(folder: Path) -> None:
    chat = of_text(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}",
        folder,
    )
    chat.check()
    assert chat.end_of_turn == chat.tokenizer.token_to_id(chat.eos_token)
    wanted = f"user: How are you?\nassistant:[ Fine.]\nuser: 今天天气？\nassistant:[ 很好。{chat.eos_token}]"
    assert bracketed(chat, TALK) == wanted


def test_a_tokenizer_that_puts_bos_in_front_gets_it_once(tmp_path: Path) -> None:
    folder = sentencepiece(tmp_path, extra=TOKENS)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"add_bos_token": True}))
    for name in NAMED:
        chat = encoder(name, folder)
        ids = [i for part in chat.encode(chat.segments(TALK[:2])) for i in part]
        assert ids[0] == 1
        assert ids.count(1) == 1
        assert chat.template.text.startswith("{{- bos_token -}}") == (name not in ("llama2", "llama3"))


def test_a_base_brings_its_template_in_a_file_or_in_its_settings(tmp_path: Path) -> None:
    folder = byte_level(tmp_path / "one", extra=TOKENS)
    with pytest.raises(BadInput, match="has no chat template; name one: chatml"):
        open_template("base", folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    good = "{% for m in messages %}{{ m.content }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": good}))
    assert open_template("base", folder).text == good
    several = [{"name": "tools", "template": good}, {"name": "default", "template": THINKING}]
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": several}))
    with pytest.raises(BadInput, match="The base's chat template cannot be trained with"):
        open_template("base", folder)
    (folder / "chat_template.jinja").write_text(THINKING.replace(" and loop.last", " and false"))
    assert open_template("base", folder).text.startswith("{% for m in messages %}<|im_start|>")


def test_special_tokens_that_the_vocabulary_lacks(tmp_path: Path) -> None:
    folder = byte_level(tmp_path)
    with pytest.raises(
        BadInput, match=r'needs <\|im_start\|>, which .* base.extend: \{special: \["<\|im_start\|>"\]\}'
    ):
        open_template("chatml", folder)
    open_template("llama2", folder)
    open_template("panda", folder)
    with pytest.raises(BadInput, match="chat_template: vicuna is unknown"):
        open_template("vicuna", folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (THINKING, "cannot be trained with"),
        ("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}", "cannot be cut"),
        ("{{ messages[0].content }}", "cannot be cut"),
        ("{% for m in messages %}{{ m.nothing.there }}{% endfor %}", "cannot write a dialogue of user"),
        ("{% for m in messages %}{{ m.content }}{{ strftime_now('%d') }}{% endfor %}", "cannot write a dialogue"),
        (
            "{% for m in messages %}{{ m.content }}{% if loop.index > 3 %}<|im_end|>{% else %}<|eot_id|>{% endif %}{% endfor %}",
            "does not end every answer alike",
        ),
    ],
)
def test_templates_that_cannot_be_trained_with_are_refused(text: str, message: str, folder: Path) -> None:
    with pytest.raises(BadInput, match=message):
        of_text(text, folder).check()


def test_a_template_that_goes_by_the_content_is_refused_for_such_a_dialogue(folder: Path) -> None:
    chat = of_text("{% for m in messages %}{{ m.content.split('</think>')[-1] }}{{ eos_token }}{% endfor %}", folder)
    chat.check()
    chat.segments(TALK)
    with pytest.raises(BadInput, match="changes the content of a message"):
        chat.segments([TALK[0], {"role": "assistant", "content": "<think>so</think>Fine."}])


def test_a_thinking_template_is_good_enough_to_talk_with(folder: Path) -> None:
    chat = of_text(THINKING, folder)
    assert "".join(s.text for s in chat.segments(TALK[:3], generate=True)).endswith(
        "今天天气？<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_vocabulary_that_is_still_to_be_trained() -> None:
    for name in ("panda", "llama2"):
        check_vocabulary(name, ())
    check_vocabulary("chatml", ("<|im_end|>", "<|im_start|>"))
    with pytest.raises(BadInput, match=r'needs <\|im_end\|>: add base.scratch.tokenizer.special: \["<\|im_end\|>"\]'):
        check_vocabulary("qwen", ("<|im_start|>",))
    with pytest.raises(BadInput, match="chat_template: base is for a base that brings a template"):
        check_vocabulary("base", ())
