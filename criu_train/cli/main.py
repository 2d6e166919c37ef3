"""The root command, and the one place where expected failures become a line, a tip and an exit code."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import NoReturn

import click

from criu_train import __version__
from criu_train.cli.config import ConfiguredGroup
from criu_train.cli.parameters import option
from criu_train.cli.settings import DEFAULT_STORE, Settings
from criu_train.errors import EXIT_OURS, CriuTrainError

PROGRAM = "criu-train"
_COMPLETE = "_CRIU_TRAIN_COMPLETE"  # set by the scripts of `completion install`
_COMMANDS = {
    "attach": "criu_train.cli.attach:attach",
    "completion": "criu_train.cli.completion:completion",
    "doctor": "criu_train.cli.doctor:doctor",
    "dump": "criu_train.cli.dump:dump",
    "report": "criu_train.cli.report:report",
    "restore": "criu_train.cli.restore:restore",
    "run": "criu_train.cli.run:run",
    "setup": "criu_train.cli.setup:setup",
    "snapshot": "criu_train.cli.snapshot:snapshot",
    "status": "criu_train.cli.status:status",
}


@click.group(
    cls=ConfiguredGroup,
    lazy=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_STORE,
    help="The directory of snapshots of this job.",
)
@option(
    "--key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="The key of an encrypted store: 32 random bytes or more. A store that is made with it is encrypted.",
)
@click.version_option(__version__, prog_name=PROGRAM)
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


def main() -> None:
    """Entry point of the ``criu-train`` program."""
    if _COMPLETE in os.environ:
        _complete_a_word()
    try:
        sys.exit(cli.main(prog_name=PROGRAM, complete_var=_COMPLETE, standalone_mode=False) or 0)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except CriuTrainError as error:
        from criu_train.cli.console import tell_error

        tell_error(error)
        sys.exit(error.exit_code)
    except Exception:
        from criu_train.cli.console import errors

        log = _log_unexpected()
        errors.print(f"[bold red]error:[/] something unexpected went wrong; the details are in {log}", soft_wrap=True)
        errors.print("[bold]tip:[/] please report it with that file", soft_wrap=True)
        sys.exit(EXIT_OURS)


def _complete_a_word() -> NoReturn:
    """Answer a shell; whatever is wrong, the line that somebody types stays as it is."""
    try:
        with redirect_stderr(StringIO()):
            from criu_train.cli.shells import use_our_scripts

            use_our_scripts()
            cli.main(prog_name=PROGRAM, complete_var=_COMPLETE)
    except (Exception, SystemExit):
        sys.exit(0)
    sys.exit(0)


def _log_unexpected() -> Path:
    import platform
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="criu-train-error-", suffix=".log", delete=False) as file:
        file.write(f"criu-train {__version__}, Python {sys.version}, {platform.platform()}\n{sys.argv}\n\n")
        file.write(traceback.format_exc())
    return Path(file.name)
