"""All that is printed for people goes through here: results to stdout, what we have to say meanwhile to stderr."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.text import Text

from criu_train.errors import CriuTrainError

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def print_json(content: Any) -> None:
    """For machines: no colours, no wrapping."""
    print(json.dumps(content, indent=2))


def say(text: str, style: str = "") -> None:
    """One line of ours to stderr; the training's own output has stdout to itself."""
    errors.print(Text.assemble(("criu-train: ", "bold cyan"), (text, style)), soft_wrap=True)


def tell_error(error: CriuTrainError) -> None:
    """What happened and what to do, a line each."""
    errors.print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
    errors.print(Text.assemble(("tip: ", "bold"), error.tip), soft_wrap=True)
