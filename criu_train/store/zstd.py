"""zstd, as the standard library has it from Python 3.14 on.

Import it where it is used: most commands, and a supervisor that waits, have no use for it.
"""

from __future__ import annotations

import sys

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor, ZstdError, compress
    from compression.zstd import open as open_zstd
else:
    from backports.zstd import ZstdDecompressor, ZstdError, compress
    from backports.zstd import open as open_zstd

__all__ = ["ZstdDecompressor", "ZstdError", "compress", "open_zstd"]
