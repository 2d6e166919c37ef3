"""Failures of CRIU that people meet: a pattern in its log, what it means, what to do.

Order matters: the first row whose pattern is found anywhere in the log wins, so causes come before their consequences.
The wording is that of CRIU 4.2; what this project's command lines rule out is left out.
"""

from __future__ import annotations

from dataclasses import replace

from criu_train.criu.failure import NEWER, PRIVILEGED, SPACE, row
from criu_train.criu.failures_of_dumps import OF_DUMPS
from criu_train.criu.failures_of_restores import OF_RESTORES

_OF_THE_MACHINE = (
    row(
        "watch-limit",
        r"Can't create inotify for .*Too many open files|Can't add watch for .*No space left",
        "this machine allows no more file watches",
        "raise the sysctls fs.inotify.max_user_instances and fs.inotify.max_user_watches",
    ),
    row("disk-full", r"No space left on device", "the disk is full", SPACE),
    row("disk-quota", r"Disk quota exceeded", "the disk quota is used up", SPACE),
    row(
        "file-size-limit",
        r"File too large",
        "a file would get larger than the limit on the size of files allows",
        "raise it with `ulimit -f unlimited`",
    ),
    row(
        "descriptor-limit",
        r"Too many open files|Can't chose service_fd_base",
        "CRIU may not open as many files as it needs",
        "raise the limit with `ulimit -n`",
    ),
    row(
        "out-of-memory",
        r"Cannot allocate memory|mapping with fffffffffffffff4$",
        "there is not enough memory",
        "free memory, or raise the job's memory limit",
    ),
    row(
        "process-limit",
        r"(?:fork|clone).*Resource temporarily unavailable|Unable to create a thread: -11$",
        "no more processes are allowed",
        "raise the limit with `ulimit -u`, or the pids limit of the container",
    ),
    row(
        "not-privileged",
        r"CRIU needs to have the CAP_SYS_ADMIN|You need to be root"
        r"|Unable create a network namespace: Operation not permitted",
        "CRIU lacks the privileges it needs",
        PRIVILEGED,
    ),
    row(
        "limits-unreadable",
        r"Can't get rlimit",
        "CRIU may not read the limits of another user's processes",
        "it needs CAP_SYS_RESOURCE for that; in a container: --privileged; else run without --user",
    ),
    row(
        "security-module",
        r"Unable to connect a transport socket: Permission denied|can't write lsm profile|mismatched lsm types"
        r"|[Ss]etting SELinux socket context|getting selinux profile failed|failed to open aa policy",
        "a security module (SELinux, AppArmor) stops CRIU",
        "allow it there; in a container: --security-opt label=disable --security-opt apparmor=unconfined",
    ),
    row(
        "under-seccomp",
        r"suspending seccomp failed",
        "CRIU itself lives under a seccomp filter and can't look behind the training's",
        "in a container: --security-opt seccomp=unconfined, or --privileged",
    ),
    row(
        "kernel-newer",
        r"Can't get 1:16 opt|Can't find vDSO/VVAR bounds|Kdat sizes of vdso/vvar differ|Unexpected rt vDSO area bounds",
        "this CRIU is too old for the running kernel",
        NEWER,
    ),
    row(
        "kernel-lacks-rseq",
        r"has rseq but kernel lacks get_rseq_conf",
        "this kernel is too old for the training's C library",
        "use a kernel of 5.13 or newer, or set GLIBC_TUNABLES=glibc.pthread.rseq=0 for the training",
    ),
    row(
        "kernel-lacks-diag",
        r"Sockets \(family \d+ proto \d+\) are not collected|Can't get \d+:\d+ opt: Operation not supported",
        "this kernel can't tell what CRIU asks about sockets",
        "load the modules unix_diag, tcp_diag, udp_diag, inet_diag, netlink_diag and packet_diag, or use a kernel"
        " built with them",
    ),
    row(
        "kernel-features",
        r"Could not initialize kernel features detection",
        "CRIU could not find out what this kernel can do",
        "run `criu-train doctor`, which tells what is missing",
    ),
    row(
        "nftables",
        r"Locking (?:network|connection) failed using nftables|CRIU was built without libnftables",
        "the network could not be locked with nftables",
        "load the kernel module nf_tables and give CAP_NET_ADMIN, or run `criu-train setup` to find out what works",
    ),
    row(
        "iptables",
        r"Failed to lock TCP connection|iptables-restore returned",
        "the network could not be locked with iptables",
        "install iptables, or run `criu-train setup` to find out what works here",
    ),
)
_OF_OURS = row(
    "image-stream",
    r"Unable to connect to image streamer socket|Failed to communicate with the image streamer|Broken pipe",
    "the process that keeps CRIU's images is gone",
    "it is started anew; look for an out-of-memory kill in the kernel's log",
)

FAILURES = (
    *(replace(failure, mendable=True) for failure in _OF_THE_MACHINE),
    _OF_OURS,
    *OF_DUMPS,
    *OF_RESTORES,
)
