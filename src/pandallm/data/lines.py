"""Streams to raw records: JSON lines and plain text, blocks of lines, JSON arrays and values. Nothing is read whole."""

import codecs
import io
import json
from collections.abc import Callable, Iterator
from typing import IO

from pandallm.data.raw import LINE_LIMIT, RawRecord
from pandallm.data.streams import BOM, damage_of, not_utf8, read_rest

_PREVIEW_BYTES = 800  # what is kept of a line that is too long


def json_layout(stream: IO[bytes], kind: str) -> str:
    """How a `.json` or `.jsonl` stream holds its records: `lines`, one `array`, or `values` written over several lines.

    Lines named `.jsonl` are taken as such unless the first one is a lone bracket, which is no record.
    """
    assert isinstance(stream, io.BufferedReader)
    head = stream.peek(4096).removeprefix(BOM).lstrip()
    first = head.split(b"\n", 1)[0].strip()
    if first == b"[" or (kind == ".json" and head.startswith(b"[")):
        return "array"
    return "values" if first == b"{" else "lines"


def read_json(stream: IO[bytes], kind: str, passed: Callable[[int], None]) -> Iterator[RawRecord]:
    """The records of a whole `.json` or `.jsonl` stream, whatever its layout. `passed` is told the number of lines."""
    layout = json_layout(stream, kind)
    return read_lines(stream, 0, -1, passed) if layout == "lines" else read_values(stream, layout == "array", passed)


def read_lines(stream: IO[bytes], start: int, stop: int, passed: Callable[[int], None]) -> Iterator[RawRecord]:
    """The lines that begin in `start <= position < stop` (to the end where `stop` is -1); blank ones are no records.

    `passed` is told the number of lines gone through, blank ones too, at the end.
    """
    number, position = 0, start
    try:
        if start:
            position = _next_line(stream, start, stop)
        while stop < 0 or position < stop:
            line = stream.readline(LINE_LIMIT)
            if not line:
                if damage := damage_of(stream):
                    yield RawRecord(number + 1, b"", damage)
                return
            number += 1
            position += len(line)
            if number == 1 and not start:
                line = line.removeprefix(BOM)
            if line.endswith(b"\n"):
                raw = line.rstrip(b"\r\n")
            else:
                if len(line) >= LINE_LIMIT:
                    more = _skip_line(stream)
                    position += more
                    yield _too_long(number, line, more, "line")
                    continue
                if damage := damage_of(stream):
                    yield RawRecord(number, line, damage)
                    return
                raw = line.rstrip(b"\r")
            if raw and not raw.isspace():
                yield RawRecord(number, raw)
    finally:
        passed(number)


def read_blocks(stream: IO[bytes], start: int, stop: int, passed: Callable[[int], None]) -> Iterator[RawRecord]:
    """Stretches of lines between blank lines, line ends kept inside; those that begin in `start <= position < stop`.

    `passed` is told the number of lines that belong to the unit: each line of a file belongs to one unit. A block of more
    than LINE_LIMIT bytes is one error record.
    """
    number, position, lines, size, first = 0, start, list[bytes](), 0, 0
    inside = False  # a block that began before `start`

    def block() -> RawRecord:
        raw = b"".join(lines)
        return (
            _too_long(first, raw, size - len(raw), "block of lines")
            if size > LINE_LIMIT
            else RawRecord(first, raw.rstrip(b"\r\n"))
        )

    try:
        if start:
            position, inside = _block_at(stream, start)
        while True:
            if not size and 0 <= stop <= position:
                return
            line = stream.readline(LINE_LIMIT)
            blank = not line or line.isspace()
            if blank and size:
                if damage := damage_of(stream) if not line else "":
                    yield RawRecord(
                        first, b"".join(lines)[:_PREVIEW_BYTES], damage, skipped=max(0, size - _PREVIEW_BYTES)
                    )
                    return
                yield block()
                lines, size = [], 0
                if 0 <= stop <= position:
                    return  # the blank line belongs to the next unit
            if not line:
                if damage := damage_of(stream):
                    yield RawRecord(number + 1, b"", damage)
                return
            position += len(line)
            if inside and not blank:
                continue
            inside = False
            number += 1
            if blank:
                continue
            if number == 1 and not start:
                line = line.removeprefix(BOM)
            if not size:
                first = number
            size += len(line)
            if size <= LINE_LIMIT or not lines:
                lines.append(line)
    finally:
        passed(number)


