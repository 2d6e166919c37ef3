"""Failures of a restore, causes before their consequences.

Paths stand in CRIU's messages without their first slash.
"""

from __future__ import annotations

from criu_train.criu.failure import OLDER, OLDER_ONLY, PRIVILEGED, row

_DAMAGED = f"run `criu-train snapshot verify`; {OLDER}"

OF_RESTORES = (
    # Processes.
    row(
        "nested-restore",
        r"Can't restore sub-task in NS",
        "a task of the snapshot lives in namespaces of its own, a container inside the training",
        "run the training without a container or sandbox inside of it",
    ),
    row("pid-taken", r"Can't fork for (\d+): File exists", "process number {0} is taken already in the cell", OLDER),
    row(
        "thread-taken",
        r"Unable to create a thread: -17$|Pid \d+ do not match expected",
        "a thread's number is taken already in the cell",
        OLDER,
    ),
    row(
        "pid-too-high",
        r"Can't fork for \d+: Invalid argument|Unable to create a thread: -22$|Can't set kernel pid_max",
        "a process number of the snapshot is higher than this machine allows",
        "raise the sysctl kernel.pid_max",
        mendable=True,
    ),
    row(
        "pid-forbidden",
        r"Can't fork for \d+: Operation not permitted|Unable to create a thread: -1$|can't open last pid fd"
        r"|Can't open \S*ns_last_pid",
        "CRIU may not choose the numbers of processes here",
        f"it needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE: {PRIVILEGED}",
        mendable=True,
    ),
    row(
        "fewer-rights",
        r"Unable to restore capabilities|Unable to (?:drop|raise ambient) capability|Can't setgroups"
        r"|Unable to set (?:real|fs|SECURE|PR_SET_SECUREBITS)|/proc/self/oom_score_adj failed"
        r"|SECCOMP_SET_MODE_FILTER returned",
        "the training had rights that may not be given to it now",
        "restore with the rights that it was started with, in a container of the same kind",
        mendable=True,
    ),
    # Files.
    row(
        "file-size",
        r"File /?(.+) has bad size (\d+) \(expect (\d+)\)",
        "/{0} has {1} bytes, the snapshot expects {2}",
        f"put that file back as it was; else {OLDER}",
    ),
    row(
        "build-id",
        r"File /?(.+) has bad build-ID",
        "/{0} is not the build that was running when the snapshot was taken",
        f"install that version again; else {OLDER}",
    ),
    row(
        "file-mode",
        r"File /?(.+) has bad mode (0\d+) \(expect (0\d+)\)",
        "/{0} has mode {1}, the snapshot expects {2}",
        "put that mode back with chmod",
    ),
    row(
        "deleted-file-lost",
        r"Can't link /?(.+) -> /?(.+): No such file",
        "the snapshot lacks the content of the deleted file /{1}",
        OLDER,
    ),
    row(
        "file-gone",
        r"Can't open (?:fake )?fi(?:le|fo) (?:\S+ \[)?/?(.+?)\]?(?: on restore)?: No such file",
        "/{0} is gone since the snapshot",
        f"put that file back; else {OLDER}",
    ),
    row(
        "file-unreadable",
        r"Can't open file /?(.+?)(?: on restore)?: (.+)",
        "/{0} can't be opened any more: {1}",
        f"make it again what it was, with the permissions that it had; else {OLDER}",
    ),
    row(
        "watched-gone",
        r"fsnotify: Unable to open /?(.+): No such file",
        "/{0}, which a task watched, is gone since the snapshot",
        f"put it back; else {OLDER}",
    ),
    row(
        "lock-taken",
        r"Can not set (?:flock|posix lock|ofd lock)",
        "a file that the training had locked is locked by another program",
        f"end that program; else {OLDER_ONLY}",
        mendable=True,
    ),
    # Sockets.
    row(
        "address-gone",
        r"Can't bind inet socket.*Cannot assign requested address",
        "a network address that the training used is gone",
        f"bring that network interface up; else {OLDER_ONLY}",
        mendable=True,
    ),
    row(
        "port-taken",
        r"Can't bind inet socket.*Address already in use",
        "a network port that the training used is taken by another program",
        f"stop that program; else {OLDER_ONLY}",
        mendable=True,
    ),
    row(
        "interface-gone",
        r"couldn't find ifindex for|Can't set 1:25 .*No such device|Can't get interface name",
        "a network interface that the training used is gone",
        f"bring it up; else {OLDER_ONLY}",
        mendable=True,
    ),
    row(
        "unreachable",
        r"Can't connect inet socket back: (.+)",
        "a network peer of the training can't be reached: {0}",
        f"bring that network up; else {OLDER_ONLY}",
        mendable=True,
    ),
    row(
        "unix-path",
        r"Can't bind id \S+ ino \d+ addr (\S+): (.+)",
        "the unix socket {0} can't be made again: {1}",
        f"make its directory again; else {OLDER}",
    ),
    row(
        "unix-peer-gone",
        r"unix: Can't connect \d+ socket: (.+)",
        "a program outside, to which the training sent datagrams, is gone: {0}",
        f"start it again (a system log?); else {OLDER_ONLY}",
        mendable=True,
    ),
    row(
        "no-net-admin",
        r"SO_SNDBUFFORCE/SO_RCVBUFFORCE: Operation not permitted|TCP repair mode ON: Operation not permitted",
        "CRIU may not restore network connections here",
        f"it needs CAP_NET_ADMIN: {PRIVILEGED}",
        mendable=True,
    ),
    # Another machine, another CRIU.
    row(
        "other-processor",
        r"FPU xsave area present, but host cpu doesn't|Corruption in (?:FPU )?\S+ area|Core march mismatch",
        "this processor can't run what ran on the snapshot's",
        f"restore on the processor model it was taken on; else {OLDER}",
    ),
    row(
        "other-kernel",
        r"Task had vdso, restorer doesn't|vDSO isn't provided by kernel|Failed to proxify dumpee|vDSO area in image"
        r"|rseq: can't restore as kernel doesn't support it",
        "this kernel lacks what the training's programs use of the snapshot's",
        f"start the kernel that it was taken on; else {OLDER}",
    ),
    row(
        "clock",
        r"Unable to (?:create a new time namespace|set a (?:monotonic|boottime) clock offset)",
        "the training's clocks can't be set",
        "it needs CAP_SYS_TIME and a kernel with time namespaces (CONFIG_TIME_NS)",
        mendable=True,
    ),
    row(
        "plugin",
        r"Missing required plugin: (\S+)",
        "the snapshot was taken with a plugin of CRIU that is not there: {0}",
        "install that plugin, or use the CRIU it was taken with (CRIU_TRAIN_CRIU)",
    ),
    row(
        "images-version",
        r"Not supported images version|Too old image|too old criu was used",
        "the images were written by a CRIU that this one doesn't understand, or are damaged",
        "use the CRIU they were taken with (CRIU_TRAIN_CRIU)",
    ),
    row(
        "images-damaged",
        r"Unexpected EOF|Img trimmed|[Mm]agic doesn't match|Read -?\d+ bytes while \d+ expected"
        r"|Failed unpacking object|Can't read (?:async pr bytes|mapping page|pages data)|Reached EOF unexpectedly"
        r"|Ghost file size mismatch|[Ii]mages? corrupt(?:ed|ion)|Corrupted ",
        "the images are damaged",
        _DAMAGED,
    ),
    # Consequences.
    row(
        "memory-layout",
        r"PR_SET_MM_MAP\) failed with|mapping with \w+$|Unable to (?:remap|reserve memory|map a guard page)"
        r"|No suitable area for task_restore|Can't mmap section for restore code",
        "a task's memory can't be laid out as it was",
        "raise the sysctl vm.max_map_count and limits on memory (`ulimit -v`)",
        mendable=True,
    ),
    row(
        "crashed",
        r"\A[^\n]* (\d+) (?:killed|stopped) by signal (?:4|7|11):",
        "task {0} crashed while it was being restored",
        _DAMAGED,
    ),
    row(
        "killed",
        r"\A[^\n]* (\d+) killed by signal 9:|Can't attach to (\d+): No such process",
        "task {0} was killed while it was being restored",
        "look for an out-of-memory kill in the kernel's log, raise the job's memory limit",
        mendable=True,
    ),
)
