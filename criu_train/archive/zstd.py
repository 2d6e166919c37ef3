"""zstd over whole frames."""

from __future__ import annotations

from criu_train.store.zstd import ZstdDecompressor, ZstdError, compress

__all__ = ["Bytes", "ZstdError", "compress", "decompress_into"]

Bytes = bytes | bytearray | memoryview

# What is asked for at a time: larger results cost half as much time again, for fresh memory from the kernel.
_PIECE = 64 << 10


def decompress_into(data: Bytes, out: memoryview) -> int:
    """Decompress one frame into ``out``; the number of bytes. ZstdError when it is no whole frame or does not fit."""
    decompressor, done = ZstdDecompressor(), 0
    while not decompressor.eof:
        piece = decompressor.decompress(data, _PIECE)
        data = b""
        if done + len(piece) > len(out) or (not piece and decompressor.needs_input):
            raise ZstdError("not one whole frame of the expected size")
        out[done : done + len(piece)] = piece
        done += len(piece)
    if decompressor.unused_data:
        raise ZstdError("bytes follow the frame")
    return done