def _block_at(stream: IO[bytes], start: int) -> tuple[int, bool]:
    """Where the first line begins at `start` or later, and whether the line before it belongs to a block."""
    back = min(start, 1 << 16)
    stream.seek(start - back)
    line_start = start - back + stream.read(back - 1).rfind(b"\n") + 1
    stream.seek(line_start)
    line = stream.readline(LINE_LIMIT)
    return line_start + len(line), not line.isspace()


def _next_line(stream: IO[bytes], start: int, stop: int) -> int:
    """Where the first line that begins at `start` or later begins; the stream stands there."""
    stream.seek(start - 1)
    position = start - 1
    while stop < 0 or position < stop:
        piece = stream.readline(1 << 20)
        position += len(piece)
        if not piece or piece.endswith(b"\n"):
            break
    return position


def _skip_line(stream: IO[bytes]) -> int:
    """Bytes up to the next line, which none of them begins."""
    size = 0
    while piece := stream.readline(1 << 20):
        size += len(piece)
        if piece.endswith(b"\n"):
            break
    return size


def _too_long(line: int, raw: bytes, more: int, what: str) -> RawRecord:
    size, head = len(raw) + more, raw[:_PREVIEW_BYTES]
    error = f"a {what} of more than {LINE_LIMIT >> 20} MB ({size >> 20} MB); split it into records"
    return RawRecord(line, head, error, skipped=size - len(head))


class _Text:
    """A sliding window of the stream's text; `error` where it is not UTF-8, or damaged, from there on."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.text, self.position, self.error = stream, "", 0, ""
        self.lost = 0  # bytes read from the stream that are not in the text
        self.lines = 1
        self._counted = 0
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.ended = False

    def more(self, size: int = 1 << 20) -> bool:
        """Read on (at least `size` bytes where there are as many); False at the end or at an error."""
        if self.ended:
            return False
        self.line()
        self.text, self.position, self._counted = self.text[self.position :], 0, 0
        data = self.stream.read(size)
        self.ended = len(data) < size
        try:
            self.text += self._decoder.decode(data, final=self.ended)
        except UnicodeDecodeError as e:
            self.text += e.object[: e.start].decode()
            self.lost = len(e.object) - e.start
            told = not_utf8(e.object, e.start)
            self.error, self.ended = told if "iconv" in told else "it is not UTF-8 here", True
            return True
        if self.ended and (damage := damage_of(self.stream)):
            self.error = damage
        return True

    def skip_blanks(self) -> str:
        """The next character that is no blank, empty at the end; the window stands on it."""
        while True:
            while self.position < len(self.text) and self.text[self.position] in " \t\r\n":
                self.position += 1
            if self.position < len(self.text):
                return self.text[self.position]
            if not self.more():
                return ""

    def line(self) -> int:
        """The line (1-based) on which the window stands."""
        self.lines += self.text.count("\n", self._counted, self.position)
        self._counted = self.position
        return self.lines


def read_values(stream: IO[bytes], array: bool, passed: Callable[[int], None]) -> Iterator[RawRecord]:
    """JSON values, the elements of one array or one after the other, each as the bytes it stands in, over any number of lines.

    Where one breaks, the rest is one error record.
    """
    window, decoder = _Text(stream), json.JSONDecoder()
    try:
        window.skip_blanks()
        if array:
            window.position += 1  # [
        first = True
        while True:
            character = window.skip_blanks()
            if array:
                if character == "]":
                    return
                if not first:
                    if character != ",":
                        break
                    window.position += 1
                    window.skip_blanks()
            elif not character and not window.error:
                return
            first = False
            end = _element(window, decoder)
            if end is None:
                break
            text = window.text[window.position : end]
            yield RawRecord(window.line(), text.encode())
            window.position = end
        rest = window.text[window.position :].encode()
        head = rest[:_PREVIEW_BYTES]
        # The stream stands after all that the window has read.
        size = len(rest) - len(head) + window.lost + read_rest(stream)
        reason = window.error or f"the JSON {'array' if array else 'object'} is broken here"
        yield RawRecord(window.line(), head, f"{reason}; the rest of the file is left out", skipped=size)
    finally:
        passed(window.line())


def _element(window: _Text, decoder: json.JSONDecoder) -> int | None:
    """Where the element ends at which the window stands, or None where none can be read."""
    size = 1 << 20
    while True:
        try:
            _, end = decoder.raw_decode(window.text, window.position)
        except (ValueError, RecursionError):
            end = len(window.text)
            complete = False
        else:
            # A number that touches the window's end may go on.
            complete = end < len(window.text) or window.ended
        if complete:
            return end
        if len(window.text) - window.position > LINE_LIMIT or not window.more(size):
            return None
        size *= 2
