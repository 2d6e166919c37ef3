"""docs/events.md, made from the table in criu_train/store/event_schema.py; run it to write the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from criu_train.store.event_schema import COMMON, KINDS, Field

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "events.md"
_HEAD = """# What happened: events.jsonl

The store's `events.jsonl` holds everything that happened to a training, oldest first: one JSON object a line, appended
and never changed. It is small whatever the training prints, and stays when snapshots are pruned. A power cut can tear
the last line; pass over what is no JSON. New versions add events and fields, and take none away: pass over names that
you don't know. Logs of older versions have `at` in whole seconds, and lack fields that came later.

    tail -f .criu-train/events.jsonl | jq -c 'select(.event == "dumped") | [.at, .step, .frozen_time_us]'

`--on-event COMMAND` gets events as they happen ([monitoring.md](monitoring.md)). This page is made from
`criu_train/store/event_schema.py` (by `tests/store/event_document.py`), which the events of all tests are held against.
"""


def document() -> str:
    parts = [_HEAD, "## In every event\n", *_table(COMMON), ""]
    for kind in KINDS:
        parts += [f"## {kind.name}\n", kind.when, ""]
        parts += [*_table(kind.fields), ""]
    return "\n".join(parts).rstrip() + "\n"


def _table(fields: Sequence[Field]) -> Iterator[str]:
    yield "| field | type | meaning |"
    yield "|---|---|---|"
    for field in fields:
        null = f" (null: {field.null})" if field.null else ""
        yield f"| `{field.name}` | {field.type} | {field.meaning}{null} |"


if __name__ == "__main__":
    PAGE.write_text(document())
