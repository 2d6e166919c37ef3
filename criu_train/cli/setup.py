"""``criu-train setup``: get a CRIU that works on this kernel."""

from __future__ import annotations

import click


@click.command()
def setup() -> None:
    """Get a CRIU that works on this kernel.

    Uses the installed one if it passes a real dump and restore, else fetches a newer one from Debian into a
    directory of its own (/var/lib/criu-train/criu, or CRIU_TRAIN_PREFIX). The host's packages stay as they are.

    \b
    Examples:
      criu-train setup
      CRIU_TRAIN_PREFIX=/opt/criu-train criu-train setup
    """
    from rich.text import Text

    from criu_train.cli.console import console, line
    from criu_train.doctor.setup import set_up

    criu = set_up(lambda told: line(console, Text(told)))
    line(console, Text(f"ready: CRIU {criu.version} ({criu.origin})"))
