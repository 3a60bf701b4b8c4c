"""Bytes to raw records: decompression, JSON lines and plain text, JSON arrays. Everything is streamed."""

import codecs
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from pandallm.data.raw import LINE_LIMIT, RawRecord

COMPRESSIONS = (".gz", ".zst")

_PREVIEW_BYTES = 800  # what is kept of a line that is too long
_BOM = b"\xef\xbb\xbf"
#: Longer marks first: UTF-32 little endian begins as UTF-16 does.
_OTHER_BOMS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


class _Decompressed(io.RawIOBase):
    """The content of a gz or zst file, all its members or frames. What comes before damage is given; `damage` then tells."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "rb")  # noqa: SIM115 (closed in close)
        self._make = _zstd if path.suffix.lower() == ".zst" else _gzip
        self._decoder = self._make()
        self._begun = True  # the current member has had input; an empty file is a damaged one
        self._input = b""
        self._output = memoryview(b"")
        self.damage = ""

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        if not self._output:
            self._output = memoryview(self._more())
        n = min(len(buffer), len(self._output))
        buffer[:n] = self._output[:n]
        self._output = self._output[n:]
        return n

    def _more(self) -> bytes:
        """The next decompressed bytes; empty at the end and at damage."""
        while not self.damage:
            if self._decoder.eof:
                self._input = self._decoder.unused_data
                self._decoder, self._begun = self._make(), False
            if not self._input:
                self._input = self._file.read(1 << 14)  # small, so that a piece stays small when unpacked
            if not self._begun and self._make is _gzip:
                self._input = self._input.lstrip(b"\0")  # gzip files may be padded with zeros
                if not self._input and self._file.peek(1):
                    continue
            if not self._input:
                if self._begun:
                    self.damage = "it ends in the middle"
                return b""
            data, self._input, self._begun = self._input, b"", True
            try:
                if out := self._decoder.decompress(data):
                    return bytes(out)
            except Exception as e:  # zlib.error, ZstdError: each library its own
                self.damage = str(e)
        return b""


def _gzip() -> Any:
    return zlib.decompressobj(zlib.MAX_WBITS | 16)


def _zstd() -> Any:
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj()


def open_bytes(path: Path) -> IO[bytes]:
    """The file's content, decompressed where its name says so."""
    if path.suffix.lower() in COMPRESSIONS:
        return io.BufferedReader(_Decompressed(path), 1 << 18)
    return open(path, "rb", buffering=1 << 18)


def _damage(stream: IO[bytes]) -> str:
    """Why the stream ended early, or nothing."""
    raw = getattr(stream, "raw", None)
    if isinstance(raw, _Decompressed) and raw.damage:
        return f"the compressed file is damaged here ({raw.damage}): what follows is lost; fetch or compress it again"
    return ""


def starts_array(stream: IO[bytes]) -> bool:
    """Whether the content begins with `[`."""
    assert isinstance(stream, io.BufferedReader)
    return stream.peek(4096).removeprefix(_BOM).lstrip().startswith(b"[")


def other_encoding(head: bytes) -> str | None:
    """What to do about a file that begins with the byte order mark of another encoding than UTF-8, or None."""
    for bom, name in _OTHER_BOMS.items():
        if head.startswith(bom):
            return convert(name)
    return None


def convert(encoding: str) -> str:
    """An error text for a file in this encoding."""
    return f"the file is {encoding}, not UTF-8; convert it: iconv -f {encoding} -t UTF-8 OLD > NEW"


def not_utf8(data: bytes, position: int) -> str:
    """An error text for bytes whose decoding fails at `position`: names the encoding where the bytes tell it."""
    sample = data[max(0, position - 1000) : position + 4000]
    if b"\0" in sample:
        return convert("UTF-16")
    # Text in GB18030 uses almost only the GB 2312 plane (both bytes from A1); in Big5 the second byte is often lower.
    pairs = high = 0
    i = 0
    while i < len(sample) - 1:
        if sample[i] < 0x80:
            i += 1
            continue
        pairs += 1
        high += 0xA1 <= sample[i] <= 0xF7 and sample[i + 1] >= 0xA1
        i += 2
    for encoding, fits in (("GB18030", high >= 0.9 * pairs), ("Big5", high < 0.9 * pairs)):
        if pairs >= 2 and fits and _decodes(sample, encoding):
            return convert(encoding)
    return f"not valid UTF-8 (byte {position + 1})"


def _decodes(sample: bytes, encoding: str) -> bool:
    """Whether the bytes are text in this encoding; a character cut at either end is allowed."""
    for start in (0, 1):
        for stop in (len(sample), len(sample) - 1):
            try:
                sample[start:stop].decode(encoding)
                return True
            except UnicodeDecodeError:
                continue
    return False


def read_rest(stream: IO[bytes]) -> int:
    """Bytes up to the end of the stream; none is kept."""
    return sum(map(len, iter(lambda: stream.read(1 << 20), b"")))


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
                if damage := _damage(stream):
                    yield RawRecord(number + 1, b"", damage)
                return
            number += 1
            position += len(line)
            if number == 1 and not start:
                line = line.removeprefix(_BOM)
            if line.endswith(b"\n"):
                raw = line.rstrip(b"\r\n")
            else:
                if len(line) >= LINE_LIMIT:
                    more = _skip_line(stream)
                    position += more
                    yield _too_long(number, line, more, "line")
                    continue
                if damage := _damage(stream):
                    yield RawRecord(number, line, damage)
                    return
                raw = line.rstrip(b"\r")
            if raw and not raw.isspace():
                yield RawRecord(number, raw)
    finally:
        passed(number)


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
            self.error, self.ended = not_utf8(e.object, e.start), True
            return True
        if self.ended and (damage := _damage(self.stream)):
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


def read_array(stream: IO[bytes], passed: Callable[[int], None]) -> Iterator[RawRecord]:
    """The elements of a top-level JSON array, each as the bytes it stands in. Where it breaks, the rest is one error record."""
    window, decoder = _Text(stream), json.JSONDecoder()
    try:
        window.skip_blanks()
        window.position += 1  # [
        first = True
        while True:
            character = window.skip_blanks()
            if character == "]":
                return
            if not first:
                if character != ",":
                    break
                window.position += 1
                window.skip_blanks()
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
        reason = window.error or "the JSON array is broken here"
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
