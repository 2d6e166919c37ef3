"""How the end of a CRIU that had to be killed is told."""

from __future__ import annotations

import subprocess

import pytest

from criu_train.cell.criu_child import CriuChild
from criu_train.cell.hold import Held


class HoldsNobody(Held):
    """The true one would stop everything on this machine."""

    def hold(self, criu_pid: int) -> None:
        assert criu_pid > 1


@pytest.mark.parametrize(("exit_code", "told"), [(0, 0), (1, -9)])
def test_who_leaves_just_before_it_is_killed_was_killed_unless_it_was_done(exit_code: int, told: int) -> None:
    with subprocess.Popen(["/bin/sleep", "60"], start_new_session=True) as process:
        criu = CriuChild(0, None)
        criu.pid = process.pid
        criu.check(HoldsNobody())
        ended = criu.changed(exit_code << 8)
    assert ended is not None
    assert (ended["code"], ended["broke_off"]) == (told, told < 0)
