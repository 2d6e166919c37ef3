"""Reads the few instructions that this project's Dockerfiles use; any other is refused rather than passed over."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass

_KNOWN = {"FROM", "RUN", "COPY", "ENV", "WORKDIR", "ENTRYPOINT", "CMD"}


@dataclass(frozen=True)
class Instruction:
    """One instruction: its keyword in capitals, and the rest of it with continued lines joined."""

    keyword: str
    text: str

    def argv(self) -> tuple[str, ...]:
        """What is executed: the JSON form as it stands, the other one by a shell."""
        if self.text.startswith("["):
            return tuple(json.loads(self.text))
        return ("/bin/sh", "-c", self.text)

    def pairs(self) -> dict[str, str]:
        """The variables of an ENV."""
        return dict(word.split("=", 1) for word in shlex.split(self.text))

    def sources(self) -> tuple[tuple[str, ...], str]:
        """What a COPY copies, and where to."""
        *sources, target = shlex.split(self.text)
        if not sources or any(word.startswith("--") for word in sources):
            raise ValueError(f"this form of COPY is not known: {self.text}")
        return tuple(sources), target


def parse(text: str) -> tuple[Instruction, ...]:
    """The instructions in their order. Raises ValueError for one that is not known, and unless FROM comes first."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found = []
    for line in filter(str.strip, joined.splitlines()):
        keyword, _, rest = line.strip().partition(" ")
        if keyword.upper() not in _KNOWN:
            raise ValueError(f"this instruction is not known: {line}")
        found.append(Instruction(keyword.upper(), rest.strip()))
    if not found or found[0].keyword != "FROM":
        raise ValueError("a Dockerfile begins with FROM")
    return tuple(found)
