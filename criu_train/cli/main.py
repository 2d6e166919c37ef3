"""The root command, and the one place where expected failures become a line, a tip and an exit code."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from criu_train import __version__
from criu_train.cli.attach import attach
from criu_train.cli.console import errors, tell_error
from criu_train.cli.doctor import doctor
from criu_train.cli.dump import dump
from criu_train.cli.report import report
from criu_train.cli.restore import restore
from criu_train.cli.run import run
from criu_train.cli.settings import DEFAULT_STORE, Settings
from criu_train.cli.setup import setup
from criu_train.cli.snapshot import snapshot
from criu_train.cli.status import status
from criu_train.errors import EXIT_OURS, CriuTrainError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_STORE,
    envvar="CRIU_TRAIN_STORE",
    show_default=True,
    show_envvar=True,
    help="The directory of snapshots of this job.",
)
@click.option(
    "--key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    envvar="CRIU_TRAIN_KEY_FILE",
    show_envvar=True,
    help="The key of an encrypted store: 32 random bytes or more. A store that is made with it is encrypted.",
)
@click.version_option(__version__, prog_name="criu-train")
@click.pass_context
def cli(ctx: click.Context, store: Path, key_file: Path | None) -> None:
    """Make a long training run unbreakable without touching its code.

    \b
    Examples:
      criu-train setup                               once on each machine
      criu-train run -- python train.py              run it; the same line goes on after a crash
      criu-train run --every 10m -- python train.py  a snapshot every ten minutes
      criu-train snapshot list                       what is there to go back to
    """
    # Whatever we and the programs we start make is for us alone; only the training gets the caller's umask.
    umask = os.umask(0o077)
    ctx.call_on_close(lambda: os.umask(umask))
    ctx.obj = Settings(store.absolute(), key_file, umask)


for command in (run, dump, snapshot, restore, attach, status, report, doctor, setup):
    cli.add_command(command)


def main() -> None:
    """Entry point of the ``criu-train`` program."""
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except CriuTrainError as error:
        tell_error(error)
        sys.exit(error.exit_code)
    except Exception:
        log = _log_unexpected()
        errors.print(f"[bold red]error:[/] something unexpected went wrong; the details are in {log}", soft_wrap=True)
        errors.print("[bold]tip:[/] please report it with that file", soft_wrap=True)
        sys.exit(EXIT_OURS)


def _log_unexpected() -> Path:
    import platform
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="criu-train-error-", suffix=".log", delete=False) as file:
        file.write(f"criu-train {__version__}, Python {sys.version}, {platform.platform()}\n{sys.argv}\n\n")
        file.write(traceback.format_exc())
    return Path(file.name)
