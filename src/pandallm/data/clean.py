"""Raw files -> cleaned-corpus folder: read, adapt, clean, dedup, decontaminate, hold out; with a ledger that adds up.

Shards of the input are cleaned one by one (clean_shard.py), what becomes of each row is decided over the keys of all
(decide.py), and each shard's files are written (write_shard.py). Shards under way lie in `.shards`: a build that was killed
goes on with those that are not done.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from pandallm.data.adapters import get_adapter, templates_digest
from pandallm.data.clean_shard import clean_shard, make_cleaner
from pandallm.data.contamination import Hit, merge_contamination
from pandallm.data.corpus import PARTS
from pandallm.data.decide import decide
from pandallm.data.engine import Engine, LocalEngine
from pandallm.data.ledger import FATES, Ledger, audit_ledger
from pandallm.data.shards import HIDDEN, SHARD_BYTES, Shard, ShardStore, place, plan_shards
from pandallm.data.spec import CorpusSpec
from pandallm.data.steps import check_steps
from pandallm.data.write_shard import Writer, WriteTask, write_shard
from pandallm.errors import BadInput, PandaError
from pandallm.progress import SILENT, Progress
from pandallm.store import canonical_json, digest_json, read_json, write_json, write_text

#: Raise when the same input and settings give other files.
VERSION = 3

__all__ = ["VERSION", "audit_ledger", "clean_corpus"]

Contamination = Mapping[str, Sequence[tuple[str, str]]]


def clean_corpus(
    name: str,
    spec: CorpusSpec,
    files: Mapping[str, Sequence[Path]],
    out: Path,
    *,
    contamination: Contamination | None = None,
    engine: Engine | None = None,
    workers: int = 1,
    progress: Progress = SILENT,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, Any]:
    """Write the cleaned-corpus folder of docs/design.md to `out` and return its ledger.

    files: source -> its files, in order. contamination: task -> [(question id, text)], used where the corpus has
    `decontaminate`. engine: where the shards are worked on; without one, `workers` processes here. The bytes written depend on
    neither. A source's `max_records` stops reading after so many records; the ledger counts what was read. Held out, per
    source: the documents with the lowest content hashes, with all copies of theirs where dedup is off. What an earlier,
    killed call for the same files and settings left in `out` is used. shard_bytes: input of one shard; decides the files.

    Raises BadInput for an unknown option, a source without a readable record, and when nothing is left to train on;
    PandaError when a worker dies or the disk is full: what is done stays, and the same call goes on.
    """
    for source, s in spec.sources.items():
        where = f"corpora.{name}.sources.{source}"
        check_steps(spec.clean if s.clean is None else s.clean, f"{where}.clean")
        get_adapter(s.adapter, s.options, where, s.templates)
    shards = plan_shards(spec, files, shard_bytes)
    names = {source: _file_names(paths) for source, paths in files.items()}
    against = contamination if contamination and spec.decontaminate else {}
    own_engine = engine is None
    # Less than a shard's worth is done sooner than a worker starts.
    if engine is None or sum(s.bytes for s in shards) <= shard_bytes:
        engine, own_engine = LocalEngine(workers if sum(s.bytes for s in shards) > shard_bytes else 1), True
    build = _Build(name, spec, files, names, shards, ShardStore(out / HIDDEN), out, engine, progress)
    try:
        return build.run(against)
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise PandaError(
            f"clean {name}: the disk of {out} is full; what is done is kept: free some space and run the same command again."
        ) from None
    finally:
        if own_engine:
            engine.close()


def _file_names(paths: Sequence[Path]) -> list[str]:
    """Names below the files' common folder: the machine's folders have no place in the corpus."""
    root = os.path.commonpath([p.absolute().parent for p in paths]) if paths else ""
    return [p.absolute().relative_to(root).as_posix() for p in paths]


class _Build:
    """One call of `clean_corpus`."""

    def __init__(
        self,
        name: str,
        spec: CorpusSpec,
        files: Mapping[str, Sequence[Path]],
        names: Mapping[str, Sequence[str]],
        shards: Sequence[Shard],
        store: ShardStore,
        out: Path,
        engine: Engine,
        progress: Progress,
    ) -> None:
        self.name, self.spec, self.files, self.names, self.shards = name, spec, files, names, shards
        self.store, self.out, self.engine, self.progress = store, out, engine, progress

    def run(self, contamination: Contamination) -> dict[str, Any]:
        if self._begin(contamination) and (self.out / "ledger.json").is_file():
            return dict(read_json(self.out / "ledger.json"))
        texts = self.store.folder / "contamination.json" if contamination else None
        if texts:
            write_text(texts, canonical_json(contamination))
        make = partial(make_cleaner, self.name, self.spec, self.store.folder, texts)
        self._map("clean", clean_shard, [s for s in self.shards if not self.store.is_cleaned(s)], make)
        facts = [self.store.facts(s) for s in self.shards]
        lines = _lines_before(self.shards, facts)
        with self._hopeless():
            self._check(facts, lines)
            decide(self.name, self.spec, self.shards, self.store, self.progress)
        tasks = [
            WriteTask(s, tuple(self.names[s.source][p.file] for p in s.pieces), before)
            for s, before in zip(self.shards, lines, strict=True)
        ]
        self._map("write", write_shard, tasks, partial(Writer, self.store, self.out))
        written = [self.store.written(s) or {} for s in self.shards]
        ledger = self._ledger(facts, written)
        with self._hopeless():
            if not ledger["total"]["kept"]["records"]:
                raise BadInput(
                    f"corpora.{self.name}: nothing is left to train on ({_fates(ledger['total'])}); loosen `clean`."
                )
        self._quarantine(tasks, self.store.folder / ".quarantine.jsonl")
        place(self.store.folder / ".quarantine.jsonl", self.out / "quarantine.jsonl")
        if contamination and self.spec.decontaminate:
            questions = {task: [question for question, _ in texts] for task, texts in contamination.items()}
            settings = self.spec.decontaminate
            found = merge_contamination(self._hits(), questions, settings.ngram_chars, settings.action)
            write_json(self.out / "contamination.json", found)
        write_json(self.out / "ledger.json", ledger)
        self.store.finish()
        return ledger

    @contextmanager
    def _hopeless(self) -> Iterator[None]:
        """Where the input is bad, nothing is worth keeping: the same call would fail again."""
        try:
            yield
        except BadInput:
            self.store.clear()
            self._clear_parts()
            raise

    def _clear_parts(self) -> None:
        for part in PARTS:
            shutil.rmtree(self.out / part, ignore_errors=True)
        for left in ("ledger.json", "contamination.json"):
            (self.out / left).unlink(missing_ok=True)

    def _begin(self, contamination: Contamination) -> bool:
        """Use what an earlier call for the same input left (then True), or clear everything."""
        stats = {
            s: [[str(p.absolute()), (t := p.stat()).st_size, t.st_mtime_ns] for p in f] for s, f in self.files.items()
        }
        units = [[s.source, [[p.file, p.unit.start, p.unit.stop, p.limit] for p in s.pieces]] for s in self.shards]
        settings = self.spec.model_dump(mode="json")
        templates = {s: templates_digest(v.templates, s) for s, v in self.spec.sources.items() if v.templates}
        identity = [VERSION, self.name, settings, stats, units, templates, digest_json(contamination)]
        kept = self.store.begin(identity)
        if not kept:
            self._clear_parts()
        return kept

    def _map(
        self, verb: str, function: Callable[[Any, Any], int], items: Sequence[Any], make_state: Callable[[], Any]
    ) -> None:
        total = sum((i if isinstance(i, Shard) else i.shard).bytes for i in items) / 1e6
        with self.progress.task(f"{verb} {self.name}", total, "MB") as task:
            for done in self.engine.map(function, items, make_state):
                task.advance(done / 1e6)

    def _check(self, facts: Sequence[Mapping[str, Any]], lines: Sequence[tuple[int, ...]]) -> None:
        """Say what files could not be read to their end; raise BadInput for a source of which nothing could be read."""
        for source, s in self.spec.sources.items():
            where = f"corpora.{self.name}.sources.{source}"
            records = broken = 0
            first = ""
            for shard, fact, before in zip(self.shards, facts, lines, strict=True):
                if shard.source != source:
                    continue
                records += fact["records"]
                broken += fact["quarantined"]
                for kind in ("broken", "errors"):
                    for piece, line, error in fact[kind]:
                        at = f"{self.files[source][shard.pieces[piece].file]}:{before[piece] + line}: {error}"
                        if kind == "broken":
                            self.progress.say(f"{where}: {at}")
                        else:
                            first = first or at
            if not records:
                file = self.files[source][0] if self.files[source] else "no file"
                raise BadInput(f"{where}: {file} holds no record; check `files`.")
            if broken == records:
                raise BadInput(f"{where}: none of its {records} records fits adapter {s.adapter}; the first: {first}.")

    def _ledger(self, facts: Sequence[Mapping[str, Any]], written: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        ledger = Ledger()
        for shard, fact, counted in zip(self.shards, facts, written, strict=True):
            ledger.read(shard.source, fact["records"], fact["bytes"])
            if fact["quarantined"]:
                ledger.book(shard.source, "quarantined", fact["quarantined"], fact["quarantined_bytes"])
            for fate, (records, size) in counted["counts"].items():
                ledger.book(shard.source, fate, records, size)
        totals = ledger.facts()
        for shard, fact in zip(self.shards, facts, strict=True):
            for entry in (totals["sources"][shard.source], totals["total"]) if fact["masked"] else ():
                masked = entry.setdefault("masked", {})
                for kind, times in sorted(fact["masked"].items()):
                    masked[kind] = masked.get(kind, 0) + times
        return totals

    def _hits(self) -> Iterator[Hit]:
        for shard in self.shards:
            if (path := self.store.hits(shard)).is_file():
                for example, fate, overlaps in _json_lines(path):
                    yield Hit(example, shard.source, fate, overlaps)

    def _quarantine(self, tasks: Sequence[WriteTask], path: Path) -> None:
        with open(path, "w", encoding="utf-8") as f:
            for task in tasks:
                for line in _json_lines(self.store.shard(task.shard) / "quarantine.jsonl"):
                    piece, number, size, error = line
                    row = {
                        "file": task.files[piece],
                        "line": task.lines[piece] + number,
                        "error": error,
                        "source": task.shard.source,
                        "bytes": size,
                    }
                    f.write(json.dumps(row, ensure_ascii=False) + "\n")


def _lines_before(shards: Sequence[Shard], facts: Sequence[Mapping[str, Any]]) -> list[tuple[int, ...]]:
    """For each piece of each shard the lines of its file that stand in earlier pieces."""
    lines: dict[tuple[str, int], int] = {}
    told = []
    for shard, fact in zip(shards, facts, strict=True):
        before = []
        for piece, count in zip(shard.pieces, fact["lines"], strict=True):
            file = (shard.source, piece.file)
            before.append(lines.get(file, 0))
            lines[file] = before[-1] + count
        told.append(tuple(before))
    return told


def _json_lines(path: Path) -> Iterator[Any]:
    with open(path, "rb") as f:
        yield from map(orjson.loads, f)


def _fates(total: Mapping[str, Any]) -> str:
    parts = {fate: total[fate] for fate in FATES} | total["dropped"]
    told = [f"{fate} {amount['records']}" for fate, amount in parts.items() if amount["records"]]
    return ", ".join([f"{total['records']} records read", *told])
