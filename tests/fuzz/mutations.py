"""Spoiling inputs: bytes turned, cut, doubled and swapped; values of JSON replaced by what nobody expects."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

HOSTILE: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**31, 2**63, 2**64, -(2**63), 10**30, 1.5, 1e308),
    *("", "\0", "../../etc/passwd", "/etc/passwd", "..", ".", "a" * 5000, "\ud800", "é\n", "0" * 64),
    *([], {}, [[]], [None], {"": None}, [[[[[[]]]]]], {"version": 2}),
)


def spoiled_bytes(valid: bytes, count: int, seed: int) -> Iterator[bytes]:
    """``count`` variants of the valid input, each with a few things wrong."""
    chance = random.Random(seed)
    for _ in range(count):
        data = bytearray(valid)
        for _ in range(chance.choice((1, 1, 1, 2, 5, 30))):
            _spoil(data, chance)
        yield bytes(data)


def _spoil(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data) + 1)
    match chance.randrange(7):
        case 0 if data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        case 1 if data:
            data[at % len(data)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        case 2:
            del data[at:]
        case 3:
            del data[at : at + chance.randrange(1, 20)]
        case 4:
            data[at:at] = data[at : at + chance.randrange(1, 200)]
        case 5:
            data[at:at] = chance.randbytes(chance.randrange(1, 20))
        case _:
            number = chance.choice((0, 1, 2**16, 2**31 - 1, 2**32 - 1, 2**63))
            size = chance.choice((4, 8))
            data[at : at + size] = (number % (1 << (8 * size))).to_bytes(size, "little")


def spoiled_json(valid: bytes, count: int, seed: int) -> Iterator[bytes]:
    """``count`` variants that are still JSON, but for some that are not."""
    chance, whole = random.Random(seed), json.loads(valid)
    for number, spoilt in enumerate(spoiled_bytes(valid, count, seed)):
        if number % 4 == 0:
            yield spoilt
            continue
        told = copy.deepcopy(whole)
        for _ in range(chance.choice((1, 1, 2, 4))):
            told = _replace(told, chance)
        yield json.dumps(told).encode()


def _replace(value: Any, chance: random.Random) -> Any:
    """The value with something in it replaced, removed or added."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.15:
        return copy.deepcopy(chance.choice(HOSTILE))
    key = chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
    what = chance.random()
    if what < 0.1:
        del value[key]
    elif what < 0.2 and isinstance(value, dict):
        value[chance.choice(("", "version", "more", "files"))] = copy.deepcopy(chance.choice(HOSTILE))
    else:
        value[key] = _replace(value[key], chance)
    return value
