"""A run as its supervisors would write it down, four times killed; and the numbers that follow, by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from criu_train.store.store import Store

RUN = "20261122T120000Z-abc123"
BEGAN = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC).timestamp()
MIB = 1 << 20
A_STEP_S = 0.5  # of the sample's training

Line = dict[str, Any]


def at(seconds: float) -> str:
    """A time in the sample, as events tell it."""
    moment = datetime.fromtimestamp(BEGAN + seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def event(when: float, kind: str, /, **fields: Any) -> Line:
    return {"at": at(when), "event": kind, "run": RUN, **fields}


def progress(when: float, step: int, /, **metrics: float) -> Line:
    return event(when, "progress", step=step, epoch=step // 50, metrics=metrics or curves(step))


def curves(step: int) -> Mapping[str, float]:
    return {"loss": 2.3 / (1 + step / 40) + 0.02 * ((step * 37) % 11) / 11, "accuracy": 1 - 0.9 / (1 + step / 60)}


def identifier(number: int) -> str:
    return f"20261122T12{number // 60:02}{number % 60:02}Z-{number:06d}"


def dumped(when: float, number: int, step: int, /, **fields: Any) -> Line:
    """Its cut was two seconds before."""
    facts: Line = {
        "snapshot": identifier(number),
        "trigger": "timer",
        "step": step,
        "epoch": step // 50,
        "metrics": curves(step),
        "frozen_time_us": 200_000 + 10_000 * number,
        "parked_us": None,
        "seconds": 2.0,
        "memory_bytes": (800 + number) * MIB,
        "stored_bytes": 70 * MIB,
        "added_bytes": (44 if number == 1 else 20) * MIB,
        "tasks": 3,
        "aligned": None,
        "notes": [],
    }
    return event(when, "dumped", **(facts | fields))


def killed_four_times(lives: int = 5, life_s: int = 60, down_s: int = 5) -> list[Line]:
    """A step each half second; snapshots at 20 s and 40 s of each life, lives of 60 s, then 5 s without any."""
    lines, step, number, now = [event(0, "started", command=["python", "train.py"], reason="first")], 0, 0, 0
    for life in range(lives):
        for second in range(2, life_s + 1, 2):
            reached = step + int(second / A_STEP_S)
            lines.append(progress(now + second, reached))
            if second in (20, 40):
                number += 1
                trigger = "trial" if number == 1 else "timer"
                lines.append(dumped(now + second + 2, number, reached, trigger=trigger))
        now += life_s
        step += int(40 / A_STEP_S)
        if life < lives - 1:
            attempts = [{"snapshot": identifier(number), "reason": None, "tip": None}]
            cause = ("supervisor and training were killed from outside", "the machine was rebooted or lost power")
            lines += [
                event(now + down_s - 1, "interrupted", cause=cause[life % 2]),
                event(now + down_s, "restore", attempts=attempts),
                event(
                    now + down_s, "restored", snapshot=identifier(number), step=step, seconds=0.9, notes=[], warnings=[]
                ),
            ]
            now += down_s
    lines.append(event(now, "finished", exit_code=0))
    return lines


def store_with(place: Path, lines: Iterable[Line | str]) -> Store:
    """A store in which that has happened."""
    store = Store.create_or_open(place / "store")
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    store.layout.events.write_text(text)
    return store
