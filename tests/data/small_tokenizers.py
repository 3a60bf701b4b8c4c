"""Small tokenizers of both kinds that can be extended, made from a few sentences."""

import json
from pathlib import Path
from typing import Any

ENGLISH = [
    "The cat sat on the mat, and the dog sat on the cat.",
    "Prices rose by 12,345 yuan in the third quarter; don't ask why.",
    "She sells sea shells on the sea shore while the weather is fine.",
] * 20
#: The old tokenizers know a few characters: some of the text is one token a character, some takes several.
SOME_CHINESE = ["今天天气很好。", "今天的天气不好。"] * 30


def byte_level(folder: Path, *, extra: tuple[str, ...] = ("<|im_end|>",)) -> Path:
    """Byte-level BPE as GPT-2's; `<eos>` is in its vocabulary, `extra` tokens stand outside of it, as in Qwen and Llama 3."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=["<eos>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(ENGLISH + SOME_CHINESE, trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in extra])
    return _save(folder, json.loads(tokenizer.to_str()), {"eos_token": "<eos>", "pad_token": "<eos>"})


def sentencepiece(folder: Path, *, extra: tuple[str, ...] = ("<pad>",)) -> Path:
    """A SentencePiece BPE model with byte fallback and the tokenizer.json that belongs to it, as Llama 2's; `extra` tokens stand in the latter only."""
    import io

    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(ENGLISH + SOME_CHINESE),
        model_writer=model,
        model_type="bpe",
        vocab_size=400,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        minloglevel=2,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    read = SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [read.id_to_piece(i) for i in range(read.get_piece_size())]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    merges = []
    for piece in pieces:  # in the order of their scores
        if piece not in ("<unk>", "<s>", "</s>") and not (piece.startswith("<0x") and len(piece) == 6):
            splits = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
            merges += [[a, b] for a, b in splits if a in vocabulary and b in vocabulary]
    added = [{"id": i, "content": t} for i, t in enumerate(("<unk>", "<s>", "</s>"))]
    added += [{"id": len(pieces) + i, "content": t} for i, t in enumerate(extra)]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    back = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    steps = [back, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    description = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{**token, **flags} for token in added],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": steps},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocabulary,
            "merges": merges,
        },
    }
    return _save(folder, description, {"eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"})


def _save(folder: Path, description: dict[str, Any], config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(description, ensure_ascii=False), encoding="utf-8")
    config = {**config, "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
