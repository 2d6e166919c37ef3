from __future__ import annotations

from zoo.program import Program

PROGRAMS: tuple[Program, ...] = ()
