"""Finding a CRIU: the one named in ``CRIU_TRAIN_CRIU``, the system's, or the private one that ``setup`` fetched."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from criu_train.criu.verdicts import NetworkLock, private_prefix, verdict_of
from criu_train.errors import EnvironmentUnfitError

Origin = Literal["env", "system", "private"]

VERSION_LIMIT_S = 10.0
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PACKAGE_DIRS = ("usr/lib/python3/dist-packages", "usr/local/lib/python3/dist-packages")


@dataclass(frozen=True)
class Criu:
    """A CRIU that can be executed.

    ``command`` is the start of its command line (for a private one: its own loader and libraries, then the binary).
    ``pycriu`` is the directory that holds the package of that name, None when there is none.
    ``plugins`` is where its plugins lie, None for the place built into it.
    """

    command: tuple[str, ...]
    version: str
    origin: Origin
    pycriu: Path | None
    network_lock: NetworkLock = "nftables"
    plugins: Path | None = None

    @property
    def binary(self) -> Path:
        return Path(self.command[-1])


def find_criu() -> Criu:
    """The CRIU to use: the named one if one is named, else one that passed the probe, the system's first.

    One that failed the probe on this kernel is never taken; one that was not probed yet is, the private one first.
    Raises EnvironmentUnfitError when there is none.
    """
    found = candidates()
    if not found:
        raise EnvironmentUnfitError("no CRIU was found on this machine", tip="run `criu-train setup`, which gets one")
    usable = [criu for criu in found if criu.origin == "env" or not _failed(criu)]
    if not usable:
        worst = found[0]
        verdict = verdict_of(worst.binary)
        why = f": {verdict.detail}" if verdict else ""
        raise EnvironmentUnfitError(
            f"CRIU {worst.version} at {worst.binary} does not work on this kernel{why}",
            tip="run `criu-train setup`, which gets a newer one",
        )
    return min(usable, key=_preference)


def candidates() -> tuple[Criu, ...]:
    """Every CRIU on this machine that runs at all: named, system's, private.

    Raises EnvironmentUnfitError where others could have put another one in the private one's place.
    """
    places: list[tuple[Origin, Path]] = []
    if named := os.environ.get("CRIU_TRAIN_CRIU"):
        places.append(("env", Path(named).absolute()))
    if system := shutil.which("criu", path=f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}"):
        places.append(("system", Path(system).absolute()))
    _check_private(private_prefix())
    places.append(("private", private_prefix() / "usr/sbin/criu"))
    described = (describe(path, origin) for origin, path in places)
    return tuple(criu for criu in described if criu is not None)


def describe(binary: Path, origin: Origin) -> Criu | None:
    """The CRIU at this path, None when there is none or when it can't tell its version."""
    if not os.access(binary, os.X_OK):
        return None
    prefix = _prefix_of(binary)
    command = (*_own_loader(prefix), str(binary)) if prefix else (str(binary),)
    plugins = prefix / "usr/lib/criu" if prefix else None
    verdict = verdict_of(binary)
    version = verdict.version if verdict else version_of(command)
    if version is None:
        return None
    return Criu(
        command=command,
        version=version,
        origin=origin,
        pycriu=_find_pycriu(prefix),
        network_lock=verdict.network_lock if verdict else "nftables",
        plugins=plugins if plugins and plugins.is_dir() else None,  # CRIU refuses a directory that isn't there
    )


def version_of(command: tuple[str, ...]) -> str | None:
    """What ``criu --version`` says, None when it can't be run."""
    try:
        said = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, timeout=VERSION_LIMIT_S, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"^Version: (\S+)", said, re.MULTILINE)
    return match.group(1) if match else None


def _prefix_of(binary: Path) -> Path | None:
    """The root of a private tree (one with a loader of its own) that the binary lies in."""
    root = binary.parents[2] if len(binary.parents) > 2 else None
    return root if root and root != Path("/") and _own_loader(root) else None


def _own_loader(prefix: Path) -> tuple[str, ...]:
    """How a binary below the prefix is run with the prefix's own libraries."""
    for loader in sorted(prefix.glob("usr/lib/*-linux-gnu*/ld-linux*.so.*")):
        return str(loader), "--library-path", str(loader.parent)
    return ()


def _find_pycriu(prefix: Path | None) -> Path | None:
    """The newest pycriu at hand: an old one breaks on a new protobuf, while a new one reads every image."""
    roots = [root for root in (prefix, private_prefix()) if root] + [Path("/")]
    for root in roots:
        places = [root / place for place in _PACKAGE_DIRS] + sorted(root.glob("usr/lib/python3.*/site-packages"))
        for place in places:
            if (place / "pycriu" / "images" / "pb.py").is_file():
                return place
    return None


def _check_private(prefix: Path) -> None:
    """It is run as root, and its Python module is loaded."""
    places = (prefix.parent, prefix, prefix / "usr", prefix / "usr/sbin", prefix / "usr/sbin/criu")
    try:
        found = {path: path.stat() for path in places}
    except OSError:  # not there, or not for us to see
        return
    trusted = {"0", str(os.geteuid()), os.environ.get("SUDO_UID", "0")}
    for path, info in found.items():
        # In the likes of /tmp nobody can take away what is not his.
        shared = info.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not (
            path == prefix.parent and info.st_mode & stat.S_ISVTX
        )
        if shared or str(info.st_uid) not in trusted:
            raise EnvironmentUnfitError(
                f"others can replace the private CRIU: {path} is theirs, or they can write to it",
                tip=f"remove {prefix}, give {prefix.parent} to root alone, then run `criu-train setup`",
            )


def _failed(criu: Criu) -> bool:
    verdict = verdict_of(criu.binary)
    return verdict is not None and not verdict.passed


def _preference(criu: Criu) -> int:
    """Lower is better."""
    if criu.origin == "env":
        return 0
    proven = verdict_of(criu.binary) is not None
    return {"system": 1, "private": 2}[criu.origin] if proven else {"private": 3, "system": 4}[criu.origin]
