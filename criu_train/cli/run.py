"""``criu-train run``: supervise a training, from its newest snapshot if it was interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from criu_train.cli import completing
from criu_train.cli.parameters import DURATION, ENDPOINT, EVERY, PATTERN, SHARE, SIZE, WORDS, option
from criu_train.cli.settings import Settings


def supervision_options(command: Any) -> Any:
    """The options that ``run`` and ``restore`` share."""
    for decorate in reversed(
        (
            option(
                "--every",
                type=EVERY,
                default="30m",
                help="Time between two snapshots; 0 for no timer; auto: found out from what they cost.",
            ),
            option(
                "--every-steps", type=click.IntRange(min=1), default=None, help="A snapshot after so many steps, too."
            ),
            option(
                "--every-epochs", type=click.IntRange(min=1), default=None, help="A snapshot after so many epochs, too."
            ),
            option(
                "--overhead",
                type=SHARE,
                default="1%",
                help="With --every auto: the most of the time that snapshots may hold the training up.",
            ),
            option(
                "--mtbf",
                type=DURATION,
                default=None,
                help="With --every auto: the time between two interruptions; default: as seen in this run, once a day "
                "to begin with.",
            ),
            option(
                "--warmup",
                type=DURATION,
                default="1m",
                help="When a first snapshot shows whether they work at all, unless the timer comes sooner; 0 for none.",
            ),
            option(
                "--keep",
                type=click.IntRange(min=1),
                default=5,
                help="How many complete snapshots to keep; more for a while after a restore.",
            ),
            option("--max-restarts", type=click.IntRange(min=0), default=3, help="Restarts in a row without progress."),
            option(
                "--progress-limit",
                type=DURATION,
                default="10m",
                help="How long a restored training that was at work at its dump may stand still before an older "
                "snapshot is tried; 0 for ever.",
            ),
            option("--grace", type=DURATION, default="25s", help="Time between SIGTERM and the end."),
            option("--user", default=None, help="Run the training as this user."),
            option(
                "--tcp",
                type=click.Choice(["close-external", "keep"]),
                default="close-external",
                help="Connections to the outside after a restore: closed, so that the training makes new ones, or kept "
                "for peers that waited. Those within the training always live on.",
            ),
            option(
                "--align-timeout",
                type=DURATION,
                default="10s",
                help="How long a dump waits for the end of a step, where the training uses criu_train.hooks; 0: not.",
            ),
            option("--dump-timeout", type=DURATION, default="5m", help="Time limit of one dump, beside its memory's."),
            option("--restore-timeout", type=DURATION, default="10m", help="Time limit of one restore."),
            option("--file-limit", type=SIZE, default="1G", help="Largest file whose bytes are saved."),
            option(
                "--memory-limit",
                type=SIZE,
                default=None,
                help="Most memory kept for captures; default half of what is free.",
            ),
            option(
                "--on-supervisor-loss",
                type=click.Choice(["keep", "stop"]),
                default="keep",
                help="When the supervisor itself is killed: the training goes on and can be taken over, or is stopped.",
            ),
            option(
                "--prove",
                type=click.Choice(["every", "newest", "never"]),
                default="never",
                help="Restore snapshots on trial, beside the training: every one, or whichever is newest by then. "
                "Takes as much memory as the training.",
            ),
            option(
                "--progress-regex",
                type=PATTERN,
                default=None,
                help="How to find step, epoch and metrics in the training's output, by named groups; what frameworks "
                "print is understood without.",
            ),
            option(
                "--metrics-port",
                type=ENDPOINT,
                default=None,
                help="Serve metrics for Prometheus at this port, of this machine's loopback address unless told "
                "otherwise.",
            ),
            option(
                "--metrics-textfile",
                type=click.Path(dir_okay=False, resolve_path=True, path_type=Path),
                default=None,
                help="Write the same metrics to this file, for node_exporter's textfile collector.",
            ),
            option(
                "--on-event",
                default=None,
                help="Run this shell command for each event but progress, the event as JSON on its stdin.",
            ),
            option(
                "--workspace",
                type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
                multiple=True,
                help="A directory beside the working directory that the training works in (repeatable).",
            ),
        )
    ):
        command = decorate(command)
    return command


@click.command(context_settings={"allow_interspersed_args": False})
@supervision_options
@option(
    "--tty", is_flag=True, help="Give the training a terminal of its own: progress bars look as they do without us."
)
@option(
    "--capabilities",
    type=click.Choice(["drop", "keep"]),
    default="drop",
    help="Of root's rights, those that concern the machine and no training (kernel modules, clock, reboot ...): "
    "dropped, or kept for a training that needs them. Decided when a run begins; restores leave them as they are.",
)
@option("--fresh", is_flag=True, help="Start a new run, whatever the store holds.")
@option(
    "--on-restore-failure",
    type=click.Choice(["cold", "fail"]),
    default="cold",
    help="When no snapshot can be restored: start from the beginning, or stop.",
)
@option(
    "--cold-command",
    type=WORDS,
    default=None,
    help="What to start in place of COMMAND where a run that had begun before has to begin again, say with the last "
    "checkpoint of its own: split into words as a shell does, and run without one.",
)
@click.argument("command", nargs=-1, required=True, metavar="-- COMMAND...", shell_complete=completing.command)
@click.pass_obj
def run(settings: Settings, /, command: tuple[str, ...], **chosen: Any) -> None:
    """Run COMMAND under supervision; the same line goes on where it was interrupted.

    The newest snapshot of the interrupted run that works is restored; without one, COMMAND starts from the beginning.
    A training that still runs because only its supervisor was lost is taken over as it is.

    \b
    Examples:
      criu-train run -- python train.py
      criu-train run --every 10m --keep 3 -- torchrun --nproc-per-node 2 train.py
      criu-train run --fresh -- python train.py
      criu-train run --cold-command "python train.py --resume last.pt" -- python train.py
    """
    from criu_train.cli.reporter import ConsoleReporter
    from criu_train.supervisor.entry import run_command

    reporter = ConsoleReporter()
    try:
        code = run_command(settings.store, command, options_of(settings, chosen), reporter, settings.key)
    finally:
        reporter.close()
    raise click.exceptions.Exit(code)


def options_of(settings: Settings, chosen: dict[str, Any]) -> Any:
    """The supervisor's options from what click has parsed."""
    from criu_train.supervisor.options import RunOptions

    never = {name: chosen[name] or None for name in ("every", "warmup", "progress_limit")}
    return RunOptions(**{**chosen, **never, "umask": settings.umask})
