"""Command lines of CRIU."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from criu_train.criu.command import dump_command, restore_command
from criu_train.criu.find import Criu

CRIU = Criu(("loader", "criu"), "4.2", "private", None, network_lock="iptables")
IMAGES, LOG = Path("/store/images"), Path("/store/criu.log")


def test_a_dump_names_its_tree_and_leaves_it_running_only_when_asked() -> None:
    running = dump_command(CRIU, root_pid=1234, images=IMAGES, log=LOG, leave_running=True)
    ending = dump_command(CRIU, root_pid=1234, images=IMAGES, log=LOG, leave_running=False)
    assert running[:3] == ["loader", "criu", "dump"]
    assert running[running.index("--tree") + 1] == "1234"
    assert set(running) - set(ending) == {"--leave-running"}


def test_the_network_is_locked_the_way_the_probe_found_to_work() -> None:
    command = dump_command(CRIU, root_pid=1, images=IMAGES, log=LOG, leave_running=True)
    assert command[command.index("--network-lock") + 1] == "iptables"


@pytest.mark.parametrize("relative", ["images", "log", "action_script"])
def test_relative_paths_are_refused_since_criu_runs_elsewhere(relative: str) -> None:
    paths = {"images": IMAGES, "log": LOG, "action_script": Path("/script"), relative: Path("here")}
    with pytest.raises(ValueError, match="must be absolute"):
        restore_command(CRIU, **paths)


@pytest.mark.criu
def test_every_option_is_known_to_criu(criu: Criu, tmp_path: Path) -> None:
    dump = dump_command(
        criu,
        root_pid=2**22 - 1,  # nobody
        images=tmp_path,
        log=tmp_path / "dump.log",
        action_script=Path("/bin/true"),
        leave_running=True,
    )
    restore = restore_command(criu, images=tmp_path, log=tmp_path / "restore.log", action_script=Path("/bin/true"))
    for command in (dump, restore):
        told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert "Usage" not in told.stdout + told.stderr
        assert "unrecognized" not in told.stdout + told.stderr
    assert (tmp_path / "dump.log").stat().st_size
    assert "will be ignored" not in (tmp_path / "restore.log").read_text()
