"""Writes down what a process sees of the world around it."""

from __future__ import annotations

import json
import os
import resource
import signal
from pathlib import Path

LIMITS = [name for name in dir(resource) if name.startswith("RLIMIT_")]
umask = os.umask(0)
os.umask(umask)
report = {
    "environment": dict(os.environ),
    "cwd": str(Path.cwd()),
    "user": [*os.getresuid(), *os.getresgid(), *os.getgroups()],
    "umask": umask,
    "limits": {name: resource.getrlimit(getattr(resource, name)) for name in LIMITS},
    "nice": os.nice(0),
    "ignored": [number for number in signal.valid_signals() if signal.getsignal(number) == signal.SIG_IGN],
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "stdin": Path("/proc/self/fd/0").readlink().name,
    "oom_score_adj": Path("/proc/self/oom_score_adj").read_text(),
    "cpus": sorted(os.sched_getaffinity(0)),
}
Path("report.json").write_text(json.dumps(report, sort_keys=True))
