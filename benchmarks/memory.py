"""Memory as a training has it: pages of 4 KiB, every one of them there."""

from __future__ import annotations

import mmap
import random
import sys
import time


def filled(gib: float, *, half_zero: bool = False) -> mmap.mmap:
    """Incompressible; or every other MiB zeros, written as such."""
    memory = mmap.mmap(-1, int(gib * 2**30), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    piece = 1 << 20
    noise, zeros = random.Random(1), bytes(piece)
    for number, at in enumerate(range(0, len(memory) - piece + 1, piece)):
        memory[at : at + piece] = zeros if half_zero and number % 2 else noise.randbytes(piece)
    return memory


def main() -> None:
    """Copies the same bytes into memory that is there already, whenever a line comes in; prints the seconds."""
    source = filled(float(sys.argv[-1]), half_zero="--half-zero" in sys.argv)
    target = mmap.mmap(-1, len(source), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    target.madvise(mmap.MADV_HUGEPAGE)
    memoryview(target)[:] = memoryview(source)
    for _ in sys.stdin:
        began = time.perf_counter()
        memoryview(target)[:] = memoryview(source)
        print(f"{time.perf_counter() - began:.6f}", flush=True)


if __name__ == "__main__":
    main()
