"""One line and one tip out of the thousands of lines that a CRIU which failed has logged."""

from __future__ import annotations

import re
from dataclasses import dataclass
from signal import Signals

from criu_train.criu.failure import Failure
from criu_train.criu.failures import FAILURES

_ERROR = re.compile(r"Error \([^)]*\): (.*)")
_HARMLESS = re.compile(
    r"Can't setup RLIMIT_NOFILE for self"  # tells that a limit is not raised further
    r"|tun: Unable to create tun"  # tells that there are no such devices, as in every container
    r"|reported by netlink|Unable to create a veth pair|net: Unexpected error|Diag module missing"  # asks the kernel
    r"|execvp\(\"ip6?tables|ip6?tables\S* -V failed"  # asks for programs that need not be there
    r"|^task_args->"  # says nothing, without a time in front
    r"|Dumping FAILED|Restoring FAILED"  # tells what is known
    r"|\bfailed with -1$|exited, status=\d+$|Unable to detach from"  # tells where it passed by on its way up
)
_SAID_AS_A_WARNING = "Unable to interrupt task"
# The last that this very task has said; others may go on.
_WAITS_FOR_A_LOCK = re.compile(
    r"^\([\d.]+\) +(\d+): \((?:flock|posix)\)flag: .*$(?!(?s:.*)^\([\d.]+\) +\1: )", re.MULTILINE
)
_LOG_TIP = "the whole log is kept beside the snapshot"


@dataclass(frozen=True)
class Explanation:
    """``what`` happened and the ``tip`` what to do, one line each, without a final stop.

    ``passing``: a moment later it may be gone. ``mendable``: as of ``Failure``.
    """

    what: str
    tip: str
    passing: bool = False
    mendable: bool = False


@dataclass(frozen=True)
class Found:
    """A row of the table, and its two sentences with the blanks filled in."""

    failure: Failure
    what: str
    tip: str


def explain(log: str, exit_code: int | None, *, timed_out: bool = False) -> Explanation:
    """Why this CRIU failed.

    ``log`` is the text of its log file, complete or not; ``exit_code`` is negative for the signal that ended it, None
    when it is not known. ``timed_out``: it was ended because it took too long.
    """
    if found := find_failure(log):
        return Explanation(found.what, found.tip, found.failure.passing, found.failure.mendable)
    if timed_out:
        return _too_long(log)
    if exit_code is not None and exit_code < 0:
        return Explanation(f"CRIU was killed by {_signal_name(-exit_code)}", _killed_tip(-exit_code))
    if first := _ERROR.search(_causes(log)):
        return Explanation(f"CRIU failed: {first[1].strip().rstrip('.!')}", _LOG_TIP)
    if exit_code in (126, 127):
        return Explanation("CRIU could not be executed", "run `criu-train setup`", mendable=True)
    code = "" if exit_code is None else f" with exit code {exit_code}"
    return Explanation(f"CRIU failed{code} and logged no reason", _LOG_TIP)


def _too_long(log: str) -> Explanation:
    if _WAITS_FOR_A_LOCK.search(log):
        what = "the restore waited in vain for a file lock that another program holds"
        return Explanation(what, "end that program", mendable=True)
    what = "the restore took longer than its time limit"
    return Explanation(what, f"allow more with --restore-timeout; {_LOG_TIP}", mendable=True)


def find_failure(log: str) -> Found | None:
    """The first row of the table that this log bears out."""
    causes = _causes(log)
    for failure in FAILURES:
        if match := failure.pattern.search(causes):
            groups = [group for group in match.groups() if group is not None]
            padded = groups + [""] * (match.re.groups - len(groups))
            return Found(failure, failure.what.format(*padded), failure.tip.format(*padded))
    return None


def _causes(log: str) -> str:
    return "\n".join(line for line in log.splitlines() if _tells_a_cause(line))


def _tells_a_cause(line: str) -> bool:
    """Lines of the log's lower levels quote paths and names that look like failures."""
    told = "Error (" in line or _SAID_AS_A_WARNING in line or not re.match(r"\(\d+\.\d+\)|pie: ", line)
    return told and not _HARMLESS.search(line)


def _signal_name(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"


def _killed_tip(number: int) -> str:
    if number == Signals.SIGKILL:
        return "look for an out-of-memory kill in the kernel's log"
    return _LOG_TIP
