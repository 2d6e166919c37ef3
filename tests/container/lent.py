"""What this machine lends to a RUN: its Debian mirror and its pip's configuration, whatever these are.

Neither gets into a layer of an image, nor into a file that stays.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from containers import Bind


def mirror() -> str:
    """The first Debian archive in this machine's own apt configuration."""
    listed = call(["apt-get", "indextargets", "--format", "$(REPO_URI) $(COMPONENT)"], limit_s=60)
    pairs = (line.split() for line in listed.splitlines())
    found = sorted(uri for uri, component in pairs if component == "main" and uri.rstrip("/").endswith("/debian"))
    if not found:
        raise ValueError("apt knows no Debian mirror: `apt-get update` must work")
    return found[0]


def apt_settings() -> str:
    """How this machine's apt gets through to its mirror."""
    wanted = ("Acquire::Check-", "Acquire::http", "Acquire::Retries")
    lines = call(["apt-config", "dump"], limit_s=60).splitlines()
    return "".join(f"{line}\n" for line in lines if line.startswith(wanted))


def pip_settings() -> dict[str, str]:
    """pip's configuration of this machine, from whatever file it comes, as environment variables."""
    listed = call([sys.executable, "-m", "pip", "config", "list"], limit_s=60)
    pairs = (line.partition("=") for line in listed.splitlines())
    settings = {key.rpartition(".")[2]: str(ast.literal_eval(value)) for key, _, value in pairs}
    variables = {f"PIP_{name.upper().replace('-', '_')}": value for name, value in settings.items()}
    return variables | {name: value for name, value in os.environ.items() if name.startswith("PIP_")}


def lend(settings: Mapping[str, str]) -> tuple[dict[str, str], list[Bind]]:
    """Settings as the container needs them: the files of this machine that they speak of lie below /lent there."""
    binds: dict[str, Bind] = {}

    def moved(match: re.Match[str]) -> str:
        path = Path(match[2])
        if not path.exists():
            return match[0]
        # An index of packages refers to files beside itself: file:///place/simple.
        source = path.parent if path.name == "simple" else path
        binds[str(source)] = Bind(source, f"/lent{source}", "ro")
        return f"{match[1] or ''}/lent{path}"

    lent = {name: re.sub(r"(?<!\S)(file://)?(/\S+)", moved, value) for name, value in settings.items()}
    return lent, [*binds.values()]


def call(
    argv: list[str], *, limit_s: float, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """What a program says; raises CalledProcessError with what it said to the end."""
    done = subprocess.run(
        argv,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )
    if done.returncode != 0:
        raise subprocess.CalledProcessError(done.returncode, argv[:1], done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout
