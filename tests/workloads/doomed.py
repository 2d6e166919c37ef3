"""Trainings that hold one thing each: ``doomed.py MODE[+MODE…] [OUTSIDE]`` makes it, then writes a line a step.

Some can be carried by a snapshot and some can't: which, stands in tests/doctor/. What can be used is used in each step,
so that a thing that came back broken ends the training. ``OUTSIDE``: a path or number that the test has prepared.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import multiprocessing
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
import tty
from collections.abc import Callable
from pathlib import Path

Use = Callable[[int], object]

libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
kept: list[object] = []  # alive to the end
NEWNS, NEWPID, NEWNET, NEWIPC, NEWUTS, NEWUSER = 0x20000, 1 << 29, 1 << 30, 1 << 27, 1 << 26, 1 << 28


def must(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def nothing(_: int) -> None:
    """What is held can't be used."""


def child(life: Callable[[], object]) -> int:
    """A child that gets ready by living so far, and then waits to be killed."""
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ready)
        try:
            life()
            os.write(done, b"x")
            os.close(done)
            while True:
                time.sleep(60)
        finally:
            os._exit(1)
    os.close(done)
    assert os.read(ready, 1) == b"x", "the child could not be made ready"
    os.close(ready)
    return pid


def stray(life: Callable[[], object]) -> None:
    """The same, but no child any more: it has left the tree."""

    def leave() -> None:
        child(life)
        os._exit(0)

    pid = os.fork()
    if pid == 0:
        leave()
    os.waitpid(pid, 0)


# -- descriptors of a kind that can't be dumped, or can ----------------------------------------------------------


def userfaultfd(_: str) -> Use:
    kept.append(must(libc.syscall(323, os.O_CLOEXEC)))
    return nothing


def perf_event(_: str) -> Use:
    attributes = struct.pack("=IIQ", 1, 128, 1).ljust(128, b"\0")
    kept.append(must(libc.syscall(298, attributes, 0, -1, -1, 0)))
    return nothing


def _bpf(command: int, attributes: bytes) -> int:
    return must(libc.syscall(321, command, attributes.ljust(128, b"\0"), 128))


def bpf_map(_: str) -> Use:
    held = _bpf(0, struct.pack("=IIIII", 2, 4, 8, 4, 0))  # an array of four

    def use(step: int) -> None:
        key, value = ctypes.c_uint32(step % 4), ctypes.c_uint64(step)
        _bpf(2, struct.pack("=IxxxxQQQ", held, ctypes.addressof(key), ctypes.addressof(value), 0))

    return use


def bpf_ring(_: str) -> Use:
    kept.append(_bpf(0, struct.pack("=IIIII", 27, 0, 0, 4096, 0)))
    return nothing


def landlock(_: str) -> Use:
    kept.append(must(libc.syscall(444, struct.pack("=Q", 1), 8, 0)))
    return nothing


def device(path: str) -> Use:
    kept.append(os.open(path, os.O_RDWR))
    return nothing


def block_device(path: str) -> Use:
    kept.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    return nothing


def harmless_devices(_: str) -> Use:
    held = [os.open(f"/dev/{name}", os.O_RDWR) for name in ("null", "zero", "full", "random", "urandom")]
    return lambda _: os.read(held[1], 8)


def pidfd_outside(_: str) -> Use:
    kept.append(os.pidfd_open(1))
    return nothing


def pidfd_thread(_: str) -> Use:
    kept.append(must(libc.syscall(434, os.getpid(), os.O_EXCL)))
    return nothing


def pidfd(_: str) -> Use:
    held = os.pidfd_open(child(lambda: None))
    return lambda _: signal.pidfd_send_signal(held, 0)


def packet_pipe(_: str) -> Use:
    kept.append(os.pipe2(os.O_DIRECT))
    return nothing


def event_descriptors(_: str) -> Use:
    eventfd = os.eventfd(0)
    timer = must(libc.timerfd_create(time.CLOCK_MONOTONIC, 0))
    must(libc.timerfd_settime(timer, 0, struct.pack("=qqqq", 0, 1_000_000, 0, 1_000_000), None))
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    kept.append(must(libc.signalfd(-1, struct.pack("=Q", 1 << (signal.SIGUSR2 - 1)), 0)))
    poll = select.epoll()
    poll.register(timer, select.EPOLLIN)

    def use(step: int) -> int:
        os.eventfd_write(eventfd, step + 1)
        assert os.eventfd_read(eventfd) == step + 1
        assert poll.poll(5), "the timer stands still"
        return len(os.read(timer, 8))

    return use


