"""Whether values read from a file are of the types that their class declares.

For files that may have been written by hand; what we wrote ourselves is sealed by a digest instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints


def misfit(record: object) -> str | None:
    """The first field of a dataclass or named tuple whose value is not of the declared type; None when all are."""
    hints = get_type_hints(type(record))
    return next((name for name, hint in hints.items() if not _fits(getattr(record, name), hint)), None)


def _fits(value: object, hint: Any) -> bool:
    """For what JSON can hold and we make of it: scalars, literals, unions, tuples of one type, mappings, records."""
    inner = get_args(hint)
    origin = get_origin(hint)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is UnionType:
        return any(_fits(value, one) for one in inner)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(one, inner[0]) for one in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(
            isinstance(name, str) and _fits(one, inner[1]) for name, one in value.items()
        )
    if hint is float:
        return type(value) in (int, float)
    return type(value) is hint and (hint in (str, int, bool, type(None)) or misfit(value) is None)
