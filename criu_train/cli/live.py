"""``criu-train status --watch``: drawn again every second on a terminal, lines of what is new elsewhere."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from criu_train.cli.console import can_redraw, line
from criu_train.cli.overview import Happened, Looker, Overview
from criu_train.cli.snapshot_view import NOTHING, count, local_time, loss
from criu_train.cli.sparkline import sparkline
from criu_train.store.store import Store
from criu_train.units import ago, format_duration, format_size

_EVERY_S = 1.0
_TELL_PROGRESS_S = 10.0  # where lines stay
_STATES = {"running": "green", "dumping": "cyan", "restoring": "cyan", "finished": "bold", "lost": "bold red"}
_LABEL = 10
_RECENT = 6  # events
_ROW = 40  # blocks, at most


def watch(store: Store, console: Console, pattern: re.Pattern[str] | None) -> None:
    """Until the run is over or somebody presses Ctrl-C."""
    looker = Looker(store, pattern)
    try:
        seen = _draw(looker, console) if can_redraw(console) else _tell(looker, console)
    except KeyboardInterrupt:
        return
    line(console, Text(ending(seen)))


def ending(seen: Overview) -> str:
    """Why there is nothing more to see."""
    if seen.state == "lost":
        return "supervisor and training are gone: the same `criu-train run` goes on where they were interrupted"
    last = seen.happened[-1].text if seen.happened else ""
    if last.startswith("stopped"):
        return f"the run {last}"
    return f"the run is over: it ended with exit code {seen.exit_code}"


def _draw(looker: Looker, console: Console) -> Overview:
    with Live(console=console, auto_refresh=False) as live:
        while True:
            seen = looker.look()
            live.update(view(seen, console.width, console.height), refresh=True)
            if not seen.alive:
                return seen
            time.sleep(_EVERY_S)


def _tell(looker: Looker, console: Console) -> Overview:
    state, progress, told_at = "", "", 0.0
    while True:
        seen = looker.look()
        for one in seen.news[-_RECENT:] if not state else seen.news:
            line(console, Text(f"{_clock(one)}  {one.text}"))
        if seen.state != state:
            state = seen.state
            line(console, Text(f"state: {state}"))
        now = ", ".join(f"{name.lower()} {text.plain}" for name, text in _progress(seen))
        if now != progress and time.monotonic() - told_at >= _TELL_PROGRESS_S:
            progress, told_at = now, time.monotonic()
            line(console, Text(now))
        if not seen.alive:
            return seen
        time.sleep(_EVERY_S)


def view(seen: Overview, width: int, height: int) -> Group:
    """As wide and high as there is room; an id is shown whole or not at all."""
    facts = _grid()
    for name, text in (("State", _state(seen)), *_progress(seen), *_plans(seen)):
        facts.add_row(name, text)
    blocks = max(1, min(_ROW, width - _LABEL - len("  1023.9 MiB")))
    for name, text in _rows(seen, blocks):
        facts.add_row(name, text)
    room = max(1, height - facts.row_count - 3)
    events = Table.grid(padding=(0, 1, 0, 0))
    events.add_column(style="dim", no_wrap=True, min_width=len("00:00:00"))
    events.add_column(no_wrap=True, overflow="ellipsis")
    for one in seen.happened[-min(room, _RECENT) :]:
        events.add_row(_clock(one), Text(one.text, style="yellow" if one.bad else ""))
    return Group(facts, Text(), events) if seen.happened else Group(facts)


def _grid() -> Table:
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(style="bold", no_wrap=True, min_width=_LABEL)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    return grid


def _state(seen: Overview) -> Text:
    text = Text(seen.state, style=_STATES.get(seen.state, "yellow"))
    if seen.state == "lost" and seen.alive:
        text.append("; the training runs on")
    return text


def _progress(seen: Overview) -> Iterator[tuple[str, Text]]:
    told = seen.told
    if told.step is not None:
        speed = f"  {_speed(seen.steps_per_second)}" if seen.steps_per_second is not None else ""
        yield "Step", Text.assemble(count(told.step), (speed, "dim"))
    if told.epoch is not None:
        yield "Epoch", Text(f"{told.epoch:g}")
    if (now := loss(told.metrics)) != NOTHING:
        yield "Loss", Text(now)
    elif told.metrics:
        name, value = next(iter(told.metrics.items()))
        yield name[:_LABEL], Text(f"{value:.6g}")


def _speed(steps_per_second: float) -> str:
    if 0 < steps_per_second < 0.1:
        return f"{format_duration(1 / steps_per_second)} a step"
    return f"{steps_per_second:.3g} steps/s"


def _plans(seen: Overview) -> Iterator[tuple[str, Text]]:
    if seen.state == "dumping":
        yield "Next dump", Text("now", style="cyan")
    elif seen.next_dump_s is not None:
        yield "Next dump", Text(f"in {format_duration(round(seen.next_dump_s))}" if seen.next_dump_s >= 1 else "now")
    if seen.dumps_failed:
        yield "Failed", Text(f"{seen.dumps_failed} dump{'s' if seen.dumps_failed > 1 else ''} in a row", style="yellow")


def _rows(seen: Overview, blocks: int) -> Iterator[tuple[str, Text]]:
    if not seen.taken:
        yield "Snapshot", Text("none yet", style="dim")
        return
    last = seen.taken[-1]
    yield "Snapshot", Text(last.id)
    yield "", Text(ago(last.at), style="dim")
    pauses = [one.pause_s for one in seen.taken if one.pause_s is not None]
    if pauses:
        yield "Pause", Text.assemble((sparkline(pauses, blocks), "cyan"), f"  {format_duration(pauses[-1])}")
    sizes = [one.added_bytes for one in seen.taken if one.added_bytes is not None]
    if sizes:
        yield "Added", Text.assemble((sparkline(sizes, blocks), "cyan"), f"  {format_size(sizes[-1])}")


def _clock(one: Happened) -> str:
    try:
        return local_time(one.at)[-8:]
    except ValueError:
        return " " * 8
