"""Examples -> tokens, turn by turn, so that the boundary between prompt and answer is exact; shard by shard, so that a killed stage goes on.

A corpus's tokens live in a folder of shards (`00000/`, ..), each committed by a rename:
`ids.bin` (tokens, uint16 or uint32), `runs.npy` (stretches of tokens that are trained or not), `examples.npy` (what packing needs of each
example), `examples.parquet` (id, source, language, utf8_bytes), `facts.json`.
"""

import os
import shutil
import tempfile
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from pandallm.data.corpus import part_files, part_rows
from pandallm.data.engine import Engine
from pandallm.data.memory import collector_off
from pandallm.errors import BadInput
from pandallm.progress import SILENT, Progress
from pandallm.store import digest_file, read_json, write_json

if TYPE_CHECKING:
    import pyarrow as pa
    from tokenizers import Tokenizer

    from pandallm.data.chat_cut import ChatTemplate

#: Texts and characters handed to the tokenizer at once: enough to share its fixed costs, few enough that what it makes stays in the
#: processor's cache (7 % quicker than 256 texts of 600 characters).
CALL_TEXTS, CALL_CHARS = 256, 1 << 14
#: Rows in hand at a time, by count and bytes of the file.
BATCH_ROWS, BATCH_BYTES = 1024, 4 << 20
#: Rows of a part file that make one task, by their size in memory.
TASK_BYTES = 32 << 20

RUNS = np.dtype([("tokens", np.int32), ("trained", np.bool_)])
EXAMPLES = np.dtype([("tokens", np.int32), ("runs", np.int32), ("source", np.uint16), ("plain", np.bool_)])


@dataclass(frozen=True)
class TokenizerFacts:
    """A fast tokenizer's file and the ids that examples are framed with; bos_id is None where none is put in front. vocabulary: largest id + 1."""

    file: Path
    eos_id: int
    bos_id: int | None
    vocabulary: int

    @property
    def typecode(self) -> str:
        """How a token is stored, as `array` and numpy call it: uint16, or uint32 for more than 65,536 ids."""
        return "H" if self.vocabulary <= 1 << 16 else "I"


def tokenizer_facts(path: Path, add_bos: bool | None = None) -> TokenizerFacts:
    """Read a tokenizer folder (or its tokenizer.json).

    add_bos None: `add_bos_token` of tokenizer_config.json; where that says nothing, whether the tokenizer itself puts
    BOS in front of a text. Raises BadInput where there is no fast tokenizer, no EOS, or BOS is wanted and not declared.
    """
    from tokenizers import Tokenizer

    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise BadInput(f"{path} holds no tokenizer.json; save the tokenizer in the fast format first.")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as e:  # the library raises bare Exception
        raise BadInput(f"{file} is not a tokenizer ({e}).") from None
    config: dict[str, Any] = {}
    for name in ("config.json", "special_tokens_map.json", "tokenizer_config.json"):
        if (file.parent / name).is_file():
            config |= read_json(file.parent / name)
    eos, bos = _special(tokenizer, config, "eos"), _special(tokenizer, config, "bos")
    if eos is None:
        raise BadInput(f"{file.parent} names no end-of-sequence token; set eos_token in tokenizer_config.json.")
    if add_bos is None:
        declared = config.get("add_bos_token")
        ids = tokenizer.encode("a").ids
        add_bos = bool(declared) if declared is not None else bool(ids) and ids[0] == bos
    if add_bos and bos is None:
        raise BadInput(f"{file.parent} names no beginning-of-sequence token; set bos_token in tokenizer_config.json.")
    return TokenizerFacts(
        file, eos, bos if add_bos else None, 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())
    )


def _special(tokenizer: "Tokenizer", config: Mapping[str, Any], name: str) -> int | None:
    token = config.get(f"{name}_token")
    if isinstance(token, dict):
        token = token.get("content")
    if isinstance(token, str) and (number := tokenizer.token_to_id(token)) is not None:
        return int(number)
    number = config.get(f"{name}_token_id")
    if isinstance(number, list):
        number = number[0] if number else None
    return number if isinstance(number, int) else None


