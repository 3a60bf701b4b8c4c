"""Bytes of files: decompression that keeps what stands before damage, encodings that are not UTF-8."""

import codecs
import io
import zlib
from pathlib import Path
from typing import IO, Any

COMPRESSIONS = (".gz", ".zst")

BOM = b"\xef\xbb\xbf"
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
    if path.suffix.lower() in (*COMPRESSIONS, ".tgz"):
        return io.BufferedReader(_Decompressed(path), 1 << 18)
    return open(path, "rb", buffering=1 << 18)


def damage_of(stream: IO[bytes]) -> str:
    """Why a decompressed stream ended early, or nothing."""
    raw = getattr(stream, "raw", None)
    if isinstance(raw, _Decompressed) and raw.damage:
        return f"the compressed file is damaged here ({raw.damage}): what follows is lost; fetch or compress it again"
    return ""


def other_encoding(head: bytes) -> str | None:
    """What to do about a file that begins with the byte order mark of another encoding than UTF-8, or None."""
    for bom, name in _OTHER_BOMS.items():
        if head.startswith(bom):
            return convert(name)
    return None


def convert(encoding: str, sure: bool = True) -> str:
    """An error text for a file in this encoding."""
    told = f"the file is {encoding}, not UTF-8" if sure else f"not valid UTF-8, it looks like {encoding}"
    return f"{told}; convert it: iconv -f {encoding} -t UTF-8 OLD > NEW"


def not_utf8(data: bytes, position: int) -> str:
    """An error text for bytes whose decoding fails at `position`: names the encoding where the bytes tell it."""
    sample = data[max(0, position - 1000) : position + 4000]
    if b"\0" in sample:
        return convert("UTF-16", sure=False)
    # Common text in GB18030 lies in the GB 2312 plane (both bytes from A1); in Big5 about half of the second bytes are lower,
    # in Latin text nearly all: letters without accents.
    pairs = high = i = 0
    while i < len(sample) - 1:
        if sample[i] < 0x80:
            i += 1
            continue
        pairs += 1
        high += sample[i] >= 0xA1 and sample[i + 1] >= 0xA1
        i += 2
    if pairs >= 4 and high >= 0.2 * pairs:
        big5 = _decodes(sample, "Big5")
        if (high >= 0.9 * pairs or not big5) and _decodes(sample, "GB18030"):
            return convert("GB18030", sure=False)
        if big5:
            return convert("Big5", sure=False)
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
