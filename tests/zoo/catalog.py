"""All programs of the zoo, in the order of the table."""

from __future__ import annotations

from zoo import files, frameworks, languages, network, pytorch
from zoo.program import Program

PROGRAMS: tuple[Program, ...] = (
    *pytorch.PROGRAMS,
    *frameworks.PROGRAMS,
    *languages.PROGRAMS,
    *files.PROGRAMS,
    *network.PROGRAMS,
)
