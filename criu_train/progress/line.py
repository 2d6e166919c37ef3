"""What one line of a training's output tells: numbers with names, as people and frameworks print them.

Not a pattern for each framework but the few forms that they have in common: ``name=1.2`` and ``name: 1.2`` with any
name, ``name 1.2`` with names that are common in trainings, ``Epoch 3/10``, a bar's ``17/20``, a number in brackets at
the beginning (boosting), and dictionaries, Python's and JSON's.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_END = r"(?![\w/%]|[.:]\S)"  # no time of day, version, address, share, or name of a file
_NAME = r"[A-Za-z_][\w./@-]*(?:'s [\w@-]+)?"
_PAIR = re.compile(rf"(?<![\w./@-])({_NAME})['\"]?\s?[=:]\s?['\"]?({_NUMBER})(?:(?=/\d+)|{_END})")
_KNOWN = re.compile(
    r"(?i)(?<![\w./@-])((?:global[_ ]|train[_ ]|training[_ ]|val[_ ]|valid[_ ]|validation[_ ]|test[_ ]|eval[_ ])?"
    r"(?:step|epoch|iter|iteration|batch|round|episode|loss|acc|accuracy|auc|f1|bleu|ppl|perplexity|reward|mse|rmse|mae))"
    rf"(?:\s?[:=]\s?|\s)\[?\s?({_NUMBER})(?:(?=/\d+)|{_END})"
)
_BAR = re.compile(r"(?<![\w/.])(\d+)/\s?(\d+)(?=\s?(?:\]|batches|\[\d+:\d\d|\s\S*━|━|\s\d+:\d\d:\d\d|\s\d+(?:s|ms)\b))")
_IN_BRACKETS = re.compile(r"^\s?\[(\d+)\]\s")
_DICTIONARY = re.compile(r"\{[^{}]{3,4000}\}")
_STEPS = ("step", "global_step", "global step", "iter", "iteration", "batch", "round", "episode", "steps", "iterations")
_EPOCHS = ("epoch", "train epoch")
# Without a step or an epoch, a line is about how well it goes only where one of these is in a name.
_OF_TRAININGS = re.compile(r"(?i)loss|acc|auc|f1|bleu|ppl|perplexity|reward|return|score|error|mse|mae|l1|l2")


@dataclass(frozen=True)
class Told:
    """What is told; ``metrics`` by the names that were printed."""

    step: int | None = None
    epoch: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.step is not None or self.epoch is not None or bool(self.metrics)

    def then(self, later: Told) -> Told:
        """Both, the later where both tell the same."""
        return Told(
            self.step if later.step is None else later.step,
            self.epoch if later.epoch is None else later.epoch,
            {**self.metrics, **later.metrics},
        )


NOTHING = Told()


def read_line(line: str) -> Told:
    """``line``: without colours. A number that is not finite is told of no metric."""
    line = " ".join(line.split())  # else a line of blanks takes the patterns below seconds
    found = dict(_numbers(line))
    bars = _BAR.findall(line)  # of two the last: before it, some count epochs in the same way
    boosting = _IN_BRACKETS.match(line)
    step = next((found.pop(name) for name in list(found) if name.lower() in _STEPS), None)
    epoch = next((found.pop(name) for name in list(found) if name.lower() in _EPOCHS), None)
    found = {name: value for name, value in found.items() if name.lower() not in (*_STEPS, *_EPOCHS)}
    if step is None and bars:
        step = float(bars[-1][0])
    if step is None and boosting is not None and found:
        step = float(boosting[1])
    if step is None and epoch is None and not any(map(_OF_TRAININGS.search, found)):
        return Told()
    return Told(None if step is None or not step.is_integer() else int(step), epoch, found)


def read_with(pattern: re.Pattern[str], line: str) -> Told:
    """By a pattern of the user's: its named groups ``step``, ``epoch``, and any metrics."""
    if (match := pattern.search(line)) is None:
        return Told()
    found = {name: number for name, text in match.groupdict().items() if (number := _finite(text)) is not None}
    step, epoch = found.pop("step", None), found.pop("epoch", None)
    return Told(None if step is None else int(step), epoch, found)


def _numbers(line: str) -> Iterator[tuple[str, float]]:
    for text in _DICTIONARY.findall(line):
        for name, value in _dictionary(text).items():
            if isinstance(name, str) and (number := _finite(value)) is not None:
                yield name, number
        line = line.replace(text, " ")
    for name, text in (*_KNOWN.findall(line), *_PAIR.findall(line)):
        if (number := _finite(text)) is not None:
            yield name, number


def _dictionary(text: str) -> Mapping[Any, Any]:
    for read in (json.loads, ast.literal_eval):
        try:
            if isinstance(found := read(text), dict):
                return found
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
    return {}


def _finite(value: object) -> float | None:
    """A number, or what reads as one: some print numbers as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
