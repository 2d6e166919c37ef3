"""Is this the machine the snapshot knew: asked before a restore touches anything.

Blocking is only what makes a restore fail or the training die later; what merely looks unusual is a warning, for a
snapshot refused without need is training lost.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from criu_train.store.manifest import Cpu, ExternalFile, Manifest
from criu_train.workspace.elf import build_id

# Processor flags that programs use as instructions: code that found them at its start dies of SIGILL without them.
# The other x86 flags tell of mitigations, timers and virtualisation, and come and go with the kernel's version.
_X86_INSTRUCTIONS = re.compile(
    r"(fpu|cmov|cx8|cx16|mmx|mmxext|3dnow|3dnowext|sse|sse2|pni|ssse3|sse4_1|sse4_2|sse4a|misalignsse|avx\w*|amx_\w+"
    r"|fma|fma4|xop|tbm|f16c|bmi1|bmi2|abm|popcnt|movbe|aes|vaes|pclmulqdq|vpclmulqdq|gfni|sha_ni|sha512|sm3|sm4|adx"
    r"|rdrand|rdseed|rdtscp|rdpid|lahf_lm|fsgsbase|xsave|xsaveopt|xsavec|rtm|hle|clflush|clflushopt|clwb|clzero"
    r"|movdiri|movdir64b|waitpkg|serialize|enqcmd|pku|cldemote|cmpccxadd)"
)
_NAMED = 2  # so many files a line; the rest is counted


@dataclass(frozen=True)
class Fingerprint:
    """What matters about this machine, for the manifest."""

    kernel: str
    boot_id: str
    cpu: Cpu


@dataclass(frozen=True)
class Finding:
    """A difference: one line without a final stop, and what to do about it."""

    blocking: bool
    what: str
    tip: str


def fingerprint() -> Fingerprint:
    """This machine, now."""
    return Fingerprint(
        kernel=os.uname().release,
        boot_id=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        cpu=parse_cpuinfo(Path("/proc/cpuinfo").read_text(), os.uname().machine),
    )


def parse_cpuinfo(text: str, arch: str) -> Cpu:
    """The first processor in ``/proc/cpuinfo``; x86 calls its features flags, ARM calls them Features."""
    first = text.strip().split("\n\n")[0]
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    flags = facts.get("flags") or facts.get("Features") or ""
    return Cpu(arch, facts.get("model name") or facts.get("CPU part") or "unknown", tuple(sorted(flags.split())))


def external_file(path: str) -> ExternalFile:
    """What is needed to know a file again that a snapshot names and does not hold; raises OSError."""
    status = Path(path).stat()
    return ExternalFile(path, status.st_size, status.st_mtime_ns, status.st_mode, build_id(Path(path)))


def compare(manifest: Manifest, *, criu_version: str | None, now: Fingerprint | None = None) -> tuple[Finding, ...]:
    """What differs between the machine at the dump and this one, blocking findings first; reads nothing but metadata.

    ``criu_version`` is that of the CRIU which would restore, None when there is none.
    """
    here = now or fingerprint()
    found = [
        *_compare_criu(manifest.criu_version, criu_version),
        *_compare_cpu(manifest.cpu, here.cpu),
        *_compare_kernel(manifest.kernel, here.kernel),
        *_compare_files(manifest.external),
    ]
    return tuple(sorted(found, key=lambda one: not one.blocking))


def _compare_criu(then: str, now: str | None) -> Iterable[Finding]:
    if now is None:
        yield Finding(True, "there is no CRIU that works here", "run `criu-train setup`")
    elif _version(now) < _version(then):
        yield Finding(
            False, f"CRIU is older than at the dump: {now}, then {then}", "if the restore fails: `criu-train setup`"
        )


def _compare_cpu(then: Cpu, now: Cpu) -> Iterable[Finding]:
    if then.arch != now.arch:
        tip = "restore on a machine of the same architecture"
        yield Finding(True, f"the processor is {now.arch}, at the dump it was {then.arch}", tip)
        return
    # Elsewhere than on x86 the kernel lists only what programs may use.
    x86 = then.arch in ("x86_64", "i386", "i686")
    missing = [flag for flag in then.flags if flag not in now.flags]
    used = [flag for flag in missing if not x86 or _X86_INSTRUCTIONS.fullmatch(flag)]
    if used:
        yield Finding(
            True,
            f"this processor ({now.model}) lacks {_some(used, 6)}, which the one at the dump ({then.model}) has",
            "restore on a processor of the same or a newer generation",
        )
    elif then.model != now.model:
        yield Finding(
            False,
            f"the processor is another model: {now.model}, then {then.model}",
            "results may differ in the last bits where libraries choose their code by processor",
        )


def _compare_kernel(then: str, now: str) -> Iterable[Finding]:
    if then != now:
        tip = "nothing to do if the restore works; else boot the kernel of the dump"
        yield Finding(False, f"the kernel is {now}, at the dump it was {then}", tip)


def _compare_files(files: Iterable[ExternalFile]) -> Iterable[Finding]:
    by_problem: dict[str, list[str]] = {}
    for one in files:
        if problem := _problem(one):
            by_problem.setdefault(problem, []).append(one.path)
    tips = {
        _GONE: "put it back from where it came: the restored training has it open or mapped",
        _OTHER_TIME: "if it is data or code, the training goes on with what is in it now",
    }
    plural = {_GONE: "are missing", _OTHER_SIZE: "have other sizes than at the dump"}
    for problem, paths in by_problem.items():
        yield Finding(
            problem != _OTHER_TIME,
            f"{_some(paths, _NAMED)} {plural.get(problem, problem) if len(paths) > 1 else problem}",
            tips.get(problem, "install again the version that was there at the dump"),
        )


_GONE = "is missing"
_OTHER_SIZE = "has another size than at the dump"
_OTHER_MODE = "changed its kind or permissions"
_OTHER_BUILD = "was replaced by another build"
_OTHER_TIME = "was written to since the dump"


def _problem(then: ExternalFile) -> str | None:
    try:
        status = Path(then.path).stat()
    except OSError:
        return _GONE
    if status.st_size != then.size:
        return _OTHER_SIZE
    if then.mode is not None and status.st_mode != then.mode:
        return _OTHER_MODE
    if status.st_mtime_ns == then.mtime_ns:
        return None
    build = build_id(Path(then.path))
    if build is None or then.build is None:
        return _OTHER_TIME if build == then.build else _OTHER_BUILD
    return None if build == then.build else _OTHER_BUILD


def _some(names: list[str], most: int) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])