def load_tokenizer(path: Path) -> "Tokenizer":
    """The fast tokenizer of a folder (or of its tokenizer.json) as training text needs it: nothing cut, nothing padded."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json" if path.is_dir() else path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # A document that spells `</s>` must not end the example: special tokens in text are text.
    tokenizer.encode_special_tokens = True
    return tokenizer


@dataclass(frozen=True)
class TokenBatch:
    """Tokens of some examples. ids: (tokens,). runs: (runs,) RUNS. examples: (examples,) EXAMPLES, source not yet set."""

    ids: NDArray[np.uint32]
    runs: NDArray[np.void]
    examples: NDArray[np.void]


#: (ids of examples, their turns) -> their tokens.
Tokenize = Callable[["pa.Array", "pa.ListArray"], TokenBatch]


def _load(facts: TokenizerFacts, chat: "ChatTemplate | None", in_worker: bool) -> Tokenize:
    """What turns examples into tokens, made once per process."""
    if in_worker:  # processes beat the tokenizer's own threads, and both together fight for the cores
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = load_tokenizer(facts.file)
    if chat is None:
        return lambda ids, turns: tokenize_turns(tokenizer, turns, facts)
    from pandallm.data.chat import ChatEncoder
    from pandallm.data.tokenize_chat import tokenize_dialogues

    encoder = ChatEncoder(tokenizer, chat)
    return lambda ids, turns: tokenize_dialogues(encoder, ids.to_pylist(), turns, facts)


def tokenize_turns(tokenizer: "Tokenizer", turns: "pa.ListArray", facts: TokenizerFacts) -> TokenBatch:
    """Tokens of examples given as `list<struct<text, train>>`.

    EOS, trained, follows a trained turn where an untrained one or the end comes next; BOS, untrained, begins an example.
    Untrained turns side by side, a system message and a question, are tokenised as one.
    """
    turns = _joined(turns)
    flat, counts = turns.flatten(), turns.value_lengths().to_numpy()
    texts = flat.field("text").to_pylist()
    train = flat.field("train").to_numpy(zero_copy_only=False).astype(np.bool_)
    ends = np.cumsum(counts)
    next_trained = np.append(train[1:], False)
    next_trained[ends[counts > 0] - 1] = False
    eos, bos = train & ~next_trained, np.zeros(len(texts), np.bool_)
    if facts.bos_id is not None:
        bos[(ends - counts)[counts > 0]] = True
    ids, turn_ends = array("I"), []
    begins, closes = bos.tolist(), eos.tolist()
    for part in calls(texts):
        encodings = tokenizer.encode_batch_fast(texts[part], add_special_tokens=False)
        for encoding, first_turn, last_turn in zip(encodings, begins[part], closes[part], strict=True):
            if first_turn:
                ids.append(cast(int, facts.bos_id))
            ids.fromlist(encoding.ids)  # no name for the list: its memory is used again for the next one
            if last_turn:
                ids.append(facts.eos_id)
            turn_ends.append(len(ids))
    sizes = np.diff(np.array(turn_ends, np.int64), prepend=0) - bos
    owner = np.repeat(np.arange(len(counts)), counts)
    first = np.flatnonzero(bos)
    runs = np.empty(len(texts) + len(first), RUNS)
    runs["tokens"] = np.insert(sizes, first, 1)
    runs["trained"] = np.insert(train, first, False)
    examples = np.zeros(len(counts), EXAMPLES)
    examples["runs"] = np.bincount(np.insert(owner, first, owner[first]), minlength=len(counts))
    examples["tokens"] = np.bincount(owner, sizes, len(counts)) + np.bincount(owner[first], minlength=len(counts))
    examples["plain"] = np.bincount(owner, ~train, len(counts)) == 0
    return TokenBatch(np.frombuffer(ids, np.uint32), runs, examples)


def _joined(turns: "pa.ListArray") -> "pa.ListArray":
    """The same with untrained neighbours made one turn; as it is where there are none."""
    import pyarrow as pa

    train = turns.flatten().field("train").to_numpy(zero_copy_only=False).astype(np.bool_)
    side_by_side = np.append(~train[1:] & ~train[:-1], False)
    ends = np.cumsum(turns.value_lengths().to_numpy())
    side_by_side[ends[(ends > 0) & (ends <= len(train))] - 1] = False
    if not side_by_side.any():
        return turns
    examples = []
    for example in turns.to_pylist():
        joined: list[dict[str, Any]] = []
        for turn in example:
            if joined and not turn["train"] and not joined[-1]["train"]:
                joined[-1]["text"] += turn["text"]
            else:
                joined.append(turn)
        examples.append(joined)
    return pa.array(examples, turns.type)


def calls(texts: list[str]) -> Iterator[slice]:
    """The texts cut into what one call of the tokenizer gets."""
    start, chars = 0, 0
    for i, text in enumerate(texts):
        chars += len(text)
        if chars >= CALL_CHARS or i - start + 1 == CALL_TEXTS:
            yield slice(start, i + 1)
            start, chars = i + 1, 0
    if start < len(texts):
        yield slice(start, len(texts))


@dataclass(frozen=True)
class TokenTask:
    """Some row groups of one part file of a cleaned corpus, to be tokenised into the shard `number` below `folder`.

    min_quality: source -> the least quality of an example that is packed. loss_on "all": every token is a target, untrained turns' too.
    """

    number: int
    file: Path
    row_groups: tuple[int, ...]
    folder: Path
    facts: TokenizerFacts
    min_quality: Mapping[str, float]
    loss_on: str = "answers"


def tokenize_shard(tokenize: Tokenize, task: TokenTask) -> int:
    """Write one shard, or find it done. Returns the examples read, those below the least quality too."""
    target = task.folder / f"{task.number:05}"
    if not target.exists():
        work = Path(tempfile.mkdtemp(prefix=f".{task.number:05}-", dir=task.folder))
        try:
            with collector_off():
                _write_shard(tokenize, task, work)
            for file in work.iterdir():  # a marker must not outlive, in a power cut, what it marks
                with open(file, "rb") as f:
                    os.fsync(f.fileno())
            os.replace(work, target)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
    return int(read_json(target / "facts.json")["read"])


def _write_shard(tokenize: Tokenize, task: TokenTask, folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ["id", "source", "language", "utf8_bytes"]
    schema = pa.schema([(name, pa.int64() if name == "utf8_bytes" else pa.string()) for name in columns])
    runs, examples = [np.empty(0, RUNS)], [np.empty(0, EXAMPLES)]
    sources, languages = dict[str, int](), set[str]()
    below: dict[str, dict[str, int]] = defaultdict(lambda: {"examples": 0, "bytes": 0})
    read = 0
    with open(folder / "ids.bin", "wb") as out, pq.ParquetWriter(folder / "examples.parquet", schema) as table:
        for batch in _batches(task, [*columns, "turns"]):
            read += len(batch)
            for name in batch.column("source").unique().to_pylist():
                sources.setdefault(name, len(sources))
            batch = _above(batch, task.min_quality, below)
            if not len(batch):
                continue
            languages.update(batch.column("language").unique().to_pylist())
            made = tokenize(batch.column("id"), batch.column("turns"))
            if task.loss_on == "all":
                made.runs["trained"] = True
            made.examples["source"] = [sources[name] for name in batch.column("source").to_pylist()]
            out.write(made.ids.astype(task.facts.typecode).data)
            runs.append(made.runs)
            examples.append(made.examples)
            table.write_batch(pa.record_batch([batch.column(f.name).cast(f.type) for f in schema], schema=schema))
    np.save(folder / "runs.npy", np.concatenate(runs), allow_pickle=False)
    np.save(folder / "examples.npy", np.concatenate(examples), allow_pickle=False)
    facts = {"read": read, "sources": list(sources), "languages": sorted(languages), "below_quality": below}
    write_json(folder / "facts.json", facts)


def _batches(task: TokenTask, columns: list[str]) -> Iterator["pa.RecordBatch"]:
    """The task's rows, with `quality` where a cut asks for it and the corpus has it."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(task.file) as file:
        if task.min_quality and "quality" in file.schema_arrow.names:
            columns = [*columns, "quality"]
        groups = [file.metadata.row_group(i) for i in task.row_groups]
        size = sum(g.total_byte_size for g in groups) / max(1, sum(g.num_rows for g in groups))
        rows = int(min(BATCH_ROWS, max(8, BATCH_BYTES / max(1.0, size))))
        yield from file.iter_batches(rows, row_groups=list(task.row_groups), columns=columns, use_threads=False)


