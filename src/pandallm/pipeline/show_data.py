"""What `panda data build` and `audit` print, and the tables of all `panda data` verbs. All names and texts are shown as they are, never as markup."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

Json = Mapping[str, Any]
_GAP = 2
#: Names of sources are cut to this many columns of a terminal.
_NAME = 24


class Column(NamedTuple):
    """One column of a table that is chosen by its width. `wrap`: may be folded where nothing else fits."""

    title: str
    cells: Sequence[str]
    left: bool = False


def fitting(console: Console, *variants: Sequence[Column]) -> Sequence[Column]:
    """The first variant that fits the terminal, else the last."""
    for columns in variants:
        width = sum(max(map(cell_len, (c.title, *c.cells))) + _GAP for c in columns) - _GAP
        if width <= console.width:
            return columns
    return variants[-1]


def print_columns(console: Console, columns: Sequence[Column], *, total: bool = False) -> None:
    """A table without frames, and without a head where no column has a title; the last row in bold where it is the total."""
    head = any(column.title for column in columns)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, show_header=head)
    for column in columns:
        table.add_column(
            Text(column.title), no_wrap=True, justify="left" if column.left else "right", overflow="ellipsis"
        )
    rows = list(zip(*(c.cells for c in columns), strict=True))
    for i, cells in enumerate(rows):
        table.add_row(*map(Text, cells), style="bold" if total and i == len(rows) - 1 else "")
    console.print(table)


def say(console: Console, text: str, style: str = "") -> None:
    """A line of plain text, wrapped at the terminal's width."""
    console.print(Text(visible(text)), style=style, highlight=False)


_INVISIBLE = {
    c: "\ufffd"
    for c in (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000))
    if c not in (0x09, 0x0A)
}


def visible(text: str) -> str:
    """The text without what steers a terminal: control characters and marks that turn the direction of writing become U+FFFD."""
    return text.translate(_INVISIBLE)


def short(name: str) -> str:
    """A name in at most `_NAME` columns."""
    name = visible(name).replace("\n", " ")
    if cell_len(name) <= _NAME:
        return name
    while cell_len(name) >= _NAME:
        name = name[:-1]
    return name + "…"


