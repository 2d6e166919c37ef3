"""Starting a process from init: the training with everything as it would be without us, or CRIU.

Standard library only; between fork and exec nothing here may fail silently, so errors travel back over a pipe.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import struct
import termios
from dataclasses import dataclass, field

from criu_train.cell.capabilities import drop_capabilities, leave_nothing_to_inherit

KEPT_FD = 3  # of a helper's descriptors, the one that was handed to it

_libc = ctypes.CDLL(None, use_errno=True)

_SYS_SECCOMP = 317  # x86-64
_SECCOMP_SET_MODE_FILTER = 1
# Without it, kernels before 5.16 switch off speculative store bypass for filtered processes, which costs speed.
_SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4
_AUDIT_ARCH_X86_64 = 0xC000003E
_SYS_IO_URING_SETUP = 425
_ENOSYS = 38


@dataclass(frozen=True)
class Launch:
    """What the training gets; everything not named here it inherits from the supervisor through init.

    ``terminal``: the slave of a pseudo-terminal that it has instead of ``output``, -1 for none.
    ``ignored``: signals that whoever called us had set to be ignored (nohup does). ``ids`` is (uid, gid, supplementary
    groups) or None to stay who we are; ``environment`` is laid over init's own. ``drop_capabilities``: see
    ``capabilities``.
    """

    argv: tuple[str, ...]
    output: str
    first_pid: int
    umask: int
    nice: int
    oom_score_adj: int
    ignored: tuple[int, ...] = ()
    ids: tuple[int, int, tuple[int, ...]] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    terminal: int = -1
    drop_capabilities: bool = True


@dataclass(frozen=True)
class LaunchFailure:
    """Why the command could not be executed: the errno of exec or of what came before it."""

    errno: int
    step: str


def set_next_pid(pid: int) -> None:
    """Make ``pid`` the first candidate for the next process of this PID namespace (pid_namespaces(7))."""
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:  # noqa: PTH123 - no pathlib in the smallest PID 1
        file.write(str(pid - 1))


def last_pid() -> int:
    """The PID counter of this PID namespace."""
    with open("/proc/sys/kernel/ns_last_pid") as file:  # noqa: PTH123
        return int(file.read())


def start_training(launch: Launch) -> int | LaunchFailure:
    """Fork and exec the training. Returns its PID in the cell, or why it could not be executed.

    Raises OSError when there can be no process at all.
    """
    set_next_pid(launch.first_pid)
    report_read, report_write = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(report_read)
        os.close(report_write)
        raise
    if pid == 0:
        step = "prepare"
        try:
            os.close(report_read)
            os.setsid()
            if launch.terminal >= 0:
                _own_terminal(launch.terminal)
            else:
                _own_streams(launch.output)
            report_write = _keep_only_standard_streams(report_write)
            _plain_process(launch.nice, launch.oom_score_adj)
            os.umask(launch.umask)
            for number in launch.ignored:
                signal.signal(number, signal.SIG_IGN)
            refuse_io_uring()
            step = "capabilities"
            if launch.drop_capabilities:
                drop_capabilities()
            if launch.ids is not None:
                leave_nothing_to_inherit()
                step = "user"
                uid, gid, groups = launch.ids
                os.setgroups(groups)
                os.setgid(gid)
                os.setuid(uid)
            step = "exec"
            os.execvpe(launch.argv[0], launch.argv, {**os.environ, **launch.environment})  # noqa: S606
        except Exception as error:
            # What is no OSError is a command line or environment that no process can have.
            number = getattr(error, "errno", None) or errno.EINVAL
            os.write(report_write, struct.pack("i", number) + step.encode())
        finally:
            os._exit(127)
    os.close(report_write)
    with os.fdopen(report_read, "rb") as report:
        failure = report.read()
    if not failure:
        return pid
    os.waitpid(pid, 0)
    return LaunchFailure(errno=struct.unpack("i", failure[:4])[0], step=failure[4:].decode())


def start_helper(argv: list[str], nice: int, oom_score_adj: int, stderr: str, keep: int = -1) -> int:
    """Start CRIU in a session of its own (so that its scripts can be ended with it). Returns its PID in the cell.

    ``keep``: a descriptor that it gets as KEPT_FD, -1 for none. Raises OSError when there can be no process.
    """
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            null = os.open("/dev/null", os.O_RDWR)
            out = os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(null, 0)
            os.dup2(out, 1)
            os.dup2(out, 2)
            if keep >= 0:
                os.dup2(keep, KEPT_FD)
            os.closerange(KEPT_FD + (keep >= 0), 4096)
            _plain_process(nice, oom_score_adj)
            os.execv(argv[0], argv)  # noqa: S606
        finally:
            os._exit(127)
    return pid


def prefer_this_process() -> None:
    """For init: events must be read promptly, and it must be the last to go when memory is short."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write("-900")


def refuse_io_uring() -> None:
    """From here on io_uring_setup(2) answers ENOSYS: CRIU can't dump a ring, and libraries fall back to epoll.

    Raises OSError without CAP_SYS_ADMIN.
    """

    def instruction(code: int, if_true: int, if_false: int, operand: int) -> bytes:
        return struct.pack("HBBI", code, if_true, if_false, operand)

    load, jump_if_equal, answer = 0x20, 0x15, 0x06
    program = b"".join(
        [
            instruction(load, 0, 0, 4),  # seccomp_data.arch
            instruction(jump_if_equal, 0, 3, _AUDIT_ARCH_X86_64),
            instruction(load, 0, 0, 0),  # seccomp_data.nr
            instruction(jump_if_equal, 0, 1, _SYS_IO_URING_SETUP),
            instruction(answer, 0, 0, 0x00050000 | _ENOSYS),  # SECCOMP_RET_ERRNO
            instruction(answer, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
        ]
    )
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    if _libc.syscall(_SYS_SECCOMP, _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_SPEC_ALLOW, header) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


def _own_streams(output: str) -> None:
    """stdin, stdout and stderr opened inside the cell: CRIU can't find descriptors of another mount namespace."""
    null = os.open("/dev/null", os.O_RDONLY)
    out = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    # First out of the way, so that neither is overwritten while the three are laid out.
    null, out = os.dup2(null, 100), os.dup2(out, 101)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)


def _own_terminal(slave: int) -> None:
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    for number in range(3):
        os.dup2(slave, number)


def _keep_only_standard_streams(keep: int) -> int:
    kept = os.dup2(keep, 3, inheritable=False)
    os.closerange(4, os.sysconf("SC_OPEN_MAX") if os.sysconf("SC_OPEN_MAX") > 0 else 1 << 20)
    return kept


def _plain_process(nice: int, oom_score_adj: int) -> None:
    """Undo what init and its interpreter have set for themselves."""
    os.setpriority(os.PRIO_PROCESS, 0, nice)
    # Lowering it needs CAP_SYS_RESOURCE; without that nothing was lowered before either.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write(str(oom_score_adj))
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