def _above(
    batch: "pa.RecordBatch", min_quality: Mapping[str, float], below: dict[str, dict[str, int]]
) -> "pa.RecordBatch":
    """The rows that reach their source's least quality; the others are counted."""
    if not min_quality:
        return batch
    import pyarrow as pa

    names = batch.column("source").to_pylist()
    sizes = batch.column("utf8_bytes").to_pylist()
    qualities = batch.column("quality").to_pylist() if "quality" in batch.schema.names else [None] * len(names)
    keep = []
    for name, size, quality in zip(names, sizes, qualities, strict=True):
        least = min_quality.get(name)
        # float32 as the column: a cut at .7 keeps an example scored .7.
        good = least is None or (quality is not None and quality >= np.float32(least))
        keep.append(good)
        if not good:
            below[name]["examples"] += 1
            below[name]["bytes"] += size
    return batch.filter(pa.array(keep, pa.bool_()))


def _tasks(
    cleaned: Path, folder: Path, facts: TokenizerFacts, min_quality: Mapping[str, float], loss_on: str
) -> Iterator[TokenTask]:
    import pyarrow.parquet as pq

    number = 0
    for path in part_files(cleaned, "examples"):
        metadata = pq.read_metadata(path)
        groups: list[int] = []
        size = 0
        for i in range(metadata.num_row_groups):
            groups.append(i)
            size += metadata.row_group(i).total_byte_size
            if size >= TASK_BYTES or i + 1 == metadata.num_row_groups:
                yield TokenTask(number, path, tuple(groups), folder, facts, min_quality, loss_on)
                number, groups, size = number + 1, [], 0


