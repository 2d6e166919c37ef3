"""Who hears of what happens beside a person: the log of events, metrics, a command of the user's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

from criu_train.store.events import EventLog
from criu_train.store.store import Store
from criu_train.supervisor.gauge import Gauge
from criu_train.supervisor.options import RunOptions
from criu_train.supervisor.reporter import Reporter

if TYPE_CHECKING:
    from criu_train.supervisor.metrics import Metrics


class Outlets:
    """``events``: what is appended is passed on to all others."""

    def __init__(self, events: EventLog, metrics: Metrics | None = None) -> None:
        self.events = events
        self._metrics = metrics

    def show(self, gauge: Gauge) -> None:
        """Metrics tell of this training from now on."""
        if self._metrics is not None:
            self._metrics.gauge = gauge


@contextmanager
def outlets(store: Store, options: RunOptions, reporter: Reporter) -> Iterator[Outlets]:
    """Those that the options name, opened and closed. One that can't be had is told: no watch ends for want of it."""
    events = EventLog(store.layout.events)
    with ExitStack() as stack:
        if options.on_event is not None:
            from criu_train.supervisor.on_event import OnEvent

            events.listeners.append(stack.enter_context(closing(OnEvent(options.on_event, reporter))).hear)
        metrics = None
        if options.metrics_port is not None or options.metrics_textfile is not None:
            metrics = _expose(store, events, options, reporter, stack)
        yield Outlets(events, metrics)


def _expose(store: Store, events: EventLog, options: RunOptions, reporter: Reporter, stack: ExitStack) -> Metrics:
    # Loaded only where it is wanted: it takes a tenth of a second.
    from criu_train.supervisor.exposing import Port, Textfile
    from criu_train.supervisor.metrics import Metrics

    metrics = Metrics(store.layout)
    for event in events.read():
        metrics.hear(event)
    events.listeners.append(metrics.hear)
    if options.metrics_port is not None:
        try:
            stack.enter_context(closing(Port(options.metrics_port, metrics.registry)))
        except OSError as error:
            reporter.warning(
                f"metrics can't be had at {options.metrics_port}: {error.strerror or error}",
                "does another training serve its metrics there? Give each a port of its own; this one goes on without",
            )
    if options.metrics_textfile is not None:
        stack.enter_context(closing(Textfile(options.metrics_textfile, metrics.registry, reporter)))
    return metrics