def escaped_poll(_: str) -> Use:
    """A descriptor that is watched, closed here, and still open in a child."""
    poll, pair = select.epoll(), os.pipe()
    poll.register(pair[0], select.EPOLLIN)
    child(lambda: None)
    os.close(pair[0])
    kept.extend((poll, pair))
    return nothing


def moved_poll(_: str) -> Use:
    """A descriptor that is watched, and known here by another number now."""
    poll, pair = select.epoll(), os.pipe()
    poll.register(pair[0], select.EPOLLIN)
    other = os.dup(pair[0])
    os.close(pair[0])

    def use(step: int) -> None:
        os.write(pair[1], b"x")
        assert poll.poll(5), "nothing is heard"
        os.read(other, 1)

    return use


def inotify(directory: str) -> Use:
    watch = libc.inotify_init()
    must(libc.inotify_add_watch(watch, (directory or ".").encode(), 0x100))

    def use(step: int) -> int:
        file = Path(directory, f"touched-{step}")
        file.touch()
        file.unlink()
        return len(os.read(watch, 4096))

    return use


def overlay_watch(_: str) -> Use:
    """A watch of a directory on a mount of our own that gives no handles."""
    for name in ("lower", "upper", "work", "seen"):
        Path(name).mkdir()
    layers = b"lowerdir=lower,upperdir=upper,workdir=work"
    must(libc.mount(b"none", b"seen", b"overlay", 0, layers))
    Path("seen/watched").mkdir()
    kept.append(watch := libc.inotify_init())
    must(libc.inotify_add_watch(watch, b"seen/watched", 2))
    return nothing


def fanotify(_: str) -> Use:
    kept.append(group := must(libc.fanotify_init(0, os.O_RDONLY)))
    must(libc.fanotify_mark(group, 1, ctypes.c_uint64(8), -100, b"."))
    return nothing


def fanotify_names(_: str) -> Use:
    """One that reports names, as file watchers of today ask for it."""
    kept.append(group := must(libc.fanotify_init(0xC00, os.O_RDONLY)))
    must(libc.fanotify_mark(group, 1 | 8, ctypes.c_uint64(0x100 | 0x40000000), -100, b"."))
    return nothing


def fanotify_filesystem(_: str) -> Use:
    kept.append(group := must(libc.fanotify_init(0, os.O_RDONLY)))
    must(libc.fanotify_mark(group, 1 | 0x100, ctypes.c_uint64(8), -100, b"."))
    return nothing


def message_queue(_: str) -> Use:
    name = f"/doomed-{os.getpid()}".encode()
    held = must(libc.mq_open(name, os.O_RDWR | os.O_CREAT, 0o600, None))
    must(libc.mq_unlink(name))

    def use(_: int) -> None:
        assert libc.mq_send(held, b"x", 1, 0) == 0
        assert libc.mq_receive(held, ctypes.create_string_buffer(8192), 8192, None) == 1

    return use


def namespace_file(kind: str) -> Use:
    kept.append(os.open(f"/proc/self/ns/{kind or 'net'}", os.O_RDONLY))
    return nothing


def other_process_files(_: str) -> Use:
    held = [os.open(f"/proc/{name}", os.O_RDONLY) for name in ("1/stat", "self/status", "stat")]
    return lambda _: os.pread(held[1], 10, 0)


# -- files --------------------------------------------------------------------------------------------------------


def hidden_file(_: str) -> Use:
    """A file under a mount that came later."""
    Path("under").mkdir()
    kept.append(os.open("under/file", os.O_WRONLY | os.O_CREAT))
    must(libc.mount(b"none", b"under", b"tmpfs", 0, None))
    return nothing


def deleted_file(_: str) -> Use:
    file = os.open("gone", os.O_RDWR | os.O_CREAT)
    os.write(file, b"12345")
    Path("gone").unlink()
    return lambda _: os.pread(file, 5, 0) == b"12345" or sys.exit("the deleted file has lost its bytes")


