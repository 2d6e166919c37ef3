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

# One of each kind: what scripts/test has time for. scripts/zoo runs all.
SHORT = frozenset(
    (
        *("torch-fork", "torch-ddp2", "jax", "xgboost", "ppo", "lightning", "sklearn"),
        *("bash-epochs", "openmp", "notebook", "node", "sqlite-wal", "inotify", "http-requests", "grpc"),
    )
)
