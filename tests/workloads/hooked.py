"""A training that uses hooks: it reports every step, asks for checkpoints, and has a state with a digest.

``returns.jsonl`` has a line for every return of ``checkpoint``, ``calls.jsonl`` one for every call of a hook.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import time
from pathlib import Path

from rest import rest

from criu_train import hooks

STATE = ctypes.create_string_buffer(b"\0" * 4096, 4096)


def note(file: str, **what: object) -> None:
    with open(file, "a") as log:
        log.write(json.dumps(what) + "\n")


@hooks.before_dump
def before() -> None:
    note("calls.jsonl", hook="before_dump", generation=hooks.generation())


@hooks.after_dump
def after() -> None:
    note("calls.jsonl", hook="after_dump", generation=hooks.generation())


@hooks.after_restore
def restored() -> None:
    note("calls.jsonl", hook="after_restore", generation=hooks.generation())


@hooks.state_digest
def digest() -> bytes:
    made = hashlib.sha256(STATE.raw).digest()
    if Path("../tamper").exists():  # somebody changes the state between its digest and the dump
        Path("../digested").touch()
        while Path("../tamper").exists():
            time.sleep(0.01)
    return made


def train(steps: int, delay: float, every: int, wait: bool) -> None:
    Path("../address").write_text(str(ctypes.addressof(STATE)))
    note("calls.jsonl", active=hooks.active())
    for step in range(steps):
        STATE[:32] = hashlib.sha256(STATE.raw).digest()
        loss = STATE.raw[0] / 255
        note("metrics.jsonl", step=step, loss=loss)
        rest(delay)
        hooks.report(step=step, loss=loss)
        if every and step % every == every - 1:
            made = hooks.checkpoint(wait=wait)
            note("returns.jsonl", step=step, generation=hooks.generation(), **made._asdict())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--delay", type=float, default=0.02, help="seconds of rest in each step")
    parser.add_argument("--checkpoint-every", type=int, default=0, help="steps")
    parser.add_argument("--no-wait", action="store_true")
    chosen = parser.parse_args()
    train(chosen.steps, chosen.delay, chosen.checkpoint_every, not chosen.no_wait)
