"""What surrounded a training when it was dumped, as the manifest keeps it: Python, libc, packages, code, GPU, data.

Everything is optional: what could not be found out is None or empty, and fields unknown here are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Component:
    """A program or library with a version of its own: ``cpython 3.11.7 /usr/bin/python3.11``."""

    name: str
    version: str | None
    path: str

    def __str__(self) -> str:
        return f"{self.name} {self.version or 'of an unknown version'}"


@dataclass(frozen=True)
class CodeVersion:
    """A git checkout. ``dirty``: files that git knows were changed and not committed; None where nobody could tell."""

    commit: str | None
    branch: str | None = None
    dirty: bool | None = None

    def __str__(self) -> str:
        on = f" on {self.branch}" if self.branch else ""
        return f"{self.commit[:10] if self.commit else 'no commit yet'}{on}" + (", with changes" if self.dirty else "")


@dataclass(frozen=True)
class Gpu:
    """The kernel's GPU drivers, each ``name version``, and the names of the devices, one for each."""

    drivers: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()


class DataFile(NamedTuple):
    """A large file that the training only reads."""

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, kw_only=True)
class Environment:
    """``packages``: by site-packages directory, the version of each installed distribution by its name."""

    python: Component | None = None
    libc: Component | None = None
    packages: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    code: CodeVersion | None = None
    gpu: Gpu = Gpu()
    data: tuple[DataFile, ...] = ()

    @property
    def package_count(self) -> int:
        return sum(map(len, self.packages.values()))

    def to_json(self) -> dict[str, Any]:
        """The object ``environment`` of a manifest; files are rows."""
        told = {name: value and asdict(value) for name in ("python", "libc", "code") for value in [getattr(self, name)]}
        packages = {directory: dict(found) for directory, found in self.packages.items()}
        return told | {"packages": packages, "gpu": asdict(self.gpu), "data": [list(one) for one in self.data]}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Environment:
        """Raises ValueError, LookupError, TypeError or AttributeError for what is no such object."""
        python, libc, code, gpu = (told.get(name) for name in ("python", "libc", "code", "gpu"))
        return cls(
            python=Component(python["name"], python["version"], python["path"]) if python else None,
            libc=Component(libc["name"], libc["version"], libc["path"]) if libc else None,
            packages={directory: dict(found) for directory, found in told.get("packages", {}).items()},
            code=CodeVersion(code["commit"], code.get("branch"), code.get("dirty")) if code else None,
            gpu=Gpu(tuple(gpu["drivers"]), tuple(gpu["devices"])) if gpu else Gpu(),
            data=tuple(DataFile(*row[:3]) for row in told.get("data", ())),
        )
