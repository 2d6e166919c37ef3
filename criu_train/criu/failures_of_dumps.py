"""Failures of a dump, causes before their consequences."""

from __future__ import annotations

from criu_train.criu.failure import AGAIN, CLOSE, LAUNCH, row

OF_DUMPS = (
    # What would not stand still.
    row(
        "ending-thread",
        r"Zombies with threads are not supported|Zombie thread not supported",
        "a task with threads was just ending",
        AGAIN,
        passing=True,
    ),
    row(
        "stopped-thread",
        r"Individually stopped threads not supported",
        "some threads of a task were just being stopped",
        AGAIN,
        passing=True,
    ),
    row(
        "pending-trap",
        r"Can't dump the (\d+) thread with a pending SIGTRAP",
        "thread {0} has a debugger's trap waiting",
        "detach the debugger from it",
    ),
    row(
        "freeze-timeout",
        r"Timeout reached. Try to interrupt|Unseizable non-zombie \d+ found, state D",
        "the tasks could not be stopped in time",
        "one waits for a disk, a network file system, or a child it started by vfork; the next dump tries again",
    ),
    row(
        "unstoppable",
        r"Unseizable non-zombie (\d+) found|SEIZE (\d+): task not stopped",
        "task {0} can't be stopped",
        "detach the debugger, profiler or strace from it",
    ),
    row(
        "script-refused",
        r"Script \S+ exited with -?[1-9]|One of more action scripts failed",
        "the snapshot's files could not be saved while the training stood still",
        "`criu-train status` tells what else went wrong",
    ),
    row(
        "session-outside",
        r"A session leader of (?:zombie process )?(\d+)\(\d+\) is outside of its pid namespace",
        "task {0} belongs to a session that started outside of the training",
        f"{LAUNCH}, which gives it a session of its own",
    ),
    row(
        "nested-namespace",
        r"Can't dump nested (\w+) namespace",
        "a task of the training lives in a {0} namespace of its own, a container inside the training",
        "run the training without a container or sandbox inside of it",
    ),
    row(
        "ended-meanwhile",
        r"(?:\d+ was killed by \d+|\d+ exited with -?\d+) unexpectedly|Task pid reused while suspending"
        r"|Can't open \d+/\S* on procfs: No such (?:file|process)",
        "a task ended while it was being dumped",
        AGAIN,
        passing=True,
    ),
    row(
        "32-bit",
        r"Can't dump task (\d+) running in 32-bit mode",
        "task {0} is a 32-bit program, which this CRIU can't dump",
        "use a 64-bit build of it",
    ),
    # Memory.
    row(
        "io-uring",
        r"anon_inode:\[io_uring\]|send_fds failed \(-22\)",  # of all descriptors, the kernel passes only these not on
        "a task uses io_uring, which CRIU can't dump",
        f"{LAUNCH}, which makes libraries do without it",
    ),
    row("userfaultfd", r"anon_inode:\[?userfaultfd", "a task uses userfaultfd, which CRIU can't dump", CLOSE),
    row(
        "strange-mapping",
        r"Unknown shit \d+ \(/?([^)\n]*?)(?: \(deleted\))?\)$",
        "a task maps memory of a kind that CRIU can't dump: {0}",
        CLOSE,
    ),
    row(
        "gpu",
        r"Error .*/dev/(?:nvidia|kfd|dri/)"
        r"|Can't dump file \d+ of that type \[20\d+\] \(chr (?:195|226|23[4-9]|50\d):\d+",
        "a task holds a GPU that was not moved aside",
        "GPUs take CUDA and NVIDIA's driver 570 or newer; watch them (nvidia-smi, NVML) from outside of the training",
    ),
    row(
        "device-mapping",
        r"Can't handle non-regular mapping on (\d+)'s map|handle_device_vma plugin failed",
        "a task maps the memory of a device",
        CLOSE,
    ),
    row(
        "probed",
        r"PID (\d+) has uprobes vma",
        "task {0} is being probed by bpftrace, perf or the like",
        "end the probing; a program keeps its mark until it is started anew",
    ),
    row(
        "sysv-shm",
        r"SysVIPC shmem map",
        "a task uses System V shared memory",
        "use POSIX shared memory or files instead",
    ),
    # Descriptors.
    row(
        "special-descriptor",
        r"Can't dump file (\d+) of that type \[\d+\] \(\S* ?\S*anon_inode:\[?([\w.:-]+)",
        "descriptor {0} is of a kind that CRIU can't dump: {1}",
        CLOSE,
    ),
    row(
        "device",
        r"Can't dump file (\d+) of that type \[(?:\d+)\] \(([^)\n]*)\)",
        "descriptor {0} is of a kind that CRIU can't dump: {1}",
        CLOSE,
    ),
    row("tun", r"Net namespace is required to dump tun link", "a task has a network tunnel (a tun device) open", CLOSE),
    row(
        "pidfd-outside",
        r"pidfd pid (\d+) is not a part of process tree",
        "a task holds a pidfd of a process outside of the training",
        CLOSE,
    ),
    row("pidfd-thread", r"PIDFD_THREAD flag is currently not supported", "a task holds a pidfd of a thread", CLOSE),
    row(
        "packet-pipe", r"packetized mode for pipes", "a task has a pipe in packet mode (O_DIRECT)", "use a socket pair"
    ),
    row(
        "unix-outside",
        r"Can't dump half of stream unix connection|Can't dump name-less external socket",
        "the training is connected by a unix socket to a program outside of it",
        "start that program inside the training, or close the connection before the dump",
    ),
    row(
        "unix-in-flight",
        r"Non-empty write queue on an in-flight socket|Found a closed in-flight socket"
        r"|In-flight connection on non-listening socket",
        "a connection over a unix socket was just being made",
        AGAIN,
        passing=True,
    ),
    row(
        "terminal",
        r"Found dangling tty|Found slave peer index",
        "a task holds a terminal open",
        "redirect its input and output to files, or start it through `criu-train run`",
    ),
    row(
        "deleted-file-too-large",
        r"Can't dump ghost file (.+) of (\d+) size",
        "the deleted file {0} ({1} bytes) is larger than what goes into a snapshot",
        "close files of that size before deleting them",
    ),
    row(
        "other-mounts",
        r"Can't lookup mount=\d+ for fd=-\d+ path=(.*)",
        "{0} runs through a mount that is not the cell's",
        "run the training without a container, a sandbox or `unshare -m` inside of it",
    ),
    row(
        "opened-outside",
        r"Can't lookup mount=\d+ for fd=(\d+) path=(.*)",
        "{1} (descriptor {0}) was opened outside of the cell",
        f"{LAUNCH}, and hand it no descriptors",
    ),
    row(
        "watch-unknown",
        r"Can't dump that handle",
        "a task watches a file that can't be found again, gone or on a file system without handles",
        CLOSE,
    ),
    row("in-flight", r"In-flight connection", "a connection was just being made", AGAIN, passing=True),
    row("netlink-unread", r"The socket has data to read", "a netlink socket had unread data", AGAIN, passing=True),
    row("corked-datagram", r"corked dgram socket", "a datagram was just being sent", AGAIN, passing=True),
    row(
        "protocol",
        r"Unsupported proto (\d+) for socket|Can't dump (\d+) inet socket",
        "a socket speaks a protocol that CRIU can't dump: number {0}",
        "use TCP or UDP; 262 is Multipath TCP, which Go programs do without when GODEBUG=multipathtcp=0 is set",
    ),
    row(
        "socket-family",
        r"Unknown socket collected \(family (\d+)\)",
        "a socket is of a family that CRIU can't dump: number {0}",
        f"38 is the kernel's cryptography, 40 talks to virtual machines; {CLOSE}",
    ),
    row(
        "no-second-name",
        r"Can't link remap to (.+): (.+)",
        "the deleted file {0} can't be given a name again: {1}",
        "keep the directory it was in writable, and mount nothing over it",
    ),
    row(
        "foreign-network",
        r"Unable to dump a socket from an external network namespace",
        "a task holds a socket of another network namespace",
        CLOSE,
    ),
    # Consequences.
    row(
        "parasite",
        r"Unable to connect a transport socket|Can't accept connection to the transport socket|Can't infect \(pid",
        "CRIU could not run its code inside a task",
        "the next dump tries again; what stands before it in the log may tell more",
    ),
    row(
        "traced",
        r"Unable to interrupt task: (\d+) \(Operation not permitted\)",
        "task {0} can't be stopped: it is traced already, or its first thread has ended",
        "detach the debugger, profiler or strace from it",
    ),
)
