"""What of CUDA a training can't do by itself in a cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from criu_train.cuda.command import load_driver


def test_the_driver_is_loaded_for_a_training_where_it_is_installed_and_not_loaded_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, program = tmp_path / "nvidia-uvm", tmp_path / "nvidia-modprobe"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    load_driver(device)  # not installed
    program.write_text(f'#!/bin/sh\necho "$@" >> {device}\n')
    program.chmod(0o700)
    load_driver(device)
    load_driver(device)
    assert device.read_text() == "-c=0 -u\n"
