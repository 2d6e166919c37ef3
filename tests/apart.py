"""A machine of its own for each of several test processes, as far as our tests look at it.

Tests with CRIU look at everything that a machine has: mounts, packet rules, /dev/shm. So that two can run at a time,
each process gets mounts and a network of its own (loopback only), an empty /run and /dev/shm, and /tmp and
/var/tmp on the disk. It is for tests that need no other network: those are marked.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile

from harness import ROOT

WANTED = "TESTS_APART"  # in the environment
_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000


def enter(base: str) -> None:
    """From here on; it ends with the process. ``base``: a directory in /tmp that is to be there. Raises OSError,
    CalledProcessError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    place = tempfile.mkdtemp(prefix="criu-train-apart-", dir="/var/tmp")
    temporary, on_disk = os.path.join(place, "tmp"), os.path.join(place, "var")
    for directory in (temporary, on_disk):
        os.mkdir(directory)
        os.chmod(directory, 0o1777)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    for covered, cover in (("/tmp", temporary), ("/var/tmp", on_disk)):
        if ROOT.is_relative_to(covered):  # the project itself stays in sight
            window = os.path.join(cover, ROOT.relative_to(covered))
            os.makedirs(window)
            subprocess.run(["mount", "--bind", str(ROOT), window], check=True)
        subprocess.run(["mount", "--rbind", cover, covered], check=True)
    for call in (
        ["mkdir", "-p", base],
        ["mount", "-t", "tmpfs", "shm", "/dev/shm"],
        ["mount", "-t", "tmpfs", "-o", "mode=755", "run", "/run"],
        ["ip", "link", "set", "lo", "up"],
    ):
        subprocess.run(call, check=True)