def linked_file(_: str) -> Use:
    file = os.open("one", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    Path("two").hardlink_to("one")
    Path("one").unlink()
    return lambda step: os.write(file, b"%d\n" % step)


def locked_files(_: str) -> Use:
    first, second = (os.open(name, os.O_RDWR | os.O_CREAT) for name in ("first", "second"))
    fcntl.flock(first, fcntl.LOCK_EX)
    fcntl.lockf(second, fcntl.LOCK_EX)
    return nothing


def write_lease(_: str) -> Use:
    fcntl.fcntl(os.open("leased", os.O_RDWR | os.O_CREAT), fcntl.F_SETLEASE, fcntl.F_WRLCK)
    return nothing


def read_lease(_: str) -> Use:
    fcntl.fcntl(os.open(__file__, os.O_RDONLY), fcntl.F_SETLEASE, fcntl.F_RDLCK)
    return nothing


# -- what leads out of the tree ------------------------------------------------------------------------------------


def unix_outside(path: str) -> Use:
    link = socket.socket(socket.AF_UNIX)
    link.connect(path)
    kept.append(link)
    return nothing


def descriptor_from_outside(path: str) -> Use:
    """One that a program outside of the tree hands over."""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(path)
        kept.extend(socket.recv_fds(link, 1, 1)[1])
    return nothing


def datagrams_outside(path: str) -> Use:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    link.connect(path)
    return lambda _: link.send(b"a line for the log")


def fifo_outside(path: str) -> Use:
    held = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    return lambda _: os.write(held, b"x")


def stray_with_pipe(_: str) -> Use:
    ours, theirs = os.pipe()

    def life() -> None:
        os.close(ours)

    stray(life)
    os.close(theirs)
    return lambda _: select.select([ours], [], [], 0)[0] and sys.exit("the pipe has no other end any more")


def stray_alone(_: str) -> Use:
    stray(lambda: None)
    return nothing


def stray_with_socket(_: str) -> Use:
    ours, theirs = socket.socketpair()
    stray(ours.close)
    theirs.close()
    kept.append(ours)
    return nothing


def half_a_pipe(_: str) -> Use:
    """A pipe whose other end nobody has any more."""
    ours, theirs = os.pipe()
    os.close(theirs)
    return lambda _: os.read(ours, 1) == b"" or sys.exit("somebody writes into the pipe")


def terminal_outside(path: str) -> Use:
    kept.append(os.open(path, os.O_RDWR | os.O_NOCTTY))
    return nothing


def terminal_inside(_: str) -> Use:
    master, slave = os.openpty()
    tty.setraw(slave)

    def use(_: int) -> None:
        os.write(slave, b"x")
        assert os.read(master, 1) == b"x"

    return use


def shell_in_terminal(_: str) -> Use:
    pid, master = os.forkpty()
    if pid == 0:
        os.execvp("sh", ["sh", "-c", "stty -echo; while read word; do echo $word; done"])

    def use(step: int) -> None:
        os.write(master, b"%d\n" % step)
        while str(step).encode() not in os.read(master, 4096):
            pass

    return use


# -- sockets ------------------------------------------------------------------------------------------------------


def hold_socket(family: int, kind: int, protocol: int = 0) -> Use:
    kept.append(socket.socket(family, kind, protocol))
    return nothing


def netlink_watch(_: str) -> Use:
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    link.bind((0, 1))
    kept.append(link)
    return nothing


def loopback(_: str) -> Use:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        server, _peer = listening.accept()
    kept.append(socket.create_server(("127.0.0.1", 0)))

    def use(_: int) -> None:
        client.sendall(b"x")
        assert server.recv(1) == b"x"

    return use


def tcp_outside(port: str) -> Use:
    kept.append(socket.create_connection(("127.0.0.1", int(port))))
    return nothing


def datagrams(_: str) -> Use:
    first, second = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    second.bind(("127.0.0.1", 0))

    def use(_: int) -> None:
        first.sendto(b"x", second.getsockname())
        assert second.recv(1) == b"x"

    return use


def unix_pairs(_: str) -> Use:
    pairs = [socket.socketpair(socket.AF_UNIX, kind) for kind in (1, 2, 5)]

    def use(_: int) -> None:
        for one, other in pairs:
            one.send(b"x")
            assert other.recv(1) == b"x"

    return use


# -- memory ---------------------------------------------------------------------------------------------------------


def secret_memory(_: str) -> Use:
    secret = must(libc.syscall(447, 0))
    os.ftruncate(secret, 4096)
    kept.append(mmap.mmap(secret, 4096))
    return nothing


def sysv_memory(_: str) -> Use:
    segment = must(libc.shmget(0, 4096, 0o1600))
    assert libc.shmat(segment, None, 0)
    must(libc.shmctl(segment, 0, None))
    return nothing


def sysv_semaphore(_: str) -> Use:
    held = must(libc.semget(0, 1, 0o1600))

    def use(_: int) -> None:
        must(libc.semop(held, struct.pack("=Hhh", 0, 1, 0), 1))

    return use


def sysv_messages(_: str) -> Use:
    held = must(libc.msgget(0, 0o1600))

    def use(_: int) -> None:
        must(libc.msgsnd(held, struct.pack("=qc", 1, b"x"), 1, 0))
        must(libc.msgrcv(held, ctypes.create_string_buffer(16), 8, 0, 0))

    return use


def shared_memory(_: str) -> Use:
    """Of all kinds that have no lasting name."""
    descriptor = os.memfd_create("shared")
    os.ftruncate(descriptor, 4096)
    maps = [mmap.mmap(descriptor, 4096), mmap.mmap(-1, 4096)]
    must(libc.mlock(ctypes.c_char_p(ctypes.addressof(ctypes.c_char.from_buffer(maps[1]))), 4096))

    def use(step: int) -> None:
        for one in maps:
            assert step == 0 or one[0] == (step - 1) % 256
            one[0] = step % 256

    return use


def huge_memory(_: str) -> Use:
    held = mmap.mmap(-1, 2 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)
    held[0] = 1
    kept.append(held)
    return nothing


def aio_ring(_: str) -> Use:
    context = ctypes.c_ulong()
    must(libc.syscall(206, 8, ctypes.byref(context)))
    kept.append(context)
    return nothing


# -- tasks ----------------------------------------------------------------------------------------------------------


def child_apart(flags: int) -> Use:
    """A child in a namespace of its own."""
    child(lambda: must(libc.unshare(flags)))
    return nothing


def grandchild_apart(_: str) -> Use:
    """A child whose own child is in another PID namespace."""

    def life() -> None:
        must(libc.unshare(NEWPID))
        child(lambda: None)

    child(life)
    return nothing


def root_apart(flags: int) -> Use:
    must(libc.unshare(flags))
    return nothing


def sandboxed(_: str) -> Use:
    """Mount, PID and network namespaces at once, as a sandbox makes them."""

    def life() -> None:
        must(libc.unshare(NEWNS | NEWPID | NEWNET))
        child(lambda: None)

    child(life)
    return nothing


def traced(_: str) -> Use:
    tracee = child(lambda: None)
    child(lambda: must(libc.ptrace(0x4206, tracee, 0, 0)))
    return nothing


def dead_leader(_: str) -> Use:
    """A process whose first thread has ended, long before the others."""
    if os.fork() == 0:
        threading.Thread(target=time.sleep, args=(600,)).start()
        libc.syscall(60, 0)
    time.sleep(0.2)
    return nothing


def by_vfork(_: str) -> Use:
    """Who has started a child by vfork waits for it, and can't be stopped meanwhile."""

    def life() -> None:
        if os.fork() == 0 and libc.syscall(56, 0x4000 | 17, 0, 0, 0, 0) == 0:
            time.sleep(600)
            os._exit(0)

    child(life)
    time.sleep(0.2)
    return nothing


def own_session(_: str) -> Use:
    child(os.setsid)
    return nothing


def orphaned_session(_: str) -> Use:
    """A process whose session's leader has ended."""

    def life() -> None:
        must(libc.prctl(36, 1, 0, 0, 0))  # orphans stay below us
        if (leader := os.fork()) == 0:
            os.setsid()
            child(lambda: None)
            os._exit(0)
        os.waitpid(leader, 0)

    child(life)
    return nothing


def jailed(_: str) -> Use:
    Path("jail").mkdir(exist_ok=True)

    def life() -> None:
        os.chroot("jail")
        os.chdir("/")
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        must(libc.prctl(38, 1, 0, 0, 0))

    child(life)
    return nothing


def real_time(_: str) -> Use:
    child(lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1)))
    return nothing