def counted(n: int, what: str) -> str:
    """`1 record`, `1,234 records`."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def unit_of(n: float) -> tuple[float, str]:
    """How many bytes the unit holds in which this many are told, and its name."""
    return next(((k, unit) for k, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if n >= k), (1.0, "bytes"))


def size(n: float) -> str:
    """Bytes for people: 1.2 kB, 34.5 MB."""
    k, unit = unit_of(n)
    return f"{n / k:,.0f} {unit}" if k == 1 else f"{n / k:,.1f} {unit}"


def share(part: float, whole: float) -> str:
    """Per cent; never rounded to 100 or 0 where something is missing or there."""
    if not whole:
        return "-"
    if 0 < part < whole:
        return f"{min(max(100 * part / whole, 0.1), 99.9):.1f}"
    return f"{100 * part / whole:.0f}"


# Build ----------------------------------------------------------------------------------------------------------------------------


def print_build(result: Json, console: Console | None = None) -> None:
    """The funnel of every corpus and the mix of every stage."""
    console = console or Console()
    for i, (name, corpus) in enumerate(result["corpora"].items()):
        if i:
            console.print()
        print_funnel(name, corpus, console)
    for name, packs in result["packs"].items():
        console.print()
        print_mix(name, packs, console)


_NAMED: dict[str, tuple[str, str, Callable[[Json], int]]] = {
    "duplicate": ("duplicate", "dupl.", lambda e: _records(e["dropped"].get("duplicate"))),
    "contaminated": ("contaminated", "contam.", lambda e: _records(e["dropped"].get("contaminated"))),
    "held_out": ("held out", "held", lambda e: _records(e["held_out"])),
    "quarantined": ("quarantined", "quarant.", lambda e: _records(e["quarantined"])),
}


def print_funnel(name: str, corpus: Json, console: Console) -> None:
    """One corpus: a line a source, from what was read to what is kept; reasons have columns where they fit."""
    total, sources = corpus["total"], dict(corpus["sources"])
    made = "taken from the store" if corpus["reused"] else f"built in {corpus['seconds']:.1f} s"
    say(console, f"Corpus {name}: {total['records']:,} records, {size(total['bytes'])}; {made}", "bold")
    entries = [*sources.values(), *([total] if len(sources) > 1 else [])]
    reasons = [r for r in total["dropped"] if r not in _NAMED]
    reasons.sort(key=lambda r: -total["dropped"][r]["records"])

    def counts(of: Callable[[Json], int]) -> list[str]:
        return [f"{n:,}" if (n := of(e)) else "" for e in entries]

    def reason_of(reason: str) -> Callable[[Json], int]:
        return lambda e: _records(e["dropped"].get(reason))

    names = Column("source", [*map(short, sources), *(["all"] if len(sources) > 1 else [])], left=True)
    read = Column("read", [f"{e['records']:,}" for e in entries])
    k, unit = unit_of(total["bytes"])
    digits = 2 if total["bytes"] < 10 * k else 1
    bytes_read = Column(unit, [f"{e['bytes'] / k:,.{digits}f}" for e in entries])
    each = [Column(visible(r), counts(reason_of(r))) for r in reasons]
    dropped = [Column("dropped", counts(lambda e: sum(reason_of(r)(e) for r in reasons)))] if reasons else []
    shown = [key for key, (_, _, of) in _NAMED.items() if of(total)]
    long = [Column(_NAMED[key][0], counts(_NAMED[key][2])) for key in shown]
    brief = [Column(_NAMED[key][1], counts(_NAMED[key][2])) for key in shown]
    kept = Column("kept", [f"{e['kept']['records']:,}" for e in entries])
    of_records = Column("%", [share(e["kept"]["records"], e["records"]) for e in entries])
    bytes_kept = Column(f"{unit} kept", [f"{e['kept']['bytes'] / k:,.{digits}f}" for e in entries])
    of_bytes = Column("% bytes", [share(e["kept"]["bytes"], e["bytes"]) for e in entries])
    all_of_it = [names, read, bytes_read, *each, *long, kept, of_records, bytes_kept, of_bytes]
    columns = fitting(
        console,
        all_of_it,
        [names, read, bytes_read, *each, *brief, kept, of_records, bytes_kept, of_bytes],
        [names, read, bytes_read, *dropped, *long, kept, of_records, bytes_kept, of_bytes],
        [names, read, *dropped, *long, kept, of_records, of_bytes],
        [names, read, *dropped, *brief, kept, of_records, of_bytes],
        [names, read, *dropped, *brief, kept, of_records],
    )
    print_columns(console, columns, total=len(sources) > 1)
    if columns[-1] is not of_bytes:
        say(console, f"Of the bytes {share(total['kept']['bytes'], total['bytes'])} % are kept.")
    if reasons and each[0] not in columns:
        say(console, "Dropped, by reason:")
        print_columns(console, _reasons(reasons, total, sources, console))
    for task, entry in corpus["contamination"].items():
        if entry["touched"]:
            say(
                console,
                f"{task}: {entry['touched']:,} of {entry['questions']:,} questions share text with "
                f"{counted(entry['documents'], 'document')}; "
                + (f"{entry['exclude']:,} with kept ones." if entry["exclude"] else "none is kept."),
            )
    if lost := _records(total["quarantined"]):
        say(console, f"{counted(lost, 'record')} could not be read: quarantine.jsonl says which and why.", "yellow")
    console.print(Text(f"Folder: {corpus['folder']}"), soft_wrap=True, highlight=False)


def _reasons(reasons: Sequence[str], total: Json, sources: Json, console: Console) -> list[Column]:
    """Reason, records, and the sources that lost most, as many as fit."""
    records = [f"{total['dropped'][r]['records']:,}" for r in reasons]
    labels = ["  " + visible(r) for r in reasons]
    room = console.width - max(map(cell_len, labels)) - max(map(len, records)) - 2 * _GAP
    where = []
    for reason in reasons:
        parts = sorted(
            ((_records(e["dropped"].get(reason)), name) for name, e in sources.items()), key=lambda p: (-p[0], p[1])
        )
        texts = [f"{short(name)} {n:,}" for n, name in parts if n]
        line = texts[0]
        for i, text in enumerate(texts[1:], 1):
            more = f", and {len(texts) - i} more"
            if cell_len(f"{line}, {text}") + (len(more) if i + 1 < len(texts) else 0) > room:
                line += more
                break
            line += f", {text}"
        where.append(line)
    return [Column("", labels, left=True), Column("", records), Column("", where, left=True)]


def print_mix(name: str, packs: Json, console: Console) -> None:
    """One stage's packs: what training reads of each source, and how that compares with the shares that were wanted."""
    ledger = packs["ledger"]
    total, sources = ledger["total"], ledger["sources"]
    made = "taken from the store" if packs["reused"] else "packed now"
    say(
        console,
        f"Stage {name}: {packs['steps']:,} steps of {packs['batch_sequences']} x {packs['sequence_length']:,} tokens, "
        f"{total['exposures']:,} in all; {made}",
        "bold",
    )
    entries = [*sources.values(), *([total] if len(sources) > 1 else [])]
    names = Column("source", [*map(short, sources), *(["all"] if len(sources) > 1 else [])], left=True)
    unique = Column("tokens", [f"{e['unique']:,}" for e in entries])
    trained = Column("trained", [f"{e['trained']:,}" for e in entries])
    read = Column("read", [f"{e['exposures']:,}" for e in entries])
    passes = Column("passes", [f"{e['passes']:.2f}" for e in entries])
    got = Column("%", [share(e["exposures"], total["exposures"]) for e in entries])
    wanted = []
    if any(e.get("wanted_share") is not None for e in sources.values()):
        wanted = [Column("wanted", ["" if (w := e.get("wanted_share")) is None else f"{100 * w:.1f}" for e in entries])]
    others = [
        Column(title, [f"{e[key]:,}" if e[key] else "" for e in entries])
        for key, title in (("masked", "masked"), ("truncated", "truncated"), ("over_budget", "over budget"))
        if total[key]
    ]
    below = []
    if any((e.get("below_quality") or {}).get("examples") for e in entries):
        below = [Column("below quality", [f"{(e.get('below_quality') or {}).get('examples', 0):,}" for e in entries])]
    columns = fitting(
        console,
        [names, unique, trained, *others, *below, read, passes, got, *wanted],
        [names, unique, trained, *below, read, passes, got, *wanted],
        [names, unique, read, passes, got, *wanted],
    )
    print_columns(console, columns, total=len(sources) > 1)
    say(
        console,
        f"{packs['rows']:,} rows, {100 * packs['fill']:.2f} % full; {packs['examples_cut']:,} of {packs['examples']:,} examples split between rows.",
    )
    for warning in packs.get("warnings", ()):
        say(console, warning, "yellow")
    console.print(Text(f"Folder: {packs['folder']}"), soft_wrap=True, highlight=False)


