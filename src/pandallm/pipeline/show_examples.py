"""What `panda data show` prints: examples with what is trained set apart, packed rows, dropped records."""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pandallm.pipeline.show_data import say, short, size, visible

if TYPE_CHECKING:
    from pandallm.data.packs import Packs

Json = Mapping[str, Any]
_TRAINED = "green"
#: Characters shown of a question, and how long a stretch it must share with a document to be set apart.
_SHOWN, _SHARED = 200, 6
_BREAK = re.compile("\r\n|[\n\r\v\f\x85\u2028\u2029]")
_OPEN, _CLOSE = "⟦", "⟧"


def has_colour(console: Console) -> bool:
    """Whether colours reach the reader: a terminal that has them, and NO_COLOR is not set."""
    return console.color_system is not None and not console.no_color


def spans(parts: Iterable[tuple[str, bool]], colour: bool, limit: int) -> Text:
    """Text whose trained stretches are green or, without colour, in double brackets; cut after `limit` characters."""
    out, left, cut = Text(), limit, 0
    for raw, trained in parts:
        text = visible(raw)
        kept, cut = text[:left], cut + max(len(text) - left, 0)
        left -= len(kept)
        if not kept:
            continue
        if trained and not colour:
            kept = f"{_OPEN}{kept}{_CLOSE}"
        out.append(kept, style=_TRAINED if trained and colour else "")
    if cut:
        out.append(f" … {cut:,} more characters", style="dim")
    return out


#: A line never begins with these.
_CLOSING = frozenset("，。、；：？！）》〉」』】”’…,.;:?!)]}%" + _CLOSE)


def wrapped(text: Text, width: int) -> Text:
    """Text folded to `width` columns: at blanks in Latin text, between any two characters in Chinese."""
    plain, cuts = text.plain, []
    start = column = best = 0
    for i, c in enumerate(plain):
        if c == "\n":
            start, column, best = i + 1, 0, i + 1
            continue
        size_here = 8 if c == "\t" else cell_len(c)
        before = plain[i - 1] if i else ""
        if (
            i > start
            and (c not in _CLOSING or before == " ")
            and (before == " " or cell_len(before) == 2 or size_here == 2)
        ):
            best = i
        if column + size_here > width and i > start and c != " ":
            cut = best if best > start else i
            cuts.append(cut)
            start, column = cut, cell_len(plain[cut:i])
            best = cut
        column += size_here
    out = Text()
    for line in text.divide(cuts) if cuts else [text]:
        if len(out):
            out.append("\n")
        if blanks := len(line) - len(line.plain.rstrip(" ")):
            line.right_crop(blanks)
        out.append_text(line)
    return out


def put(console: Console, text: Text, indent: int = 0) -> None:
    """Print folded text."""
    lines = wrapped(text, console.width - indent).split("\n", allow_blank=True)
    for line in lines:
        console.print(
            Text(" " * indent).append_text(line), highlight=False, no_wrap=True, overflow="ignore", crop=False
        )


def print_legend(console: Console) -> None:
    """How trained text is set apart."""
    how = Text("green", style=_TRAINED) if has_colour(console) else Text(f"{_OPEN}in brackets{_CLOSE}")
    console.print(Text.assemble("Trained text is ", how, "; the rest is read but not learnt."), highlight=False)


def print_examples(title: str, rows: Sequence[Json], limit: int, console: Console) -> None:
    """Examples of a corpus."""
    say(console, title, "bold")
    colour = has_colour(console)
    for row in rows:
        quality = "" if row.get("quality") is None else f", quality {row['quality']:.2f}"
        console.print()
        say(console, f"{row['source']}, {row['language']}, {size(row['utf8_bytes'])}{quality}, id {row['id']}", "dim")
        put(console, spans(((t["text"], t["train"]) for t in row["turns"]), colour, limit))


