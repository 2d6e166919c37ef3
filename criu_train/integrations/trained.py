"""What the callbacks of all frameworks share: they tell hooks of the model that is trained now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from criu_train import hooks


class Trained:
    """The model that is trained now, and what hooks are to do with it.

    ``digest``: of the model, to be the same after a restore. ``after_restore``: called with the model.
    ``checkpoint_every_epochs``: None for no snapshots but those that criu-train takes by itself. ValueError below 1.
    """

    def __init__(
        self,
        *,
        digest: Callable[[Any], str] | None,
        after_restore: Callable[[Any], object] | None,
        checkpoint_every_epochs: int | None,
    ) -> None:
        if checkpoint_every_epochs is not None and checkpoint_every_epochs < 1:
            raise ValueError("checkpoint_every_epochs must be at least 1")
        self._digest = digest
        self._after_restore = after_restore
        self._every = checkpoint_every_epochs
        self._model: Any = None
        self._known_to_hooks = False

    def begin(self, model: Any) -> None:
        """``model`` is trained from now on. Only here, since it may be another process than the one that made us."""
        self._model = model
        if self._known_to_hooks or not hooks.active():
            return
        self._known_to_hooks = True
        if self._digest is not None:
            hooks.state_digest(self._digest_now)
        if self._after_restore is not None:
            hooks.after_restore(self._tell_restored)

    def end(self) -> None:
        """Nothing is trained any more."""
        self._model = None

    def epoch_ended(self, epochs: int) -> None:
        """So many epochs are done: a snapshot, if it is time for one. Every rank has to call this."""
        if self._every is not None and epochs % self._every == 0:
            hooks.checkpoint()

    def _digest_now(self) -> str:
        return "" if self._model is None or self._digest is None else self._digest(self._model)

    def _tell_restored(self) -> None:
        if self._model is not None and self._after_restore is not None:
            self._after_restore(self._model)


def apart(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is reported as step and epoch."""
    return {name: value for name, value in metrics.items() if name not in ("step", "epoch")}
