"""A private CRIU out of Debian's packages, fetched by the host's apt without touching the host.

apt is given its own sources, lists, cache and an empty list of installed packages: the whole closure comes along, the
C library included, and is unpacked into a directory of its own. Signatures are checked against the host's Debian
keyring. Which mirror is used is the host's choice: the address comes out of its own apt configuration.
"""

from __future__ import annotations

import compileall
import shutil
import subprocess
import tempfile
from pathlib import Path

from criu_train.errors import EnvironmentUnfitError

SUITES = ("sid", "testing")  # where CRIU is new enough, newest first

UPDATE_LIMIT_S = 180.0
DOWNLOAD_LIMIT_S = 600.0
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TOOLS = ("apt-get", "dpkg-deb")
_NETWORK_TIP = "check the network and apt's configuration (`apt-get update` must work), then try again"

_ELSEWHERE = {
    "ubuntu": "add the PPA criu/ppa, then `apt-get install criu python3-pycriu`",
    "fedora": "`dnf install criu python3-criu`",
    "rhel": "`dnf install criu python3-criu`",
    "arch": "`pacman -S criu`",
    "suse": "`zypper install criu python3-criu`",
    "alpine": "`apk add criu`",
}


def check_host() -> None:
    """Raises EnvironmentUnfitError where CRIU can't be had from Debian, with what to do there instead."""
    names = _distribution()
    if "debian" in names[:1] and all(shutil.which(tool) for tool in _TOOLS):
        return
    command = next((_ELSEWHERE[name] for name in names if name in _ELSEWHERE), "its package manager, or from source")
    raise EnvironmentUnfitError(
        "a private CRIU can only be fetched on Debian",
        tip=f"install CRIU 4.2 or newer and its Python module (here: {command}), then run `criu-train setup` again",
    )


def fetch(prefix: Path, suite: str) -> None:
    """Fill the empty directory ``prefix`` with CRIU, its libraries and pycriu from this suite.

    Raises EnvironmentUnfitError when something can't be downloaded; what lies in ``prefix`` is then of no use.
    """
    with tempfile.TemporaryDirectory(prefix="criu-train-apt-") as name:
        work = Path(name)
        archives = work / "archives"
        for directory in (work / "lists/partial", archives / "partial"):
            directory.mkdir(parents=True)
        (work / "status").touch()
        _update(work, suite)
        _apt(work, "install", "--yes", "--download-only", "criu", limit_s=DOWNLOAD_LIMIT_S)
        # Without its dependencies: it runs in our own Python.
        _apt(work, "download", "python3-pycriu", cwd=archives, limit_s=DOWNLOAD_LIMIT_S)
        for package in sorted(archives.glob("*.deb")):
            _run(["dpkg-deb", "--extract", str(package), str(prefix)], limit_s=DOWNLOAD_LIMIT_S)
    (prefix / "usr/lib/criu").mkdir(parents=True, exist_ok=True)  # so that it looks for plugins here and not elsewhere
    compileall.compile_dir(str(prefix / "usr/lib/python3/dist-packages/pycriu"), quiet=2)


def _update(work: Path, suite: str) -> None:
    """Get the suite's index from the first of the host's mirrors that has it."""
    problem = EnvironmentUnfitError("apt knows no Debian mirror", tip=_NETWORK_TIP)
    signed_by = f"[signed-by={_KEYRING}] " if _KEYRING.exists() else ""
    for mirror in _mirrors():
        (work / "sources.list").write_text(f"deb {signed_by}{mirror} {suite} main\n", encoding="utf-8")
        try:
            return _apt(work, "update", "--error-on=any", limit_s=UPDATE_LIMIT_S)
        except EnvironmentUnfitError as error:
            problem = error
    raise problem


def _mirrors() -> list[str]:
    """Addresses of the archives that the host installs from, the likeliest one for whole suites first."""
    listed = _run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(COMPONENT)"], limit_s=UPDATE_LIMIT_S)
    pairs = (line.split() for line in listed.splitlines())
    found = {pair[0] for pair in pairs if len(pair) == 2 and pair[1] == "main" and "security" not in pair[0]}
    return sorted(found, key=lambda uri: (not uri.rstrip("/").endswith("/debian"), uri))


def _apt(work: Path, *arguments: str, limit_s: float, cwd: Path | None = None) -> None:
    options = {
        "Dir::Etc::SourceList": work / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",  # pins of the host concern the host
        "Dir::Etc::PreferencesParts": "/dev/null",
        "Dir::State::Lists": work / "lists",
        "Dir::State::Status": work / "status",
        "Dir::State::Extended_States": work / "extended_states",
        "Dir::Cache::Archives": work / "archives",
        "Dir::Cache::PkgCache": "",
        "Dir::Cache::SrcPkgCache": "",
        "APT::Default-Release": "",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",  # nobody else can read our directories
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        "Debug::NoLocking": "true",  # the locks belong to the host's package database, which stays untouched
    }
    flags = [part for key, value in options.items() for part in ("-o", f"{key}={value}")]
    _run(["apt-get", "-qq", *flags, *arguments], limit_s=limit_s, cwd=cwd)


def _run(argv: list[str], *, limit_s: float, cwd: Path | None = None) -> str:
    program = argv[0]
    try:
        ended = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit_s, cwd=cwd, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise EnvironmentUnfitError(f"{program} took longer than {limit_s:.0f} s", tip=_NETWORK_TIP) from error
    if ended.returncode != 0:
        said = ended.stderr.splitlines()
        errors = [line.removeprefix("E:").strip() for line in said if line.startswith("E:")]
        why = (errors or said or [f"exit code {ended.returncode}"])[0]
        raise EnvironmentUnfitError(f"{program} failed: {why}", tip=_NETWORK_TIP)
    return ended.stdout


def _distribution() -> list[str]:
    """Names of this distribution, its own first, then those it is like."""
    try:
        lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    return f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".replace('"', "").split()
