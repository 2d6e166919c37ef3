"""What the probe found out about a CRIU on this kernel, remembered beside the private prefix.

A verdict holds for one binary (path, time, size) on one kernel (release and build): after an upgrade of either
nothing is known again.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

NetworkLock = Literal["nftables", "iptables"]

DEFAULT_PREFIX = Path("/var/lib/criu-train/criu")


@dataclass(frozen=True)
class Verdict:
    """``passed``: it dumped and restored a real tree. ``detail``: one line, the reason when it did not."""

    passed: bool
    detail: str
    version: str
    network_lock: NetworkLock
    probed_at: str


def private_prefix() -> Path:
    """Where the private CRIU is unpacked (``CRIU_TRAIN_PREFIX`` overrides the default)."""
    return Path(os.environ.get("CRIU_TRAIN_PREFIX") or DEFAULT_PREFIX).absolute()


def verdict_of(binary: Path) -> Verdict | None:
    """What is known about this binary on the running kernel; None when it was never probed here."""
    entry = _read().get(_key(binary))
    if not isinstance(entry, dict):
        return None
    try:
        return Verdict(**entry)
    except TypeError:  # written by another version: probe again
        return None


def remember(binary: Path, verdict: Verdict) -> None:
    """Keep a verdict. A place that can't be written to is no failure: the probe then runs again next time."""
    path = _path()
    known = {key: entry for key, entry in _read().items() if not key.startswith(f"{binary}|")}
    known[_key(binary)] = asdict(verdict)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
        draft.replace(path)


def _path() -> Path:
    return private_prefix().parent / "probes.json"


def _key(binary: Path) -> str:
    info, kernel = binary.stat(), os.uname()
    return f"{binary}|{info.st_mtime_ns}|{info.st_size}|{kernel.release}|{kernel.version}"


def _read() -> dict[str, object]:
    try:
        known = json.loads(_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
