"""How large are snapshots on the disk: the first and the next ones of real trainings, against what else one could do.

Each snapshot is exported to plain CRIU images, and these go through `tar | zstd -3`, once whole and once only the
pages that are new, and into borg and restic repositories where these programs are installed (Debian:
`apt-get install borgbackup restic`).

    .venv/bin/python benchmarks/size.py --snapshots 10
"""

from __future__ import annotations

import argparse
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import xxhash
from bench import HERE, criu_train, head, machine, row, subject

from criu_train.store.zstd import open_zstd

PASSWORD = {**os.environ, "RESTIC_PASSWORD": "x", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}


def size_of(directory: Path) -> int:
    """Bytes of all files; hard links count once."""
    files = {(one.st_dev, one.st_ino): one.st_size for one in (p.lstat() for p in directory.rglob("*") if p.is_file())}
    return sum(files.values())


def tar_zstd(images: Path) -> int:
    """Bytes of `tar | zstd -3` of the images."""
    tar = subprocess.Popen(["tar", "-C", str(images), "-cf", "-", "."], stdout=subprocess.PIPE)
    assert tar.stdout is not None
    with tempfile.TemporaryFile() as packed:
        with open_zstd(packed, "wb", level=3) as stream:
            shutil.copyfileobj(tar.stdout, stream, 1 << 20)
        tar.wait()
        return packed.tell()


class ChangedPages:
    """`zstd -3` over the pages that no earlier image held, each once; ``add`` returns the bytes."""

    def __init__(self) -> None:
        self._known: set[bytes] = set()

    def add(self, images: Path) -> int:
        with tempfile.TemporaryFile() as packed:
            with open_zstd(packed, "wb", level=3) as stream:
                for path in sorted(images.glob("pages-*.img")):
                    for page in self._new(path):
                        stream.write(page)
            return packed.tell()

    def _new(self, path: Path) -> Iterator[bytes]:
        with path.open("rb") as file:
            while page := file.read(mmap.PAGESIZE):
                digest = xxhash.xxh3_128_digest(page)
                if digest not in self._known:
                    self._known.add(digest)
                    yield page


class Backup:
    """A repository of one of the known programs; ``add`` returns how many bytes it has grown by."""

    def __init__(self, name: str, repository: Path) -> None:
        self.name = name
        self._repository = repository
        self._number = 0
        first = ["borg", "init", "-e", "none", str(repository)] if name == "borg" else self._restic("init")
        subprocess.run(first, check=True, capture_output=True, env=PASSWORD)

    def _restic(self, *words: str) -> list[str]:
        return ["restic", "-r", str(self._repository), "--no-cache", *words]

    def add(self, images: Path) -> int:
        """Back the images up under the same name each time."""
        before, self._number = size_of(self._repository), self._number + 1
        archive = f"{self._repository}::{self._number}"
        words = ["borg", "create", "--compression", "zstd,3", archive, "."]
        command = words if self.name == "borg" else self._restic("backup", "--compression", "auto", ".")
        subprocess.run(command, check=True, capture_output=True, env=PASSWORD, cwd=images)
        return size_of(self._repository) - before


def measure(label: str, command: list[str], ready: Path, directory: Path, chosen: argparse.Namespace) -> None:
    """Three lines of the table: the first snapshot, the next ones on average, all together."""
    images = directory / "images"
    others: dict[str, Callable[[Path], int]] = {"changed": ChangedPages().add, "tar": tar_zstd}
    for name in ("borg", "restic"):
        if shutil.which(name):
            others[name] = Backup(name, directory / name).add
    raw: list[int] = []
    sizes: dict[str, list[int]] = {key: [] for key in ("ours", *others)}
    with subject(command, directory, ready, "--every", "0", "--keep", str(chosen.snapshots)) as one:
        for number in range(chosen.snapshots):
            if number:
                time.sleep(chosen.between)
            before = size_of(one.store / "snapshots") if number else 0
            one.dump()
            sizes["ours"].append(size_of(one.store / "snapshots") - before)
            criu_train(one.store, "snapshot", "export", "latest", str(images))
            plain = next(path.parent for path in images.rglob("inventory.img"))
            raw.append(size_of(plain))
            for name, store in others.items():
                sizes[name].append(store(plain))
            shutil.rmtree(images)
    for part, cut in (("1st", slice(0, 1)), ("each next", slice(1, None)), ("all", slice(None))):
        count = 1 if part == "all" else len(raw[cut])
        shares = [f"{sum(s[cut]) / count / 1e6:.1f} ({sum(s[cut]) / sum(raw[cut]):.4f})" for s in sizes.values()]
        missing = ["not installed"] * (5 - len(shares))
        row(label, part, f"{sum(raw[cut]) / count / 1e6:.0f}", *shares, *missing)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--snapshots", type=int, default=10)
    parser.add_argument("--between", type=float, default=5.0, help="seconds between two")
    parser.add_argument("--only", choices=["digits", "data", "adam"], action="append")
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to measure (default: TMPDIR)")
    chosen = parser.parse_args()
    digits = [sys.executable, str(HERE.parent / "examples/digits/train.py"), "--epochs", "100000"]
    trainee = [sys.executable, str(HERE / "trainee.py"), "--gap", "gap"]
    trainings = {
        "digits": ("PyTorch, 4 workers (examples/digits)", digits, "metrics.jsonl"),
        "data": ("PyTorch, 1 GiB of data in memory", [*trainee, "--data-mib", "1024"], "gap.ready"),
        "adam": ("PyTorch, 600 MB of Adam state", [*trainee, "--state-mb", "600"], "gap.ready"),
    }
    print(f"{machine()}; {chosen.snapshots} snapshots, {chosen.between:g} s apart; MB (share of the raw images)\n")
    head(
        "training",
        "snapshot",
        "raw images, MB",
        "ours",
        "zstd -3 of changed pages",
        "tar \\| zstd -3",
        "borg",
        "restic",
    )
    for key, (label, command, ready) in trainings.items():
        if not chosen.only or key in chosen.only:
            with tempfile.TemporaryDirectory(dir=chosen.directory) as name:
                measure(label, command, Path(name, ready), Path(name), chosen)


if __name__ == "__main__":
    main()
