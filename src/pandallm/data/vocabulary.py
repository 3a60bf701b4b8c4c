"""Training a tokenizer from scratch: BPE over characters with byte fallback, saved as a Hugging Face fast tokenizer.

Any text comes back unchanged: characters outside the vocabulary are spelt as UTF-8 bytes (`<0x00>` .. `<0xFF>`), nothing is
normalized and nothing is added.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from pandallm.data.corpus import part_batches
from pandallm.data.spec import VocabularySpec
from pandallm.errors import BadInput
from pandallm.progress import SILENT, Progress
from pandallm.store import write_json, write_text

EOS, PAD = "<|endoftext|>", "<|pad|>"
BYTES = tuple(f"<0x{i:02X}>" for i in range(256))
#: Share of the text's characters that must have tokens of their own; the rest is spelt in bytes (SentencePiece's character_coverage).
CHARACTER_COVERAGE = 0.9995
#: How Llama 3 cuts text before BPE (tokenizer.json of the published models).
LLAMA3_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
#: Line breaks stand alone as well: a token such as "：\\n" would span the end of a prompt, and the harness scheme of scoring (context and
#: continuation tokenised as one text, cut at the context's own length) would then lose the break that training has seen.
HAN_PATTERN = r"\p{Han}|\n"


def _texts(corpora: Sequence[Path]) -> Iterator[str]:
    """Every turn of every kept example, in file order."""
    for folder in corpora:
        for batch in part_batches(folder, "examples", ("turns",)):
            for turns in batch.column("turns").to_pylist():
                yield from (turn["text"] for turn in turns)


def train_tokenizer(
    spec: VocabularySpec, corpora: Sequence[Path], out: Path, progress: Progress = SILENT
) -> dict[str, object]:
    """Train a tokenizer of at most `spec.size` tokens (fewer where nothing is left to merge) on cleaned corpus folders and write a Hugging Face folder to `out`.

    Ids: 0 end of text, 1 padding, 2..257 bytes, then characters and merges, `spec.special` last. The same corpora give the same bytes.
    Returns {"size", "characters", "merges", "documents"} (counts; documents are turns). Raises BadInput for corpora without text
    and for a size that does not hold the characters that make up 99.95 % of the text.
    """
    import json

    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    counts: Counter[str] = Counter()
    documents = 0
    for text in _texts(corpora):
        counts.update(text)
        documents += 1
    if not counts:
        raise BadInput(
            "The corpora for the tokenizer hold no text: check the corpora named under tokenizer.corpora and their cleaning steps."
        )
    kept = _covering(counts)
    fixed = 2 + len(BYTES) + len(spec.special)
    if fixed + len(kept) > spec.size:
        raise BadInput(
            f"tokenizer.size is {spec.size}, but the text has {len(kept)} frequent characters beside {fixed} fixed tokens; "
            f"raise it to {fixed + len(kept)} or more."
        )
    pieces = [pre_tokenizers.Split(Regex(LLAMA3_PATTERN), "isolated")]
    if spec.split == "han_characters":
        pieces.insert(0, pre_tokenizers.Split(Regex(HAN_PATTERN), "isolated"))
    pre_tokenizer = pre_tokenizers.Sequence(pieces)

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=spec.size - fixed, show_progress=False, special_tokens=[])
    rare = str.maketrans({c: "\n" for c in counts if c not in kept})  # not learnt from: they are spelt in bytes
    with progress.task("tokenizer", documents, "texts") as task:

        def feed() -> Iterator[str]:
            for text in _texts(corpora):
                task.advance()
                yield text.translate(rare) if rare else text

        learner.train_from_iterator(feed(), trainer)
    learnt = json.loads(learner.to_str())["model"]
    by_id = sorted(learnt["vocab"], key=lambda token: int(learnt["vocab"][token]))
    tokens = [EOS, PAD, *BYTES, *(t for t in by_id if t not in BYTES)]
    if known := set(spec.special) & set(tokens):
        raise BadInput(
            f"tokenizer.special: {min(known)} is an ordinary token of this vocabulary already; name it otherwise."
        )
    tokens += spec.special
    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = [(str(a), str(b)) for a, b in learnt["merges"]]

    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, fuse_unk=False))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in (EOS, PAD, *spec.special)])
    write_text(out / "tokenizer.json", tokenizer.to_str(pretty=True))
    write_json(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": EOS,
            "pad_token": PAD,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 1_000_000,
        },
    )
    write_json(out / "special_tokens_map.json", {"eos_token": EOS, "pad_token": PAD})
    return {"size": len(tokens), "characters": len(kept), "merges": len(merges), "documents": documents}


def _covering(counts: Counter[str]) -> set[str]:
    """The most frequent characters that make up CHARACTER_COVERAGE of the text; equal counts in code point order."""
    wanted, covered, kept = CHARACTER_COVERAGE * counts.total(), 0, set()
    for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if covered >= wanted:
            break
        kept.add(character)
        covered += count
    return kept
