"""The supervisor's reporter on a terminal."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from criu_train.cell.records import Ended
from criu_train.cli.bar import Phase
from criu_train.cli.console import Teller, errors, line
from criu_train.cli.console import say as say_now
from criu_train.errors import CriuTrainError
from criu_train.store.snapshot import Snapshot
from criu_train.supervisor.cause import describe_end
from criu_train.supervisor.restoring import Attempt
from criu_train.units import ago, format_duration, format_size

# A table's cells break words below that.
_TABLE = 100


class ConsoleReporter:
    """One line a thing; a table where several snapshots were tried. No method raises or waits."""

    def __init__(self) -> None:
        self._phase = Phase(errors)
        self._restoring = ""
        self._teller = Teller(self._phase.turn)

    def close(self) -> None:
        """Wait a moment for the last lines to be printed."""
        self._teller.tell(self._phase.clear)
        self._teller.close()

    def _say(self, text: str, style: str = "") -> None:
        self._teller.tell(self._phase.clear)
        self._teller.tell(lambda: say_now(text, style))

    def interrupted(self, cause: str) -> None:
        self._say(f"the training was interrupted: {cause}", "yellow")

    def restoring(self, snapshot: str, memory_bytes: int, phase: str) -> None:
        self._teller.tell(lambda: self._show(snapshot, f"restoring {snapshot}, {format_size(memory_bytes)}", phase))

    def _show(self, snapshot: str, what: str, phase: str) -> None:
        if not self._phase.show(f"{what}: {phase}") and snapshot != self._restoring:
            say_now(what)
        self._restoring = snapshot

    def attempts(self, attempts: Sequence[Attempt]) -> None:
        self._teller.tell(self._phase.clear)
        if any(attempt.reason is not None for attempt in attempts):
            self._teller.tell(lambda: print_attempts(attempts))

    def restored(self, snapshot: Snapshot, summary: str, notes: Sequence[str], warnings: Sequence[str]) -> None:
        self._say(f"restored {snapshot.id}, taken {ago(snapshot.created_at)}; {summary}", "green")
        for note in notes:
            self._say(note)
        for warning in warnings:
            self.warning(warning)

    def adopted(self, init_pid: int) -> None:
        self._say(f"the training runs on in its cell (init_pid {init_pid}) without a supervisor: taken over")

    def cold_start(self, reason: str, instead: Sequence[str] | None) -> None:
        self._say(f"cold start: {reason}" + (f"; by the cold command: {shlex.join(instead)}" if instead else ""))

    def started(self, supervisor_pid: int, plan: str, trial_s: float | None) -> None:
        if trial_s is not None:
            plan += f", one in {format_duration(trial_s)} to see that it works"
        self._say(f"watching, {plan}; kill -USR1 {supervisor_pid} takes one now")

    def warning(self, what: str, tip: str | None = None) -> None:
        self._say(f"warning: {what}" + (f" (tip: {tip})" if tip else ""), "yellow")

    def dumped(self, snapshot: Snapshot, seconds: float, notes: Sequence[str]) -> None:
        told = snapshot.manifest
        assert told is not None
        added = told.stored_bytes if told.added_bytes is None else told.added_bytes
        pause = f", training paused {format_duration(told.frozen_time_us / 1e6)}" if told.frozen_time_us else ""
        self._say(
            f"snapshot {snapshot.id} ({told.trigger}): {format_size(told.memory_bytes)} of memory{pause}, "
            f"{format_size(added)} added to the store in {format_duration(seconds)}"
        )
        for note in notes:
            self.warning(note)

    def dump_failed(self, error: CriuTrainError) -> None:
        self._say(f"dump failed: {error}", "bold yellow")
        self._say(f"tip: {error.tip}")

    def trial_failed(self, error: CriuTrainError) -> None:
        self._say("SNAPSHOTS OF THIS TRAINING DO NOT WORK: if it is interrupted now, all is lost", "bold red")
        self._say(f"the trial dump failed: {error}", "bold red")
        self._say(f"tip: {error.tip}")

    def stopping(self, number: signal.Signals, grace: float) -> None:
        self._say(f"{number.name}: a last snapshot within {format_duration(grace)}, then the end")

    def ended(self, ended: Ended) -> None:
        self._say(f"the training is over: {describe_end(ended)}", "green" if ended.code == 0 else "red")

    def backoff(self, seconds: float, restart: int, of: int) -> None:
        self._say(f"restart {restart} of {of} in {format_duration(seconds)}")


def print_attempts(attempts: Sequence[Attempt]) -> None:
    """Why snapshots were passed over: a table, on narrow terminals a paragraph each."""
    outcomes = [Text(one.reason) if one.reason else Text("restored", style="green") for one in attempts]
    if errors.width >= _TABLE:
        table = Table(title="Snapshots tried", title_justify="left")
        table.add_column("snapshot", no_wrap=True)
        table.add_column("outcome")
        table.add_column("what to do")
        for one, outcome in zip(attempts, outcomes, strict=True):
            table.add_row(one.snapshot, outcome, Text(one.tip or ""))
        errors.print(table)
        return
    errors.print("Snapshots tried", style="italic")
    for one, outcome in zip(attempts, outcomes, strict=True):
        line(errors, Text.assemble((one.snapshot, "bold"), "  ", outcome))
        if one.tip:
            line(errors, Text.assemble(("  tip: ", "bold"), one.tip))