def stopped(_: str) -> Use:
    os.kill(child(lambda: None), signal.SIGSTOP)
    return nothing


def threads(_: str) -> Use:
    for _number in range(3):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    return lambda _: threading.active_count() == 4 or sys.exit("threads were lost")


def _square(number: int) -> int:
    return number * number


def spawn_pool(_: str) -> Use:
    pool = multiprocessing.get_context("spawn").Pool(2)
    kept.append(pool)
    return lambda step: pool.map(_square, [step, step + 1])


MODES: dict[str, Callable[[str], Use]] = {
    "userfaultfd": userfaultfd,
    "perf-event": perf_event,
    "bpf-map": bpf_map,
    "bpf-ring": bpf_ring,
    "landlock": landlock,
    "device": device,
    "block-device": block_device,
    "harmless-devices": harmless_devices,
    "pidfd-outside": pidfd_outside,
    "pidfd-thread": pidfd_thread,
    "pidfd": pidfd,
    "packet-pipe": packet_pipe,
    "event-descriptors": event_descriptors,
    "escaped-poll": escaped_poll,
    "moved-poll": moved_poll,
    "inotify": inotify,
    "overlay-watch": overlay_watch,
    "fanotify": fanotify,
    "fanotify-names": fanotify_names,
    "fanotify-filesystem": fanotify_filesystem,
    "message-queue": message_queue,
    "namespace-file": namespace_file,
    "other-process-files": other_process_files,
    "hidden-file": hidden_file,
    "deleted-file": deleted_file,
    "linked-file": linked_file,
    "locked-files": locked_files,
    "write-lease": write_lease,
    "read-lease": read_lease,
    "unix-outside": unix_outside,
    "descriptor-from-outside": descriptor_from_outside,
    "datagrams-outside": datagrams_outside,
    "fifo-outside": fifo_outside,
    "stray-with-pipe": stray_with_pipe,
    "stray-alone": stray_alone,
    "stray-with-socket": stray_with_socket,
    "half-a-pipe": half_a_pipe,
    "terminal-outside": terminal_outside,
    "terminal-inside": terminal_inside,
    "shell-in-terminal": shell_in_terminal,
    "mptcp": lambda _: hold_socket(socket.AF_INET, socket.SOCK_STREAM, 262),
    "vsock": lambda _: hold_socket(socket.AF_VSOCK, socket.SOCK_STREAM),
    "xdp": lambda _: hold_socket(44, socket.SOCK_RAW),
    "packet": lambda _: hold_socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300),
    "raw": lambda _: hold_socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "netlink-watch": netlink_watch,
    "loopback": loopback,
    "tcp-outside": tcp_outside,
    "datagrams": datagrams,
    "unix-pairs": unix_pairs,
    "secret-memory": secret_memory,
    "sysv-memory": sysv_memory,
    "sysv-semaphore": sysv_semaphore,
    "sysv-messages": sysv_messages,
    "shared-memory": shared_memory,
    "huge-memory": huge_memory,
    "aio-ring": aio_ring,
    "child-apart": lambda flags: child_apart(int(flags)),
    "grandchild-apart": grandchild_apart,
    "root-apart": lambda flags: root_apart(int(flags)),
    "sandboxed": sandboxed,
    "traced": traced,
    "dead-leader": dead_leader,
    "by-vfork": by_vfork,
    "own-session": own_session,
    "orphaned-session": orphaned_session,
    "jailed": jailed,
    "real-time": real_time,
    "stopped": stopped,
    "threads": threads,
    "spawn-pool": spawn_pool,
}


def main(modes: str, outside: str = "") -> None:
    uses = [MODES[mode](outside) for mode in modes.split("+")]
    with open("metrics.jsonl", "a") as metrics:
        for step in range(100_000):
            for use in uses:
                use(step)
            metrics.write(json.dumps({"step": step}) + "\n")
            metrics.flush()
            time.sleep(0.02)


if __name__ == "__main__":
    main(*sys.argv[1:])
