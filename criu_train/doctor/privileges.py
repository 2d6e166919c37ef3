"""What this process must be allowed, asked before CRIU is: what it says without these points anywhere but here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from criu_train.errors import EnvironmentUnfitError

CAPABILITIES = {  # bit numbers of linux/capability.h
    "CAP_DAC_OVERRIDE": 1,
    "CAP_DAC_READ_SEARCH": 2,  # to learn from fanotify's handles which directory an event speaks of
    "CAP_NET_ADMIN": 12,  # to lock the network and set the sizes of sockets' buffers
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYS_TIME": 25,  # to give a restored tree its clock, which is a time namespace's
}
FOR_ANOTHER_USER = {"CAP_SYS_RESOURCE": 24}  # to read the limits of somebody else's processes
_NOTHING = "0"


@dataclass(frozen=True)
class Lack:
    """What is missing, and what to do about it; one line each."""

    what: str
    tip: str


def lack(*, another_user: bool = False) -> Lack | None:
    """None when everything is there. ``another_user``: the training is to run as somebody else."""
    if os.geteuid() != 0:
        tip = "run it as root, for example with sudo; the training can get --user NAME; in a container: --privileged"
        return Lack(f"user {os.geteuid()} is not root", tip)
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    effective = int(fields["CapEff"], 16)
    needed = CAPABILITIES | (FOR_ANOTHER_USER if another_user else {})
    lacking = [name for name, bit in needed.items() if not effective >> bit & 1]
    if lacking:
        tip = "in a container: --privileged, or --cap-add for each; elsewhere: become root with sudo"
        return Lack(f"root without {', '.join(lacking)}", tip)
    if fields.get("Seccomp", _NOTHING).strip() != _NOTHING:
        # The kernel lets nobody look through or suspend the filters of others who is under one himself.
        tip = "in a container: --privileged, or --security-opt seccomp=unconfined; elsewhere: start it without one"
        return Lack("a seccomp filter around criu-train keeps CRIU from dumping", tip)
    return None


def require(*, another_user: bool = False) -> None:
    """Raises EnvironmentUnfitError unless everything is there."""
    if (found := lack(another_user=another_user)) is not None:
        raise EnvironmentUnfitError(f"processes can't be dumped and restored here: {found.what}", tip=found.tip)
