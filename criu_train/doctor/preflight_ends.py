"""Rules about what has two ends: pipes, sockets, terminals. Does the other end lie within the tree?"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

from criu_train.doctor import preflight_sockets as sockets
from criu_train.doctor.preflight_descriptors import is_terminal
from criu_train.doctor.preflight_notice import Notice, blocks, fine
from criu_train.doctor.preflight_tree import Descriptor, Tree, read_descriptors

_PACKETS = os.O_DIRECT  # of a pipe
_UNIX = ("UNIX", "UNIX-STREAM")
_TCP = ("TCP", "TCPv6")
_CARRIED = ("UDP", "UDPv6", "UDP-Lite", "UDPLITEv6", "RAW", "RAWv6", "PING", "PINGv6", "NETLINK", "PACKET")
_WHY_ALIVE = "both ends go into the snapshot, and what is on its way between them"
_PTY_SLAVES = range(136, 144)
_PTMX = (5, 2)


def look(tree: Tree) -> Iterator[Notice]:
    everything = list(tree.descriptors())
    yield from _pipes(tree, [one for one in everything if one.kind == stat.S_IFIFO])
    yield from _sockets(tree, [one for one in everything if one.kind == stat.S_IFSOCK])
    yield from _terminals(tree, [one for one in everything if one.kind == stat.S_IFCHR])


# -- pipes -------------------------------------------------------------------------------------------------------


def _pipes(tree: Tree, ends: list[Descriptor]) -> Iterator[Notice]:
    by_link: dict[str, list[Descriptor]] = {}
    for one in ends:
        by_link.setdefault(one.link, []).append(one)
        if one.link.startswith("pipe:") and one.flags & _PACKETS:
            yield blocks("packet-pipe", "the borders between packets can't be read out", tree.place(one))
    whole = [link for link, held in by_link.items() if _whole(held)]
    yield from (fine("pipes within the training", _WHY_ALIVE) for link in whole if link.startswith("pipe:"))
    halves = {link: held[0] for link, held in by_link.items() if link not in whole and not tree.is_stream(held[0])}
    for link, (pid, name) in _elsewhere(tree, halves).items():
        yield _leads_out(tree, halves[link], f"{name}, PID {pid}")


def _whole(held: list[Descriptor]) -> bool:
    return any(map(Descriptor.reads, held)) and any(map(Descriptor.writes, held))


def _elsewhere(tree: Tree, halves: dict[str, Descriptor]) -> dict[str, tuple[int, str]]:
    """Of these, the ones whose other end a process outside of the tree has, and which. Others lead nowhere."""
    found: dict[str, tuple[int, str]] = {}
    if not halves:
        return found
    ours = set(tree.pids)
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):  # noqa: PTH208
        if pid in ours:
            continue
        with contextlib.suppress(OSError):
            for number in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
                link = os.readlink(f"/proc/{pid}/fd/{number}")  # noqa: PTH115
                if link in halves and link not in found and _is_other_end(halves[link], pid, int(number)):
                    found[link] = pid, Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    return found


def _is_other_end(half: Descriptor, pid: int, number: int) -> bool:
    info = Path(f"/proc/{pid}/fdinfo/{number}").read_text(errors="replace")
    other = Descriptor(pid, number, half.link, info, None)
    return (half.reads() and other.writes()) or (half.writes() and other.reads())


def _leads_out(tree: Tree, one: Descriptor, who: str) -> Notice:
    if not one.link.startswith("pipe:"):
        why = f"{who}: it is opened again by its name, but what was on its way is lost for the program outside"
        tip = "nothing to do if both programs can bear to begin anew"
        return Notice("warns", f"the named pipe {one.link} leads to a program outside of the training", why, tip)
    what = "reading from it says that the end was reached" if one.reads() else "writing to it fails (SIGPIPE)"
    return Notice(
        "blocks",
        "a pipe leads to a program outside of the training",
        f"the dump works, but a restored pipe has no other end: {what}; now it is {who}",
        "start that program inside of the training, in the foreground, or use a named pipe or a file",
        tree.place(one),
    )


# -- sockets -----------------------------------------------------------------------------------------------------


def _sockets(tree: Tree, held: list[Descriptor]) -> Iterator[Notice]:
    first = {one.inode: one for one in reversed(held)}
    kinds = {inode: sockets.protocol(one.path) for inode, one in first.items()}
    yield from _unix(tree, {inode: one for inode, one in first.items() if kinds[inode] in _UNIX})
    yield from _tcp(tree, {inode: one for inode, one in first.items() if kinds[inode] in _TCP})
    for inode, kind in kinds.items():
        if kind in _CARRIED:
            why = "CRIU makes them anew; a snapshot that lacks datagrams that were on their way says so"
            yield fine(f"{kind} sockets", why)
        elif kind == "MPTCP":
            why = "CRIU knows TCP, UDP, UDP-Lite and raw sockets"
            yield blocks("protocol", why, tree.place(first[inode]), 262)
        elif kind and kind not in _UNIX + _TCP:
            yield Notice(
                "blocks",
                f"a socket is of a kind that CRIU can't dump: {kind}",
                "CRIU knows IP (TCP, UDP, raw), unix, netlink and packet sockets",
                "close it before the dump, or stop using it: CRIU can't save its state",
                tree.place(first[inode]),
            )


def _unix(tree: Tree, held: dict[int, Descriptor]) -> Iterator[Notice]:
    table = sockets.unix_sockets(tree.root.pid) if held else {}
    if table is None:
        why = "the kernel lists the unix sockets to root alone, and with the module unix_diag"
        yield Notice("warns", "whom the training is connected with by unix sockets can't be told", why, "run as root")
        return
    inside = partial(fine, "unix sockets within the training", _WHY_ALIVE)
    for inode, one in held.items():
        own = table.get(inode)
        if own is None:
            if sockets.protocol(one.path):  # still there
                why = "it was made in another network namespace than the training's"
                yield blocks("foreign-network", why, tree.place(one))
        elif not own.peer or own.peer in held:
            yield inside()
        elif tree.is_stream(one):
            continue
        elif own.kind == sockets.DATAGRAM and (peer := table.get(own.peer)) is not None and peer.name:
            yield fine(
                "datagram sockets to a program outside",
                "they are connected again by name; that program must be there at a restore",
                place=peer.name,
            )
        else:
            where = f" ({peer.name})" if (peer := table.get(own.peer)) is not None and peer.name else ""
            why = f"the other end{where} lives on when this one is restored, with a conversation of its own"
            yield blocks("unix-outside", why, tree.place(one))


def _tcp(tree: Tree, held: dict[int, Descriptor]) -> Iterator[Notice]:
    table = sockets.connections(tree.root.pid) if held else {}
    known = {inode: table[inode] for inode in held if inode in table}
    ends = {(one.local, one.remote) for one in known.values()}
    for inode, one in known.items():
        if one.state == sockets.LISTENING:
            yield fine("listening TCP sockets", "they listen again at the same address")
            if one.waiting:
                why = "a connection that nobody has accepted can't be dumped; the next dump will do if it is by then"
                tip = "accept connections as they come"
                yield Notice("warns", "a connection waits to be accepted", why, tip, tree.place(held[inode]))
        elif one.state != sockets.CLOSED and (one.remote, one.local) in ends:
            yield fine("ends of TCP connections within the training", _WHY_ALIVE)
        elif one.state != sockets.CLOSED:
            yield fine(
                "TCP connections to the outside",
                "they come back closed, as after any loss of a connection; or kept, with --tcp keep",
                place=one.shown,
            )


# -- terminals ---------------------------------------------------------------------------------------------------


def _terminals(tree: Tree, held: list[Descriptor]) -> Iterator[Notice]:
    inside = set(_masters(held))
    lent = set(_masters(read_descriptors(tree.init, tree.mounts))) if tree.init else set()
    if pairs := inside & {number for one in held if (number := _slave(one)) is not None}:
        yield fine("pseudo-terminals within the training", _WHY_ALIVE, count=len(pairs))
    for one in held:
        if tree.is_stream(one) and _is_any(one):
            why = "`run` gives it others: a file, or with --tty a terminal of its own"
            yield fine("standard streams that are a terminal", why, place=one.link)
        elif (number := _slave(one)) is None or number in inside:
            continue
        elif number in lent:
            yield fine("descriptors of the terminal that it was given (--tty)", "a restored training gets a new one")
        else:
            why = "the other end of the pseudo-terminal is a program outside (a shell, tmux, an ssh server)"
            yield blocks("terminal", why, f"{tree.place(one)}, {one.link}")


def _is_any(one: Descriptor) -> bool:
    return one.status is not None and is_terminal(os.major(one.status.st_rdev), os.minor(one.status.st_rdev))


def _slave(one: Descriptor) -> int | None:
    """The number of the pseudo-terminal that this is the program's side of."""
    if one.status is None or os.major(one.status.st_rdev) not in _PTY_SLAVES:
        return None
    return (os.major(one.status.st_rdev) - _PTY_SLAVES[0]) * 256 + os.minor(one.status.st_rdev)


def _masters(held: Iterator[Descriptor] | Collection[Descriptor]) -> Iterator[int]:
    for one in held:
        if one.status is not None and (os.major(one.status.st_rdev), os.minor(one.status.st_rdev)) == _PTMX:
            yield int(one.told("tty-index") or "-1")
