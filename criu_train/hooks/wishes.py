"""What a training wants called around dumps and restores; called so that nothing can end it. Standard library only."""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Callable

Hook = Callable[[], object]
Digest = Callable[[], bytes | str]


class Hooks:
    """What the training wants done, in the order in which it said so."""

    def __init__(self) -> None:
        self.before_dump: list[Hook] = []
        self.after_dump: list[Hook] = []
        self.after_restore: list[Hook] = []
        self.digests: list[Digest] = []
        self._tried = self._unstable = False

    def digest(self) -> str:
        """Of all digests together, hexadecimal; empty where there are none. Raises what they raise."""
        if not self.digests or self._unstable:
            return ""
        if not self._tried:
            self._tried, first = True, self._make()
            if first != self._make():  # every restore would fail because of it
                self._unstable = True
                warn("the digest of the state is another each time it is made, and is not used")
                return ""
            return first
        return self._make()

    def _make(self) -> str:
        total = hashlib.sha256()
        for digest in self.digests:
            found = digest()
            total.update(hashlib.sha256(found.encode() if isinstance(found, str) else found).digest())
        return total.hexdigest()


def run_all(hooks: list[Hook]) -> None:
    """One that raises is warned of and keeps no other from running."""
    for hook in hooks:
        try:
            hook()
        except Exception as error:
            warn(f"the hook {getattr(hook, '__name__', hook)} raised {error!r}")


def warn(what: str) -> None:
    """In the training's own way."""
    with contextlib.suppress(Warning):  # where warnings are errors, this one still ends no training
        warnings.warn(f"criu-train: {what}", stacklevel=3)
