"""Builds an image as a Dockerfile says: one layer an instruction, each kept until something it depends on changes.

``debian:SUITE-slim`` is made by debootstrap from the mirror that this machine installs from. Which mirror that is, how
names are resolved and how pip finds its packages are this machine's business: it is lent to each RUN by bind mounts and
environment variables, and is in no layer. Everything lies below one directory, so a second build takes no time.
"""

from __future__ import annotations

import fcntl
import fnmatch
import glob
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from containers import UNCONFINED, Bind, Container, Image
from dockerfile import Instruction, parse
from lent import apt_settings, call, lend, mirror, pip_settings

CACHE = Path(os.environ.get("CRIU_TRAIN_CONTAINER_CACHE") or "/var/tmp/criu-train-container")
DEBOOTSTRAP_LIMIT_S = 240.0
RUN_LIMIT_S = 240.0
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


@dataclass(frozen=True)
class Builder:
    """Builds in ``cache``, what is unfinished in ``scratch``."""

    cache: Path
    scratch: Path

    def build(self, dockerfile: Path, context: Path, known: Mapping[str, Image] | None = None) -> Image:
        """The image of a Dockerfile; ``known`` images can stand after FROM. Raises CalledProcessError, ValueError."""
        first, *rest = parse(dockerfile.read_text())
        image = (known or {}).get(first.text) or Image((self._debian(first.text),))
        key = _digest(*map(str, image.layers))
        for step in rest:
            if step.keyword == "RUN":
                key = _digest(key, step.text)
                image = self._with_layer(image, key, self._run, step)
            elif step.keyword == "COPY":
                key = _digest(key, step.text, *_content(context, step))
                image = self._with_layer(image, key, self._copy, step, context)
            elif step.keyword == "ENV":
                image = replace(image, environment={**image.environment, **step.pairs()})
            elif step.keyword == "WORKDIR":
                image = replace(image, workdir=step.text)
            elif step.keyword == "ENTRYPOINT":
                image = replace(image, entrypoint=step.argv(), command=())
            elif step.keyword == "CMD":
                image = replace(image, command=step.argv())
        return image

    def forget_all_but(self, *images: Image) -> None:
        """Remove the layers of earlier builds."""
        kept = {layer for image in images for layer in image.layers}
        for layer in (self.cache / "layers").glob("*"):
            if layer not in kept:
                shutil.rmtree(layer)

    # -- layers --------------------------------------------------------------------------------------------------

    def _with_layer(self, image: Image, key: str, fill: Callable[..., None], *arguments: object) -> Image:
        layer = self.cache / "layers" / key
        if not layer.exists():
            layer.parent.mkdir(exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix="layer-", dir=self.scratch))
            draft.chmod(0o755)
            fill(image, draft, *arguments)
            draft.rename(layer)
        return replace(image, layers=(layer, *image.layers))

    def _run(self, image: Image, layer: Path, step: Instruction) -> None:
        sources, settings = self.scratch / "sources.list", self.scratch / "apt.conf"
        sources.write_text(f"deb {mirror()} {self._suite(image)} main\n")
        settings.write_text(apt_settings())
        pip, lent = lend(pip_settings())
        container = Container(
            image,
            self.scratch,
            rights=UNCONFINED,
            binds=[
                *lent,
                *(Bind(Path(path), path, "ro") for path in ("/etc/resolv.conf", "/etc/hosts")),
                Bind(sources, "/etc/apt/sources.list", "ro"),
                Bind(settings, "/etc/apt/apt.conf.d/99lent", "ro"),
            ],
            own_network=False,
            upper=layer,
            environment={**pip, "DEBIAN_FRONTEND": "noninteractive"},
        )
        try:
            code, said = container.run(*step.argv(), entrypoint=(), limit_s=RUN_LIMIT_S)
        finally:
            container.close()
        if code != 0:
            raise subprocess.CalledProcessError(code, step.text, said)

    def _copy(self, image: Image, layer: Path, step: Instruction, context: Path) -> None:
        sources, target = _copied(context, step)
        place = layer / str(Path(image.workdir) / target).lstrip("/")
        for source in sources:
            if source.is_dir():
                shutil.copytree(source, place, dirs_exist_ok=True, ignore=_ignored(context))
            else:
                into = target.endswith("/")
                (place if into else place.parent).mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, place / source.name if into else place)

    # -- what FROM debian stands for -----------------------------------------------------------------------------

    def _debian(self, name: str) -> Path:
        match = re.fullmatch(r"debian:(\w+)-slim", name)
        if match is None:
            raise ValueError(f"only debian:SUITE-slim can be made here, not {name}")
        base = self.cache / f"debian-{match[1]}"
        if not base.exists():
            draft = Path(tempfile.mkdtemp(prefix="debian-", dir=self.scratch))
            draft.chmod(0o755)
            program, environment = self._debootstrap()
            arguments = ["--variant=minbase", f"--keyring={_KEYRING}", match[1], str(draft), mirror()]
            call([program, *arguments], limit_s=DEBOOTSTRAP_LIMIT_S, environment=environment)
            for name in ("etc/apt/sources.list", "var/log/bootstrap.log"):  # they name the mirror
                (draft / name).unlink()
            for archive in (draft / "var/cache/apt/archives").glob("*.deb"):
                archive.unlink()
            draft.rename(base)
        return base

    def _suite(self, image: Image) -> str:
        """The suite that the lowest layer was made of."""
        return image.layers[-1].name.removeprefix("debian-")

    def _debootstrap(self) -> tuple[str, dict[str, str]]:
        """The machine's own, else Debian's package, unpacked where nobody else sees it."""
        if found := shutil.which("debootstrap"):
            return found, {}
        place = self.scratch / "debootstrap"
        place.mkdir(exist_ok=True)
        sandbox = ["-o", "APT::Sandbox::User=root"]  # nobody else can write there
        try:
            call(["apt-get", "-qq", *sandbox, "download", "debootstrap"], limit_s=60, cwd=place)
        except subprocess.CalledProcessError:
            call(["apt-get", "-qq", "update"], limit_s=120)
            call(["apt-get", "-qq", *sandbox, "download", "debootstrap"], limit_s=60, cwd=place)
        call(["dpkg-deb", "--extract", str(next(place.glob("*.deb"))), str(place)], limit_s=60)
        return str(place / "usr/sbin/debootstrap"), {"DEBOOTSTRAP_DIR": str(place / "usr/share/debootstrap")}


