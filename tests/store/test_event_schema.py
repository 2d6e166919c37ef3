"""Events are documented, and what is documented is what is meant."""

from __future__ import annotations

from typing import Any

import pytest
from event_document import PAGE, document

from criu_train.store.event_schema import KINDS, misfits

FINISHED = {"at": "2026-11-21T20:45:12.345Z", "event": "finished", "run": "a", "exit_code": 0}


def test_the_page_about_events_is_current() -> None:
    assert PAGE.read_text() == document(), "run tests/store/event_document.py"


def test_no_event_and_no_field_is_documented_twice() -> None:
    names = [kind.name for kind in KINDS]
    assert len(set(names)) == len(names)
    for kind in KINDS:
        fields = [field.name for field in kind.fields]
        assert len(set(fields)) == len(fields)


def test_an_event_as_documented_fits() -> None:
    assert not misfits(FINISHED)
    assert not misfits({**FINISHED, "run": None})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"event": "vanished"}, "unknown event"),
        ({"event": None}, "unknown event"),
        ({"exit_code": None}, "no integer"),
        ({"exit_code": True}, "no integer"),
        ({"exit_code": 1.5}, "no integer"),
        ({"at": 7}, "no string"),
        ({"mood": "good"}, "mood is not documented"),
    ],
)
def test_an_event_that_is_not_as_documented_is_told(change: dict[str, Any], problem: str) -> None:
    [told] = misfits({**FINISHED, **change})
    assert problem in told


def test_a_field_that_is_missing_is_told() -> None:
    assert misfits({name: value for name, value in FINISHED.items() if name != "exit_code"}) == (
        "finished: exit_code is missing",
    )
