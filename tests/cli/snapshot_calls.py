"""How tests call ``criu-train snapshot``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner, Result

from criu_train.cli.settings import Settings
from criu_train.cli.snapshot import snapshot

Call = Callable[..., Result]
KEYS = [
    "id", "run", "created_at", "status", "proven", "abandoned", "trigger", "step", "metrics", "frozen_time_us",
    "memory_bytes", "stored_bytes", "added_bytes", "tasks", "command",
]  # fmt: skip


def run(store: Path, *arguments: str) -> Result:
    """Run a command; failures that the root command would tell are raised."""
    result = CliRunner().invoke(snapshot, arguments, obj=Settings(store))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
