"""The action script through which CRIU, with the tree frozen, asks init for the cut.

CRIU closes every descriptor above stderr before it runs a script, so the two meet at named FIFOs. A shell script of
four lines starts in about a millisecond, an interpreter in twenty, and the tree stands still meanwhile.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

_SCRIPT = """#!/bin/sh
[ "$CRTOOLS_SCRIPT_ACTION" = post-dump ] || exit 0
echo cut > {ask} && read -r answer < {answer} && [ "$answer" = go ]
"""


def prepare_hook(directory: Path) -> Path:
    """Make the FIFOs and the script in ``directory``. Returns the script."""
    directory.mkdir(mode=0o700, exist_ok=True)
    ask, answer, script = directory / "ask", directory / "answer", directory / "post-dump"
    for fifo in (ask, answer):
        fifo.unlink(missing_ok=True)
        os.mkfifo(fifo, 0o600)
    script.write_text(_SCRIPT.format(ask=shlex.quote(str(ask)), answer=shlex.quote(str(answer))))
    script.chmod(0o700)
    return script
