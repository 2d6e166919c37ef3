"""One line and one tip out of the thousands of lines that a CRIU which failed has logged."""

from __future__ import annotations

import re
from dataclasses import dataclass
from signal import Signals

from criu_train.criu.failures import FAILURES

_ERROR = re.compile(r"Error \(([^)]*)\): (.*)")
_HARMLESS = re.compile(
    r"Can't setup RLIMIT_NOFILE for self"  # tells that a limit is not raised further
    r"|tun: Unable to create tun"  # tells that there are no such devices, as in every container
    r"|Dumping FAILED|Restoring FAILED"  # tells what is known
    r"|\bfailed with -1$|Unable to detach from"  # tells where it passed by on its way up
)
_LOG_TIP = "the whole log is kept beside the snapshot"


@dataclass(frozen=True)
class Explanation:
    """``what`` happened and the ``tip`` what to do, one line each, without a final stop.

    ``passing``: a moment later it may be gone.
    """

    what: str
    tip: str
    passing: bool = False


def explain(log: str, exit_code: int | None, *, timed_out: bool = False) -> Explanation:
    """Why this CRIU failed.

    ``log`` is the text of its log file, complete or not; ``exit_code`` is negative for the signal that ended it, None
    when it is not known. ``timed_out``: it was ended because it took too long.
    """
    errors = "\n".join(line for line in log.splitlines() if _tells_a_cause(line))
    for failure in FAILURES:
        if match := failure.pattern.search(errors):
            groups = [group for group in match.groups() if group is not None] or [""]
            padded = groups + [""] * (match.re.groups - len(groups))
            return Explanation(failure.what.format(*padded), failure.tip.format(*padded), failure.passing)
    if timed_out:
        return Explanation("CRIU took too long and was stopped", f"allow it more time; {_LOG_TIP}")
    if exit_code is not None and exit_code < 0:
        return Explanation(f"CRIU was killed by {_signal_name(-exit_code)}", _killed_tip(-exit_code))
    if last := _last_error(errors):
        return Explanation(f"CRIU failed: {last}", _LOG_TIP)
    if exit_code in (126, 127):
        return Explanation("CRIU could not be executed", "run `criu-train setup`")
    code = "" if exit_code is None else f" with exit code {exit_code}"
    return Explanation(f"CRIU failed{code} and logged no reason", _LOG_TIP)


def _tells_a_cause(line: str) -> bool:
    """Lines of the log's lower levels quote paths and names that look like failures."""
    return ("Error (" in line or not re.match(r"\(\d+\.\d+\)", line)) and not _HARMLESS.search(line)


def _last_error(errors: str) -> str:
    found = _ERROR.findall(errors)
    return str(found[-1][1]).strip().rstrip(".!") if found else ""


def _signal_name(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"


def _killed_tip(number: int) -> str:
    if number == Signals.SIGKILL:
        return "look for an out-of-memory kill in the kernel's log"
    return _LOG_TIP