@contextmanager
def building_place() -> Iterator[Builder]:
    """The cache for one of us at a time; what a killed predecessor left in its scratch directory is removed."""
    CACHE.mkdir(parents=True, exist_ok=True)
    lock = os.open(CACHE / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    scratch = CACHE / "scratch"
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            yield Builder(CACHE, scratch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    finally:
        os.close(lock)


# -- what a COPY copies ------------------------------------------------------------------------------------------


def _copied(context: Path, step: Instruction) -> tuple[list[Path], str]:
    patterns, target = step.sources()
    found = [Path(name) for pattern in patterns for name in sorted(glob.glob(str(context / pattern)))]
    missing = [pattern for pattern in patterns if not glob.glob(str(context / pattern)) and "*" not in pattern]
    if missing or not found:
        raise ValueError(f"COPY {step.text}: not in the project: {' '.join(missing)}")
    if len(found) > 1 and not target.endswith("/"):
        raise ValueError(f"COPY {step.text}: several things need a directory, written with a slash at its end")
    return found, target


def _content(context: Path, step: Instruction) -> Iterator[str]:
    """Names, modes and bytes of all that is copied: what the layer's key depends on."""
    ignore = _ignored(context)
    for source in _copied(context, step)[0]:
        alone: tuple[str, list[str], list[str]] = (str(source.parent), [], [source.name])
        for directory, below, names in os.walk(source) if source.is_dir() else [alone]:
            ignored = ignore(directory, [*below, *names])
            below[:] = sorted(set(below) - ignored)
            for path in (Path(directory, name) for name in sorted(set(names) - ignored)):
                yield f"{path.relative_to(context)} {path.stat().st_mode:o}"
                yield hashlib.sha256(path.read_bytes()).hexdigest()


def _ignored(context: Path) -> Callable[[str, list[str]], set[str]]:
    """What .dockerignore keeps out, of its patterns those that name something in any directory: ``**/NAME``."""
    path = context / ".dockerignore"
    lines = path.read_text().split() if path.exists() else []
    patterns = [line.removeprefix("**/") for line in lines if line.startswith("**/")]
    return lambda _, names: {name for name in names for pattern in patterns if fnmatch.fnmatch(name, pattern)}


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
