"""Descriptors without a file, and devices."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path

from held.common import Use, child, kept, libc, must, nothing


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
}
