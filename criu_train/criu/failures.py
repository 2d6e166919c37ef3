"""Failures of CRIU that people meet: a pattern in its log, what it means, what to do.

Order matters: the first pattern that is found anywhere in the log wins, so causes come before their consequences.
Groups of a pattern fill ``{0}``, ``{1}``, … of the two sentences.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    pattern: re.Pattern[str]
    what: str
    tip: str
    passing: bool = False  # gone a moment later


def _row(pattern: str, what: str, tip: str, *, passing: bool = False) -> Failure:
    return Failure(re.compile(pattern, re.MULTILINE), what, tip, passing)


_SPACE = "free space there, keep fewer snapshots with --keep, or put the store elsewhere with --store"
_CLOSE = "close it before the dump, or stop using it: CRIU can't save its state"
_AGAIN = "this passes by itself, the next dump will do"
_OLDER = "an older snapshot or a cold start is used instead"
_NEWER = "run `criu-train setup`, which gets a CRIU that fits this kernel"

FAILURES = (
    # The machine.
    _row(r"No space left on device", "the disk is full", _SPACE),
    _row(r"Disk quota exceeded", "the disk quota is used up", _SPACE),
    _row(r"Cannot allocate memory", "there is not enough memory", "free memory, or raise the job's memory limit"),
    _row(
        r"CRIU needs to have the CAP_SYS_ADMIN|need(?:s)? to (?:be )?run as root",
        "CRIU lacks the privileges it needs",
        "run as root; in a container: --privileged",
    ),
    _row(
        r"Can't get rlimit",
        "CRIU may not read the limits of another user's processes",
        "it needs CAP_SYS_RESOURCE for that; in a container: --privileged; else run without --user",
    ),
    _row(
        r"Can't get 1:16 opt|Can't find vDSO/VVAR bounds|Kdat sizes of vdso/vvar differ|Unexpected rt vDSO area bounds",
        "this CRIU is too old for the running kernel",
        _NEWER,
    ),
    _row(
        r"Could not initialize kernel features detection",
        "CRIU could not find out what this kernel can do",
        "run `criu-train doctor`, which tells what is missing",
    ),
    _row(
        r"Locking (?:network|connection) failed using nftables|CRIU was built without libnftables",
        "the network could not be locked with nftables",
        "load the kernel module nf_tables, or run `criu-train setup` to find out what works here",
    ),
    _row(
        r"[Ii]ptables configuration failed|iptables-restore returned",
        "the network could not be locked with iptables",
        "install iptables, or run `criu-train setup` to find out what works here",
    ),
    # The dump: tasks.
    _row(r"Zombies with threads are not supported", "a task with threads was just ending", _AGAIN, passing=True),
    _row(r"Timeout reached. Try to interrupt", "the tasks could not be stopped in time", _AGAIN),
    _row(
        r"Unseizable non-zombie (\d+) found|Unable to (?:seize|attach)[^\n]*?(\d+)",
        "a task of the training can't be stopped because it is traced already",
        "detach the debugger, profiler or strace from it",
    ),
    _row(
        r"Script \S+ exited with [1-9]|One of more action scripts failed",
        "the snapshot's files could not be saved while the training stood still",
        "`criu-train status` tells what else went wrong",
    ),
    _row(
        r"A session leader of (?:zombie process )?(\d+)\(\d+\) is outside of its pid namespace",
        "task {0} belongs to a session that started outside of the training",
        "start the training through `criu-train run`, which gives it a session of its own",
    ),
    _row(
        r"Can't dump nested (\w+) namespace|(Nested mount) namespaces are not supported",
        "a task of the training lives in namespaces of its own, a container inside the training",
        "run the training without a container or sandbox inside of it",
    ),
    _row(
        r"(\d+) was killed by \d+ unexpectedly|(\d+) exited with \d+ unexpectedly",
        "a task ended while it was being dumped",
        _AGAIN,
        passing=True,
    ),
    # The dump: descriptors and memory.
    _row(
        r"anon_inode:\[io_uring\]",
        "a task uses io_uring, which CRIU can't dump",
        "start the training through `criu-train run`, which makes libraries do without it",
    ),
    _row(
        r"send_fds failed \(-22\)",  # of all descriptors, the kernel refuses to pass on only these
        "a task has an io_uring open, which CRIU can't dump",
        "start the training through `criu-train run`, which makes libraries do without it",
    ),
    _row(r"anon_inode:\[?userfaultfd", "a task uses userfaultfd, which CRIU can't dump", _CLOSE),
    _row(
        r"Can't dump file (\d+) of that type \[\d+\] \(\S* ?\S*anon_inode:\[?([\w.:-]+)",
        "descriptor {0} is of a kind that CRIU can't dump: {1}",
        _CLOSE,
    ),
    _row(
        r"/dev/(?:nvidia|kfd|dri/)|Can't dump file \d+ of that type \[20\d+\] \(chr (?:195|226|23[4-9]|50\d):\d+",
        "the training uses a GPU, which can't be dumped",
        "train on the CPU: GPUs are not supported yet",
    ),
    _row(
        r"Can't dump file (\d+) of that type \[(\d+)\] \(([^)\n]*)\)",
        "descriptor {0} is of a kind that CRIU can't dump: {2}",
        _CLOSE,
    ),
    _row(r"handle_device_vma plugin failed", "a task maps the memory of a device", _CLOSE),
    _row(
        r"External socket is used|Can't dump half of stream unix connection|Can't dump name-less external socket",
        "the training is connected by a unix socket to a program outside of it",
        "start that program inside the training, or close the connection before the dump",
    ),
    _row(
        r"Found dangling tty|Found slave peer index|tty: .*external",
        "a task holds a terminal open",
        "redirect its input and output to files, or start it through `criu-train run`",
    ),
    _row(
        r"Can't dump ghost file (\S+) of (\d+) size",
        "the deleted file {0} ({1} bytes) is larger than what goes into a snapshot",
        "raise --ghost-limit",
    ),
    _row(
        r"Can't lookup mount=\d+ for fd=(\d+) path=(\S*)",
        "descriptor {0} ({1}) was opened outside of the cell",
        "start the training through `criu-train run`, and hand it no descriptors",
    ),
    _row(r"Can't dump that handle|fsnotify: .*can't find", "a task watches a directory that is gone", _CLOSE),
    _row(r"SysVIPC shmem map", "a task uses System V shared memory", "use POSIX shared memory or files instead"),
    _row(r"In-flight connection", "a connection was just being made", _AGAIN, passing=True),
    _row(r"The socket has data to read", "a netlink socket had unread data", _AGAIN, passing=True),
    _row(r"corked dgram socket", "a datagram was just being sent", _AGAIN, passing=True),
    _row(
        r"Some file locks are hold by dumping tasks|Unresolved lock found",
        "a file is locked by the training and by a program outside of it",
        "give each its own lock file",
    ),
    _row(
        r"Can't link remap to (\S+)",
        "the deleted file {0} can't be given a name again",
        "keep the directory it was in writable",
    ),
    _row(
        r"Unable to dump a socket from an external network namespace",
        "a task holds a socket of another network namespace",
        _CLOSE,
    ),
    # The restore.
    _row(
        r"Can't fork for (\d+): File exists|Pid (\d+) do not match expected",
        "process number {0} is taken already in the cell",
        _OLDER,
    ),
    _row(
        r"File (.+) has bad size (\d+) \(expect (\d+)\)",
        "{0} has {1} bytes, the snapshot expects {2}",
        f"put that file back as it was; else {_OLDER}",
    ),
    _row(
        r"File (.+) has bad build-ID",
        "{0} is not the build that was running when the snapshot was taken",
        f"install that version again; else {_OLDER}",
    ),
    _row(
        r"File (.+) has bad mode (0\d+) \(expect (0\d+)\)",
        "{0} has mode {1}, the snapshot expects {2}",
        "put that mode back with chmod",
    ),
    _row(
        r"Can't link (\S+) -> (\S+): No such file",
        "the snapshot lacks the content of the deleted file {1}",
        _OLDER,
    ),
    _row(
        r"Can't open file (\S+?)(?: on restore)?: No such file",
        "{0} is gone since the snapshot",
        f"put that file back; else {_OLDER}",
    ),
    _row(
        r"Can't open file (\S+?)(?: on restore)?: Permission denied",
        "{0} can't be opened any more",
        "give the permissions back that it had",
    ),
    _row(
        r"CPU instruction capabilities do not match|FPU feature required by image|xsave (?:max )?size mismatch"
        r"|CPU capabilities do not match",
        "this processor lacks features that the snapshot's programs use",
        f"restore on the processor model it was taken on; else {_OLDER}",
    ),
    _row(
        r"Can't bind inet socket.*Cannot assign requested address",
        "a network address that the training used is gone",
        f"bring that network interface up; else {_OLDER}",
    ),
    _row(
        r"Can't bind inet socket.*Address already in use",
        "a network port that the training used is taken by another program",
        f"stop that program; else {_OLDER}",
    ),
    _row(
        r"Can't bind id \S+ ino \d+ addr (\S+): (.+)",
        "the unix socket {0} can't be made again: {1}",
        f"make its directory again; else {_OLDER}",
    ),
    _row(
        r"Unexpected EOF|Img trimmed|[Mm]agic doesn't match|Can't open inventory|Corrupted",
        "the images are damaged",
        f"run `criu-train snapshot verify`; {_OLDER}",
    ),
)
