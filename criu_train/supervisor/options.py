"""What the user may choose for one run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from criu_train.criu.connections import TcpPolicy


@dataclass(frozen=True)
class Endpoint:
    """A TCP port of an address of this machine."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class RunOptions:
    """Durations in seconds, sizes in bytes. ``every``: None for no timer, or found out from what dumps cost, see
    ``interval``: within ``overhead`` (a share of the time), by ``mtbf`` or, None, by the failures seen.
    ``every_steps``, ``every_epochs``: None for none. ``warmup`` None no trial dump,
    ``progress_limit`` None that a restored training may stand still for ever.

    ``cold_command``: what begins a run again that no snapshot can be restored of, None for its own command.
    ``memory_limit``: the most memory kept for captures, None for half of what is free. ``umask``: the training's.
    ``on_event``: for the shell.
    """

    every: float | Literal["auto"] | None = 1800.0
    every_steps: int | None = None
    every_epochs: int | None = None
    overhead: float = 0.01
    mtbf: float | None = None
    warmup: float | None = 60.0
    keep: int = 5
    fresh: bool = False
    on_restore_failure: Literal["cold", "fail"] = "cold"
    cold_command: tuple[str, ...] | None = None
    max_restarts: int = 3
    progress_limit: float | None = 600.0
    grace: float = 25.0
    user: str | None = None
    tcp: TcpPolicy = "close-external"
    tty: bool = False
    capabilities: Literal["drop", "keep"] = "drop"
    prove: Literal["every", "newest", "never"] = "never"
    on_supervisor_loss: Literal["keep", "stop"] = "keep"
    align_timeout: float = 10.0
    dump_timeout: float = 300.0
    restore_timeout: float = 600.0
    file_limit: int = 1 << 30
    memory_limit: int | None = None
    umask: int = 0o022
    workspace: tuple[Path, ...] = field(default=())
    progress_regex: re.Pattern[str] | None = None
    metrics_port: Endpoint | None = None
    metrics_textfile: Path | None = None
    on_event: str | None = None