def tokenize_corpus(
    cleaned: Path,
    facts: TokenizerFacts,
    folder: Path,
    engine: Engine,
    *,
    min_quality: Mapping[str, float] | None = None,
    chat: "ChatTemplate | None" = None,
    loss_on: str = "answers",
    progress: Progress = SILENT,
) -> int:
    """Tokenise the kept examples of a cleaned corpus into shards below `folder`; returns their number.

    What an earlier, killed call left there is used where it was made of the same corpus with the same settings. min_quality: source -> the
    least quality of an example that is tokenised; the others are counted in `below_quality`. chat: how dialogues are written; None: turn
    after turn. Memory does not grow with the corpus.

    Raises BadInput where `cleaned` is no cleaned corpus, or a dialogue cannot be written with the template.
    """
    min_quality = dict(min_quality or {})
    tasks = list(_tasks(cleaned.absolute(), folder.absolute(), facts, min_quality, loss_on))
    identity = {
        "tokenizer": {**asdict(facts), "file": digest_file(facts.file)},
        "min_quality": min_quality,
        "tasks": [[t.file.name, t.file.stat().st_size, t.file.stat().st_mtime_ns, list(t.row_groups)] for t in tasks],
    }
    if chat:
        identity["chat_template"] = chat.digest
    if loss_on != "answers":
        identity["loss_on"] = loss_on
    if folder.exists() and not ((folder / "made_of.json").is_file() and read_json(folder / "made_of.json") == identity):
        shutil.rmtree(folder)
    if not folder.exists():
        folder.mkdir(parents=True)
        write_json(folder / "made_of.json", identity)
    for left in folder.glob(".*-*"):  # shards that a killed call had in hand
        shutil.rmtree(left, ignore_errors=True)
    make_state = partial(_load, replace(facts, file=facts.file.absolute()), chat, engine.workers > 1)
    with progress.task("tokenise", part_rows(cleaned, "examples"), "examples") as shown:
        for examples in engine.map(tokenize_shard, tasks, make_state):
            shown.advance(examples)
    return len(tasks)