def print_rows(
    stage: str, packs: "Packs", numbers: Sequence[int], tokenizer: Any, limit: int, console: Console
) -> None:
    """Packed rows of a stage, example by example."""
    from pandallm.data.packs import decode_row

    say(console, f"Stage {stage}: {packs.rows:,} rows of up to {packs.sequence_length:,} tokens", "bold")
    colour = has_colour(console)
    if not numbers:
        say(console, "No row holds a token of that source: the budget does not reach it.")
    for number in numbers:
        row = packs.row(number)
        pieces = decode_row(packs, number, tokenizer)
        console.print()
        say(
            console,
            f"Row {number + 1:,}: {len(row.input_ids):,} tokens, {int(row.loss_mask.sum()):,} trained, {len(pieces)} "
            f"example{'s' if len(pieces) != 1 else ''}",
            "bold",
        )
        for piece in pieces:
            say(console, f"--- {piece.source}, {piece.language}, id {piece.id}", "dim")
            put(console, spans(piece.spans, colour, limit))


def print_dropped(title: str, found: Mapping[str, Json], console: Console) -> None:
    """Dropped records by reason, each with file, line and beginning; duplicates beside what was kept."""
    say(console, title, "bold")
    if not found:
        say(console, "Nothing was dropped.")
    for reason, entry in found.items():
        console.print()
        rows = entry["rows"]
        told = "" if len(rows) == entry["records"] else f", {len(rows)} shown"
        say(console, f"{reason}: {entry['records']:,} record{'s' if entry['records'] != 1 else ''}{told}", "bold")
        for row in rows:
            where = f"{row['file']}:{row['line']}"
            if "error" in row:
                say(console, f"{where}  {row['source']}, {size(row['bytes'])}", "dim")
                say(console, f"  {row['error']}")
                continue
            detail = f"  {row['detail']}" if row["detail"] and "partner" not in row else ""
            say(console, f"{where}  {row['source']}{detail}", "dim")
            if "partner" in row:
                _print_pair(row, console)
            else:
                put(console, Text(_line(row["preview"])), 2)


def _print_pair(row: Json, console: Console) -> None:
    """A duplicate and the kept example, or a document and the question that it touches: side by side where the terminal is wide, else one below the other; what matters
    in bold."""
    partner = row["partner"]
    if partner is None:
        put(console, Text(_line(row["preview"])), 2)
        say(console, f"  repeats {row['detail']}", "dim")
        return
    same = row["reason"] == "contaminated"
    ours, theirs = _differences(
        _line(row["preview"]), _line(partner["text"][: _SHOWN if same else len(row["preview"])]), same
    )
    kept = f"{'question' if same else 'kept'}: {short(partner['source'])} {partner['id']}"
    table = Table.grid(padding=(0, 2, 0, 0))
    if console.width >= 100:
        half = console.width // 2 - 3
        table.add_row(Text("  dropped", style="dim"), Text(kept, style="dim"))
        table.add_row(_indented(wrapped(ours, half)), wrapped(theirs, half))
    else:
        table.add_row(Text("  -"), wrapped(ours, console.width - 6))
        table.add_row(Text("  ?" if same else "  ="), wrapped(theirs, console.width - 6))
        table.add_row(Text(""), Text(kept, style="dim"))
    console.print(table, highlight=False)


def _indented(text: Text) -> Text:
    return Text("\n").join(Text("  ").append_text(line) for line in text.split("\n", allow_blank=True))


def _line(text: str) -> str:
    """One line: breaks as a sign."""
    return visible(_BREAK.sub("↵", text)).replace("\t", " ")


def _differences(a: str, b: str, same: bool = False) -> tuple[Text, Text]:
    """Both texts, where they differ in bold; with `same` where they share more than a few characters."""
    left, right = Text(a), Text(b)
    for kind, i, j, k, m in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if (kind == "equal" and j - i >= _SHARED) if same else kind != "equal":
            left.stylize("bold yellow", i, j)
            right.stylize("bold yellow", k, m)
    return left, right
