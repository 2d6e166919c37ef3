"""Site-packages directories and checkouts to test with, as pip and git make them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

GIT = {"HOME": "/nonexistent", "PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1"}


def install(site: Path, name: str, version: str, *files: str) -> None:
    """A distribution, in place of any other version of it. Files that are there already are kept as they are."""
    for old in site.glob(f"{name}-*.dist-info"):
        shutil.rmtree(old)
    place = site / f"{name}-{version}.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
    (place / "RECORD").write_text("".join(f"{one},sha256=x,1\n" for one in files) + f"{place.name}/RECORD,,\n")
    for one in files:
        (site / one).parent.mkdir(parents=True, exist_ok=True)
        (site / one).touch()


def git(directory: Path, *arguments: str) -> str:
    """What git says; commits need no configuration."""
    identity = ("-c", "user.name=A", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=directory, env=GIT, check=True, capture_output=True, text=True, timeout=30
    )
    return done.stdout.strip()


def checkout(directory: Path) -> str:
    """A repository with one commit of ``train.py``; returns the commit."""
    directory.mkdir(parents=True, exist_ok=True)
    git(directory, "init")
    (directory / "train.py").write_text("print('one')\n")
    git(directory, "add", "train.py")
    git(directory, "commit", "-m", "first")
    return git(directory, "rev-parse", "HEAD")
