#!/bin/bash
# A training that reads its data from a decompressor's pipe and is logged by tee.
set -euo pipefail
here=$(dirname "$0")

"$PYTHON" - "$1" << 'END' | zstd -q -o data.zst
import sys
import numpy as np
rng = np.random.default_rng(3)
truth = rng.normal(size=30)
for _ in range(int(sys.argv[1])):
    block = rng.normal(size=(200, 30))
    np.savetxt(sys.stdout, np.column_stack([block, block @ truth + rng.normal(size=200)]), fmt="%.8g", delimiter=",")
END
zstd -dc data.zst | grep -v '^#' | "$PYTHON" "$here/online.py" | tee train.log
sha256sum data.zst weights.txt > SHA256SUMS
