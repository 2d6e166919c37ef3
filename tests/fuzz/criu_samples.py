"""Real images of a small tree, dumped once."""

from __future__ import annotations

import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "criu"))

from test_images import TREE
from trial import ROOT_PID, cell, python, until

from criu_train.criu.command import dump_command
from criu_train.criu.find import find_criu


def images_directory(place: Path) -> Path:
    """A copy of the images, to be spoiled."""
    return Path(shutil.copytree(_dumped(), place / "images", dirs_exist_ok=True))


@cache
def _dumped() -> Path:
    here = Path(tempfile.mkdtemp(prefix="criu-train-images-"))
    (here / "read").write_text("read only")
    (here / "held").mkdir()
    (here / "images").mkdir()
    with cell("run", *python(TREE, str(here))) as tree:
        until((here / "ready").exists)
        images, log = here / "images", here / "dump.log"
        command = dump_command(find_criu(), root_pid=ROOT_PID, images=images, log=log, leave_running=True)
        assert tree.criu(command) == 0, log.read_text()[-2000:]
    for pages in images.glob("pages-*.img"):
        pages.unlink()
    return images
