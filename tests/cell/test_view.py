"""A view of the file system of one's own, on mounts as they come."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ENTER = """
import sys
from pathlib import Path
from criu_train.cell import view
view.enter(Path(sys.argv[1]))
Path(sys.argv[2], "made").write_text("in the view")
print(sorted(one.name for one in Path(sys.argv[2]).iterdir()))
"""


def test_a_mount_that_another_one_covers_is_no_part_of_the_view(tmp_path: Path) -> None:
    (tmp_path / "place" / "below").mkdir(parents=True)
    (tmp_path / "scratch").mkdir()
    script = (
        'mount -t tmpfs one "$1/place/below" && mount -t tmpfs two "$1/place" && touch "$1/place/seen" && shift && "$@"'
    )
    call = [sys.executable, "-c", ENTER, str(tmp_path / "scratch"), str(tmp_path / "place")]
    unshare = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", str(tmp_path)]
    done = subprocess.run([*unshare, *call], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "['made', 'seen']\n"), done.stderr
    assert list((tmp_path / "place").iterdir()) == [tmp_path / "place" / "below"]
