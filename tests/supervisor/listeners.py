"""A reporter that remembers its warnings."""

from __future__ import annotations

from typing import Any


class Warned:
    """Takes whatever it is told."""

    def __init__(self) -> None:
        self.warnings: list[tuple[str, str | None]] = []

    def warning(self, what: str, tip: str | None = None) -> None:
        self.warnings.append((what, tip))

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None
