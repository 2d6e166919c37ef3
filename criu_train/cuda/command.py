"""Command lines of the helper, and what of a tree concerns it."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); sys.dont_write_bytecode = True; "
    "from criu_train.cuda.helper import main; main(sys.argv[2])"
)
_LIBRARY = b"/libcuda.so"


# The first driver that takes along what NVML has open, which PyTorch uses (CRIU, plugins/cuda).
OLDEST_DRIVER = 570
_VERSION = "proc/driver/nvidia/version"
_LOADING_S = 30.0


def driver_version(root: Path = Path("/")) -> str | None:
    """Of NVIDIA's kernel module, as the kernel below ``root`` tells, None where there is none."""
    with contextlib.suppress(OSError):
        if match := re.search(r"Kernel Module.*?  (\d+[.\d]*)", (root / _VERSION).read_text(errors="replace")):
            return match[1]
    return None


def can_move_aside(version: str | None) -> bool:
    """Whether this driver can have GPU memory moved aside; what hides its version is taken at its word."""
    return version is None or int(version.partition(".")[0]) >= OLDEST_DRIVER


def load_driver(device: Path = Path("/dev/nvidia-uvm")) -> None:
    """Have NVIDIA's kernel modules loaded, where they are not since the boot.

    CUDA sees to it by itself, through this same program, but not in a training without the right to load modules.
    """
    program = shutil.which("nvidia-modprobe")
    if program is not None and not device.exists():
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run([program, "-c=0", "-u"], stdin=subprocess.DEVNULL, timeout=_LOADING_S, check=False)


def helper_command(action: Literal["aside", "back"]) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", _PROGRAM, _PACKAGE_PARENT, action]


def uses_cuda(pids: Sequence[int]) -> bool:
    """Whether any of these processes (as we number them) has loaded NVIDIA's driver library."""
    for pid in pids:
        with contextlib.suppress(OSError):
            if _LIBRARY in Path(f"/proc/{pid}/maps").read_bytes():
                return True
    return False


def gpu_memory(pids: Sequence[int]) -> int:
    """Bytes that these processes hold on GPUs, by NVML; where it does not tell whose, what all hold of these cards.

    0 where there is no NVML.
    """
    import pynvml  # quick, but of no use where there is no GPU

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        wanted, theirs, everybodys = set(pids), 0, 0
        for index in range(pynvml.nvmlDeviceGetCount()):
            card = pynvml.nvmlDeviceGetHandleByIndex(index)
            for process in pynvml.nvmlDeviceGetComputeRunningProcesses(card):
                held = process.usedGpuMemory or 0
                everybodys += held
                theirs += held if process.pid in wanted else 0
        return theirs or everybodys
    except pynvml.NVMLError:
        return 0
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()
