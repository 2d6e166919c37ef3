"""Files, and what has another end: pipes, sockets, terminals."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import sys
import tty
from collections.abc import Callable
from pathlib import Path

from held.common import Use, kept, libc, must, nothing, stray


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


MODES: dict[str, Callable[[str], Use]] = {
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
}
