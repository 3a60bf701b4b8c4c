"""Adding a corpus up again from its files."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pandallm.data.ledger import Ledger, audit_ledger
from pandallm.errors import PandaError
from pandallm.store import write_json, write_jsonl


def corpus(folder: Path) -> Path:
    """Two sources, two shards; 10 bytes a record."""
    ledger = Ledger()
    for source, records in (("a", 6), ("b", 2)):
        ledger.read(source, records, 10 * records)
    rows = {"examples": ["a", "a", "b"], "held_out": ["a"], "dropped": ["a", "b"]}
    for part, sources in rows.items():
        for shard, source in enumerate(sources):
            table = {"source": [source], "record_bytes": [10]}
            if part == "dropped":
                table["reason"] = ["too_short"]
            path = folder / part / f"{shard:05d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table(table), path)
            ledger.book(source, {"examples": "kept", "dropped": "too_short"}.get(part, part), 1, 10)
    write_jsonl(folder / "quarantine.jsonl", [{"source": "a", "bytes": 10, "line": i} for i in (1, 2)])
    ledger.book("a", "quarantined", 2, 20)
    write_json(folder / "ledger.json", ledger.facts())
    return folder


def test_the_files_add_up_to_the_ledger(tmp_path: Path) -> None:
    facts = audit_ledger(corpus(tmp_path))
    assert facts["sources"]["a"] == {
        "records": 6,
        "bytes": 60,
        "kept": {"records": 2, "bytes": 20},
        "held_out": {"records": 1, "bytes": 10},
        "quarantined": {"records": 2, "bytes": 20},
        "dropped": {"too_short": {"records": 1, "bytes": 10}},
    }
    assert facts["total"]["records"] == 8


def test_a_ledger_that_does_not_add_up_is_never_written() -> None:
    ledger = Ledger()
    ledger.read("a", 2, 20)
    ledger.book("a", "kept", 1, 20)
    with pytest.raises(PandaError, match=r"source a does not add up: 2 records read, 1 accounted for"):
        ledger.facts()


def test_an_audit_names_source_part_and_difference(tmp_path: Path) -> None:
    folder = corpus(tmp_path)
    stored = (folder / "ledger.json").read_text()
    ledger = json.loads(stored)
    ledger["sources"]["a"]["kept"]["records"] = 3
    (folder / "ledger.json").write_text(json.dumps(ledger))
    with pytest.raises(PandaError, match=r"source a in .* does not add up: 6 records read, 7 accounted for"):
        audit_ledger(folder)
    ledger["sources"]["a"]["held_out"]["records"] = 0
    (folder / "ledger.json").write_text(json.dumps(ledger))
    with pytest.raises(PandaError, match="source a, held_out: the ledger says 0 records, 10 bytes, the files hold 1"):
        audit_ledger(folder)
    (folder / "ledger.json").write_text(stored)
    (folder / "dropped/00001.parquet").unlink()
    with pytest.raises(PandaError, match="source b, too_short: the ledger says 1 records, 10 bytes, the files hold 0"):
        audit_ledger(folder)
    ledger = json.loads(stored)
    del ledger["sources"]["b"]
    (folder / "ledger.json").write_text(json.dumps(ledger))
    with pytest.raises(PandaError, match="the files hold source 'b', which the ledger does not name"):
        audit_ledger(folder)
