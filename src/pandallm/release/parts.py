"""The parts that blobs are made of: byte planes, zstd frames, and a reader that checks every length."""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import zstandard

from pandallm.errors import BadInput
from pandallm.release.floats import Unsigned


def planes(values: Unsigned) -> list[Unsigned]:
    """Byte planes of little-endian integers, lowest first."""
    columns = values.view(np.uint8).reshape(-1, values.dtype.itemsize)
    return [np.ascontiguousarray(columns[:, j]) for j in range(columns.shape[1])]


def join(planes: Sequence[Unsigned], dtype: np.dtype[Any]) -> Unsigned:
    columns = np.empty((planes[0].size, len(planes)), np.uint8)
    for j, plane in enumerate(planes):
        columns[:, j] = plane
    return columns.reshape(-1).view(dtype)


def compress(data: bytes | memoryview) -> bytes:
    """A frame of packed symbols. Few and long matches only: short ones cost more than the symbols' Huffman codes."""
    if not len(data):
        return b""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        1, source_size=len(data), strategy=zstandard.STRATEGY_FAST, min_match=7, hash_log=6
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


class Reader:
    """A blob read front to back; every step checks that the bytes are there."""

    def __init__(self, blob: bytes) -> None:
        self._blob, self._at = memoryview(blob), 0

    def take(self, count: int) -> memoryview:
        if count > len(self._blob) - self._at:
            raise BadInput("The delta is damaged: a chunk ends too early.")
        self._at += count
        return self._blob[self._at - count : self._at]

    def unpack(self, layout: str) -> tuple[int, ...]:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))

    def frame(self, length: int, raw: int) -> Unsigned:
        """A zstd frame of `length` bytes that must hold exactly `raw` bytes (nothing at all for none)."""
        data = self.take(length)
        if not raw and not length:
            return np.empty(0, np.uint8)
        try:
            # The frame's own claim is compared first: the decoder allocates what the frame says.
            if zstandard.frame_content_size(data) == raw:
                out = zstandard.ZstdDecompressor().decompress(data, max_output_size=raw, allow_extra_data=False)
                if len(out) == raw:
                    return np.frombuffer(out, np.uint8)
        except zstandard.ZstdError:
            pass
        raise BadInput("The delta is damaged: a compressed part does not hold what it should.")

    def end(self) -> None:
        if self._at != len(self._blob):
            raise BadInput("The delta is damaged: a chunk is longer than its contents.")
