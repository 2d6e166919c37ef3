"""What belongs to the workspace by decree, and how much of it is kept."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

# Directories that a reboot empties.
VOLATILE = ("/tmp/", "/run/", "/dev/shm/", "/var/run/")  # noqa: S108


@dataclass(frozen=True)
class WorkspacePolicy:
    """Sizes in bytes.

    ``roots``: the working directory and what ``--workspace`` names: below them also files that the tree has not
    touched (bystanders) are kept, within the limits. ``exclude``: the store. ``include``: files in there that are
    the tree's and only ever appended to: its output. ``file_limit`` does not go for these.
    """

    roots: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    file_limit: int = 1 << 30
    bystander_file_limit: int = 8 << 20
    bystander_total: int = 256 << 20
    bystander_count: int = 10_000
    volatile_file_limit: int = 64 << 20

    def resolved(self) -> WorkspacePolicy:
        """With paths as the kernel tells them: absolute, without symlinks."""

        def real(paths: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(dict.fromkeys(os.path.realpath(path) for path in paths))

        return replace(self, roots=real(self.roots), exclude=real(self.exclude), include=real(self.include))