# Audit ----------------------------------------------------------------------------------------------------------------------------


def print_audit(rows: Sequence[Json], console: Console | None = None) -> None:
    """A line a ledger: its parts, and whether they are what the files hold."""
    console = console or Console()
    corpora = [r for r in rows if r["kind"] == "corpus"]
    packs = [r for r in rows if r["kind"] == "packs"]
    if corpora:
        totals = [r["total"] for r in corpora]
        dropped = [sum(p["records"] for p in t["dropped"].values()) for t in totals]
        print_columns(
            console,
            fitting(
                console,
                *(
                    [
                        Column("corpus", [short(r["what"].removeprefix("corpus ")) for r in corpora], left=True),
                        *([Column("sources", [str(r["sources"]) for r in corpora])] if wide else []),
                        Column("records", [f"{t['records']:,}" for t in totals]),
                        *([Column("bytes", [f"{t['bytes']:,}" for t in totals])] if wide else []),
                        Column("= kept", [f"{_records(t['kept']):,}" for t in totals]),
                        Column("+ held out", [f"{_records(t['held_out']):,}" for t in totals]),
                        Column("+ dropped", [f"{n:,}" for n in dropped]),
                        Column("+ quarantined", [f"{_records(t['quarantined']):,}" for t in totals]),
                        _adds_up(corpora),
                    ]
                    for wide in (True, False)
                ),
            ),
        )
    if corpora and packs:
        console.print()
    if packs:
        built = [r for r in packs if r["folder"] is not None]
        keys = {"unique": "tokens", "trained": "= trained", "masked": "+ masked"}
        more = {"truncated": "+ truncated", "over_budget": "+ over budget"}
        brief = {"truncated": "+ cut", "over_budget": "+ over"}

        def columns(titles: Mapping[str, str]) -> list[Column]:
            return [
                Column("packs", [short(r["what"].removeprefix("packs ")) for r in packs], left=True),
                *(
                    Column(title, [f"{r['total'][key]:,}" if r in built else "" for r in packs])
                    for key, title in titles.items()
                ),
                _adds_up(packs),
            ]

        print_columns(
            console,
            fitting(console, columns({**keys, **more, "exposures": "read"}), columns({**keys, **brief})),
        )


def _adds_up(rows: Sequence[Json]) -> Column:
    return Column("adds up", ["not built" if r["folder"] is None else "NO" if r["error"] else "yes" for r in rows])


def _records(part: Json | None) -> int:
    return int(part["records"]) if part else 0
