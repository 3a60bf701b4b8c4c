"""The ledger of a cleaned corpus: what became of every record and byte read, and adding it up again from the files."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pandallm.data.corpus import part_batches
from pandallm.errors import PandaError
from pandallm.store import read_json, read_jsonl

Amount = dict[str, int]
FATES = ("kept", "held_out", "quarantined")


class Ledger:
    """Counts per source. `read` what comes in, `book` what becomes of it; `facts` checks that both agree."""

    def __init__(self) -> None:
        self._read: dict[str, Amount] = defaultdict(_nothing)
        self._parts: dict[str, dict[str, Amount]] = defaultdict(lambda: defaultdict(_nothing))

    def read(self, source: str, records: int, record_bytes: int) -> None:
        """Records and their UTF-8 bytes were read from a source."""
        _add(self._read[source], records, record_bytes)

    def book(self, source: str, fate: str, records: int, record_bytes: int) -> None:
        """`fate` is kept, held_out, quarantined, or the reason for dropping."""
        _add(self._parts[source][fate], records, record_bytes)

    def facts(self) -> dict[str, Any]:
        """`{"sources": {name: entry}, "total": entry}` as docs/design.md describes. Raises PandaError on a mismatch."""
        sources = {name: _entry(read, self._parts[name]) for name, read in self._read.items()}
        total_read, total_parts = _nothing(), defaultdict[str, Amount](_nothing)
        for name, read in self._read.items():
            _add(total_read, read["records"], read["bytes"])
            for fate, amount in self._parts[name].items():
                _add(total_parts[fate], amount["records"], amount["bytes"])
        facts = {"sources": sources, "total": _entry(total_read, total_parts)}
        for name, entry in sources.items():
            _check_sum(f"source {name}", entry)
        return facts


def _nothing() -> Amount:
    return {"records": 0, "bytes": 0}


def _add(amount: Amount, records: int, record_bytes: int) -> None:
    amount["records"] += records
    amount["bytes"] += record_bytes


def _entry(read: Amount, parts: dict[str, Amount]) -> dict[str, Any]:
    dropped = {reason: dict(parts[reason]) for reason in sorted(parts) if reason not in FATES}
    return {**read, **{fate: dict(parts[fate]) if fate in parts else _nothing() for fate in FATES}, "dropped": dropped}


def _check_sum(what: str, entry: dict[str, Any]) -> None:
    parts = [*(entry[fate] for fate in FATES), *entry["dropped"].values()]
    for unit in ("records", "bytes"):
        if (got := sum(part[unit] for part in parts)) != entry[unit]:
            raise PandaError(f"The ledger of {what} does not add up: {entry[unit]} {unit} read, {got} accounted for.")


def _amounts(folder: Path) -> Iterator[tuple[str, str, int, int]]:
    """(source, fate, records, bytes), some of each, that add up to what the files of a cleaned corpus hold."""
    import pyarrow as pa

    for fate, part in (("kept", "examples"), ("held_out", "held_out"), ("", "dropped")):
        by = ["source"] if fate else ["source", "reason"]
        for batch in part_batches(folder, part, [*by, "record_bytes"], 65_536):
            sums = (
                pa.Table.from_batches([batch])
                .group_by(by)
                .aggregate([("record_bytes", "count"), ("record_bytes", "sum")])
            )
            for row in sums.to_pylist():
                yield row["source"], fate or row["reason"], row["record_bytes_count"], row["record_bytes_sum"]
    for row in read_jsonl(folder / "quarantine.jsonl"):
        yield row["source"], "quarantined", 1, row["bytes"]


def audit_ledger(folder: Path) -> dict[str, Any]:
    """Add a cleaned corpus up again from its files and compare with its `ledger.json`, which is returned.

    Raises PandaError naming source and part where they differ.
    """
    stored = read_json(folder / "ledger.json")
    counted: dict[str, dict[str, Amount]] = defaultdict(lambda: defaultdict(_nothing))
    for source, fate, records, record_bytes in _amounts(folder):
        _add(counted[source][fate], records, record_bytes)
    if extra := set(counted) - set(stored["sources"]):
        raise PandaError(f"{folder}: the files hold source {sorted(extra)[0]!r}, which the ledger does not name.")
    for name, entry in stored["sources"].items():
        _check_sum(f"source {name} in {folder}", entry)
        said = {fate: entry[fate] for fate in FATES} | entry["dropped"]
        for fate in sorted({*said, *counted[name]}):
            if (a := said.get(fate, _nothing())) != (b := counted[name].get(fate, _nothing())):
                raise PandaError(
                    f"{folder}: source {name}, {fate}: the ledger says {a['records']} records, {a['bytes']} bytes, "
                    f"the files hold {b['records']} records, {b['bytes']} bytes; build the corpus again."
                )
    _check_sum(f"all sources in {folder}", stored["total"])
    return dict(stored)
