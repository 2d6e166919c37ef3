"""Running the training as another user."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass

from criu_train.errors import UsageError


@dataclass(frozen=True)
class UserIds:
    """(uid, gid, supplementary groups) and the variables that a login would set."""

    ids: tuple[int, int, tuple[int, ...]]
    environment: dict[str, str]

    @classmethod
    def of(cls, name: str) -> UserIds:
        """Raises UsageError for a user this machine doesn't know."""
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            raise UsageError(f"there is no user {name!r} on this machine", tip="see `getent passwd`") from None
        groups = tuple(os.getgrouplist(name, entry.pw_gid))
        return cls(
            ids=(entry.pw_uid, entry.pw_gid, groups),
            environment={"USER": name, "LOGNAME": name, "HOME": entry.pw_dir, "SHELL": entry.pw_shell},
        )
