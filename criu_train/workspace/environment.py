"""Is this the machine the snapshot knew: asked before a restore touches anything.

Blocking is only what makes a restore fail or the training die later; what merely looks unusual is a warning, for a
snapshot refused without need is training lost.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from criu_train.store.environment import CodeVersion, Environment, Gpu
from criu_train.store.manifest import Cpu, Manifest
from criu_train.workspace.code_version import code_version
from criu_train.workspace.fingerprint import Fingerprint, fingerprint, gpu
from criu_train.workspace.replaced import Problem, Replaced, changed_files, some

# Processor flags that programs use as instructions: code that found them at its start dies of SIGILL without them.
# The other x86 flags tell of mitigations, timers and virtualisation, and come and go with the kernel's version.
_X86_INSTRUCTIONS = re.compile(
    r"(fpu|cmov|cx8|cx16|mmx|mmxext|3dnow|3dnowext|sse|sse2|pni|ssse3|sse4_1|sse4_2|sse4a|misalignsse|avx\w*|amx_\w+"
    r"|fma|fma4|xop|tbm|f16c|bmi1|bmi2|abm|popcnt|movbe|aes|vaes|pclmulqdq|vpclmulqdq|gfni|sha_ni|sha512|sm3|sm4|adx"
    r"|rdrand|rdseed|rdtscp|rdpid|lahf_lm|fsgsbase|xsave|xsaveopt|xsavec|rtm|hle|clflush|clflushopt|clwb|clzero"
    r"|movdiri|movdir64b|waitpkg|serialize|enqcmd|pku|cldemote|cmpccxadd)"
)


@dataclass(frozen=True)
class Finding:
    """A difference: one line without a final stop, and what to do about it."""

    blocking: bool
    what: str
    tip: str


def compare(manifest: Manifest, *, criu_version: str | None, now: Fingerprint | None = None) -> tuple[Finding, ...]:
    """What differs between the machine at the dump and this one, blocking findings first; changes nothing.

    ``criu_version`` is that of the CRIU which would restore, None when there is none. Looks at the metadata of files
    and at build ids; into lists of packages and for versions only where a file has changed; asks git for the code.
    What only warns, or only names what is told by its path else, is left out where it can't be found out.
    """
    here = now or fingerprint()
    found = [
        *_compare_criu(manifest.criu_version, criu_version),
        *_compare_cpu(manifest.cpu, here.cpu),
        *_compare_kernel(manifest.kernel, here.kernel),
        *_compare_files(manifest),
    ]
    if then := manifest.environment:
        with contextlib.suppress(Exception):
            found += _compare_gpu(then.gpu)
        with contextlib.suppress(Exception):
            found += _compare_code(then.code, manifest.cwd)
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
            f"this processor ({now.model}) lacks {some(used, 6)}, which the one at the dump ({then.model}) has",
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


def _compare_files(manifest: Manifest) -> Iterable[Finding]:
    """Files that a restore needs, by what was installed where they belong to it, else by what is wrong with them."""
    changed, named = changed_files(manifest.external), list[Finding]()
    with contextlib.suppress(Exception):
        rest = {problem: list(paths) for problem, paths in changed.items()}
        named = list(_compare_installed(manifest, rest))
        changed = rest  # not before: where naming them went wrong, all of them are told by their paths
    yield from named
    for problem, paths in changed.items():
        if paths:
            yield Finding(problem.blocking, f"{some(paths, 2)} {problem.tell(len(paths))}", problem.tip)


def _compare_installed(manifest: Manifest, changed: dict[Problem, list[str]]) -> Iterable[Finding]:
    """What was installed and is not any more; takes the files that this explains out of ``changed``."""
    replaced = Replaced(manifest.environment or Environment(), manifest.external, changed)
    for blocking in (True, False):
        # A file with other times may be the same file; the programs it belongs to tell more by their versions.
        if told := replaced.claim(blocking=blocking):
            tip = f"install what was there at the dump: {some(replaced.wanted(told), 6)}"
            yield Finding(blocking, some([replaced.tell(one) for one in told], 3), tip)
    if others := replaced.not_claimed():
        yield Finding(
            False,
            f"{len(others)} installed package{'s' if len(others) > 1 else ''} changed: {some(others, 3)}",
            "what the training has imported stays as it was; what it imports later comes as it is now",
        )


def _compare_gpu(then: Gpu) -> Iterable[Finding]:
    if then == Gpu():
        return
    now = gpu()
    if then.drivers and then.drivers != now.drivers:
        drivers = ", ".join(now.drivers) or "not there"
        tip = "if the restore fails: boot with the driver of the dump"
        yield Finding(False, f"the GPU driver is {drivers}, at the dump it was {', '.join(then.drivers)}", tip)
    if then.devices and then.devices != now.devices:
        tip = "a training that holds GPU memory needs the same devices"
        there = ", ".join(now.devices) or "none"
        yield Finding(False, f"the GPUs are other ones: {there}, at the dump {', '.join(then.devices)}", tip)


def _compare_code(then: CodeVersion | None, cwd: str) -> Iterable[Finding]:
    if then is None or (now := code_version(cwd)) is None:
        return
    if now.commit is None and now.dirty is None:  # nothing could be read
        return
    tip = "the restored training goes on with the code it has in memory; `run --fresh` starts anew with the new one"
    if then.commit != now.commit:
        yield Finding(False, f"the code is at {now}, the training started with {then}", tip)
    elif None not in (then.dirty, now.dirty) and then.dirty != now.dirty:
        what = "has changes that are not committed, the training started without"
        if then.dirty:
            what = "has no changes that are not committed any more, the training started with some"
        yield Finding(False, f"the code {what}", tip)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])
