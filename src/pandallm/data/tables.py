"""Parquet and Arrow files to raw records."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import orjson

from pandallm.data.raw import RawRecord, Unit
from pandallm.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

TABLES = (".parquet", ".arrow")

_BATCH_ROWS = 1024


def plan_table(path: "Path", kind: str, target_bytes: int) -> list[Unit]:
    """Units of whole row groups (Parquet) or of rows in whole batches (Arrow). Raises BadInput for a damaged file."""
    sizes = _parquet_sizes(path) if kind == ".parquet" else _arrow_sizes(path)
    units: list[Unit] = []
    start = position = size = 0
    for steps, step_bytes in sizes:
        position += steps
        size += step_bytes
        if size >= target_bytes:
            units.append(Unit(path, kind, start, position, size))
            start, size = position, 0
    if position > start:
        units.append(Unit(path, kind, start, position, size))
    return units


def _parquet_sizes(path: "Path") -> Iterator[tuple[int, int]]:
    """(1, uncompressed bytes) of each row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        facts = pq.read_metadata(path)
    except (pa.ArrowException, OSError) as e:
        raise _damaged(path, e) from None
    for i in range(facts.num_row_groups):
        yield 1, facts.row_group(i).total_byte_size


def _arrow_sizes(path: "Path") -> Iterator[tuple[int, int]]:
    """(rows, bytes) of each batch."""
    import pyarrow as pa

    try:
        for batch in _arrow_batches(path):
            yield batch.num_rows, batch.nbytes
    except (pa.ArrowException, OSError) as e:
        raise _damaged(path, e) from None


def _arrow_batches(path: "Path") -> Iterator["pa.RecordBatch"]:
    """Batches of an Arrow IPC stream (as `datasets` writes) or file, memory-mapped."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as memory:
        if memory.read(6) == b"ARROW1":
            memory.seek(0)
            reader = pa.ipc.open_file(memory)
            yield from (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            memory.seek(0)
            yield from pa.ipc.open_stream(memory)


def _damaged(path: "Path", error: Exception) -> BadInput:
    reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    return BadInput(f"{path} is damaged or of another format than its name says ({reason}); fetch or write it again.")


def count_rows(unit: Unit) -> int:
    """Rows of a unit of a table, from its metadata."""
    if unit.format == ".arrow":
        return unit.stop - unit.start
    import pyarrow.parquet as pq

    facts = pq.read_metadata(unit.path)
    return sum(int(facts.row_group(i).num_rows) for i in range(unit.start, unit.stop))


def _batches(unit: Unit) -> Iterator["pa.RecordBatch"]:
    if unit.format == ".parquet":
        import pyarrow.parquet as pq

        with pq.ParquetFile(unit.path) as file:
            # One by one: a batch that spans two groups would be lost when the second is damaged.
            for group in range(unit.start, unit.stop):
                yield from file.iter_batches(_BATCH_ROWS, row_groups=[group])
        return
    position = 0
    for batch in _arrow_batches(unit.path):
        begin, end = max(unit.start - position, 0), min(unit.stop - position, batch.num_rows)
        position += batch.num_rows
        for i in range(begin, end, _BATCH_ROWS):
            yield batch.slice(i, min(_BATCH_ROWS, end - i))
        if position >= unit.stop:
            return


def read_table(unit: Unit, passed: Callable[[int], None]) -> Iterator[RawRecord]:
    """The rows of a unit. Where the file is damaged, what follows is one error record.

    Values that JSON does not know become text: dates in ISO form, decimals in digits, bytes in base 64; NaN becomes null.
    Null fields are left out: tables of records with different fields hold all fields in each row.
    """
    import pyarrow as pa

    number = 0
    try:
        for batch in _batches(unit):
            plain = all(_is_plain(field.type) for field in batch.schema)
            nested = any(pa.types.is_nested(field.type) for field in batch.schema)
            try:
                rows: list[dict[str, Any] | None] = list(batch.to_pylist())
            except UnicodeDecodeError:
                rows = [_row(batch, i) for i in range(batch.num_rows)]
            for row in rows:
                number += 1
                if row is None:
                    yield RawRecord(number, b"", "a text of this row is not UTF-8")
                    continue
                row = _without_nulls(row) if nested else {k: v for k, v in row.items() if v is not None}
                raw = orjson.dumps(row, default=_as_text, option=orjson.OPT_NON_STR_KEYS)
                yield RawRecord(number, raw, None, row if plain else orjson.loads(raw))
    except (pa.ArrowException, OSError) as e:
        yield RawRecord(number + 1, b"", f"the file is damaged here ({str(e).splitlines()[0]}): what follows is lost")
    finally:
        passed(number)


def _without_nulls(value: Any) -> Any:
    """Without the null fields of objects, at any depth; null elements of lists stay."""
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value


def _row(batch: "pa.RecordBatch", i: int) -> dict[str, Any] | None:
    try:
        return dict(batch.slice(i, 1).to_pylist()[0])
    except UnicodeDecodeError:
        return None


def _is_plain(kind: "pa.DataType") -> bool:
    """Whether values of this type are the same after a trip through JSON."""
    import pyarrow.types as t

    if t.is_struct(kind):
        return all(_is_plain(kind.field(i).type) for i in range(kind.num_fields))
    if t.is_list(kind) or t.is_large_list(kind):
        return _is_plain(kind.value_type)
    return bool(
        t.is_string(kind)
        or t.is_large_string(kind)
        or t.is_string_view(kind)
        or t.is_integer(kind)
        or t.is_boolean(kind)
        or t.is_null(kind)
    )


def _as_text(value: Any) -> Any:
    import base64

    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
