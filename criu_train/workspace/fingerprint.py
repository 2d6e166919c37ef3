"""What this machine is: kernel and processor; its GPUs; and how a file is known again that a snapshot names."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from criu_train.cuda.command import driver_version
from criu_train.store.environment import Gpu
from criu_train.store.manifest import Cpu, ExternalFile
from criu_train.workspace.elf import build_id

# Kernel modules that tell their version when they come with a driver of their own.
_MODULES = ("nvidia", "amdgpu", "habanalabs", "xe")


@dataclass(frozen=True)
class Fingerprint:
    """What matters about this machine, for the manifest."""

    kernel: str
    boot_id: str
    cpu: Cpu


def fingerprint() -> Fingerprint:
    """This machine, now."""
    return Fingerprint(
        kernel=os.uname().release,
        boot_id=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        cpu=parse_cpuinfo(Path("/proc/cpuinfo").read_text(), os.uname().machine),
    )


def parse_cpuinfo(text: str, arch: str) -> Cpu:
    """The first processor in ``/proc/cpuinfo``; x86 calls its features flags, ARM calls them Features."""
    first = text.strip().split("\n\n")[0]
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    flags = facts.get("flags") or facts.get("Features") or ""
    return Cpu(arch, facts.get("model name") or facts.get("CPU part") or "unknown", tuple(sorted(flags.split())))


def gpu(root: Path = Path("/")) -> Gpu:
    """What the kernel tells about GPUs, below ``root``; no driver's library is asked."""
    drivers = {name: _text(root / "sys/module" / name / "version") for name in _MODULES}
    if version := driver_version(root):
        drivers["nvidia"] = version
    devices = []
    for place in _places(root / "proc/driver/nvidia/gpus", "*/information"):
        devices += re.findall(r"^Model:\s*(.+?)\s*$", _text(place), re.MULTILINE)
    for place in _places(root / "sys/class/kfd/kfd/topology/nodes", "*/gpu_id"):
        if _text(place) not in ("", "0"):  # 0: a processor
            devices.append(_text(place.parent / "name") or "AMD GPU")
    return Gpu(tuple(f"{name} {version}" for name, version in drivers.items() if version), tuple(devices))


def external_file(path: str) -> ExternalFile:
    """What is needed to know a file again that a snapshot names and does not hold; raises OSError."""
    status = Path(path).stat()
    return ExternalFile(path, status.st_size, status.st_mtime_ns, status.st_mode, build_id(Path(path)))


def _places(directory: Path, pattern: str) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(directory.glob(pattern))
    return []


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace").strip()
    return ""
