"""Which connections come back closed, told by the images of sockets that a test makes up."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Any

import pytest

from criu_train.criu.connections import Reconnected, reconnect
from criu_train.criu.entries import MAGICS, pack, unpack
from criu_train.criu.find import Criu
from criu_train.criu.schema import image_schema

pytestmark = pytest.mark.criu

HEAD = MAGICS.pack(0x54564319, 0x56303138)  # any two: they are taken over as they are
ESTABLISHED, SYN_SENT, FIN_WAIT1, FIN_WAIT2, CLOSED, CLOSE_WAIT, LAST_ACK, LISTEN, CLOSING = 1, 2, 4, 5, 7, 8, 9, 10, 11
TCP, UDP = 6, 17
LOCAL = ("127.0.0.1", "::1", "10.0.0.2", "fe80::1%eth0")


def words(address: str, *, wide: bool = False) -> list[int]:
    raw = ip_address(address).packed
    if wide and len(raw) == 4:
        raw = b"\0" * 10 + b"\xff\xff" + raw
    return list(struct.unpack(f"<{len(raw) // 4}I", raw))


class Sockets:
    """files.img with the sockets that were added."""

    def __init__(self, criu: Criu) -> None:
        self._criu = criu
        self._pb = image_schema(criu.pycriu).pb
        self._entries: list[Any] = []

    def add(
        self, source: str, port: int, peer: str, peer_port: int, *, state: int = ESTABLISHED, proto: int = TCP,
        wide: bool = False, tied: bool = False,
    ) -> None:  # fmt: skip
        number = len(self._entries) + 1
        entry = self._pb.file_entry(type=4, id=number)
        socket = entry.isk
        socket.id = socket.ino = number
        socket.family, socket.type, socket.proto, socket.state = (10 if wide else 2), 1, proto, state
        socket.src_port, socket.dst_port, socket.flags, socket.backlog = port, peer_port, 2, 0
        socket.src_addr[:], socket.dst_addr[:] = words(source, wide=wide), words(peer, wide=wide)
        for name in ("uid", "euid", "signum", "pid_type", "pid"):
            setattr(socket.fown, name, 0)
        for name in ("sndbuf", "rcvbuf", "snd_tmo_sec", "snd_tmo_usec", "rcv_tmo_sec", "rcv_tmo_usec"):
            setattr(socket.opts, f"so_{name}", 0)
        if tied:
            socket.ifname = socket.opts.so_bound_dev = "tun0"
        self._entries.append(entry)

    @property
    def image(self) -> bytes:
        return pack(HEAD, self._entries)

    def decide(self, policy: Any = "close-external") -> Reconnected:
        def reachable(address: Any) -> bool:
            return not str(address).startswith("10.9.")

        return reconnect(self.image, self._criu.pycriu, policy=policy, local=LOCAL, reachable=reachable)

    def after(self, policy: Any = "close-external") -> list[Any]:
        image = self.decide(policy).image
        assert image is not None
        assert image[: MAGICS.size] == HEAD
        return [entry.isk for entry in unpack(image, self._pb.file_entry)]


@pytest.fixture
def sockets(criu: Criu) -> Sockets:
    return Sockets(criu)


def test_a_connection_to_the_outside_comes_back_closed(sockets: Sockets) -> None:
    sockets.add("10.0.0.2", 40000, "10.0.0.9", 443)
    (one,) = sockets.after()
    assert (one.state, one.src_port, one.dst_port, list(one.src_addr), list(one.dst_addr)) == (CLOSED, 0, 0, [0], [0])
    assert sockets.decide().closed == ("10.0.0.9:443",)


def test_connections_inside_the_tree_stay_as_they_are(sockets: Sockets) -> None:
    sockets.add("127.0.0.1", 5000, "127.0.0.1", 40000)
    sockets.add("127.0.0.1", 40000, "127.0.0.1", 5000)
    sockets.add("0.0.0.0", 5000, "0.0.0.0", 0, state=LISTEN)
    assert sockets.decide() == Reconnected()


def test_the_other_end_may_be_a_socket_of_the_other_family(sockets: Sockets) -> None:
    sockets.add("127.0.0.1", 5000, "127.0.0.1", 40000, wide=True)
    sockets.add("127.0.0.1", 40000, "127.0.0.1", 5000)
    assert sockets.decide().image is None


def test_a_connection_to_a_program_beside_the_tree_on_the_same_machine_is_one_to_the_outside(sockets: Sockets) -> None:
    sockets.add("127.0.0.1", 40000, "127.0.0.1", 5000)
    assert sockets.decide().closed == ("127.0.0.1:5000",)


@pytest.mark.parametrize("state", [CLOSED, CLOSE_WAIT, LAST_ACK, CLOSING])
def test_what_the_peer_said_before_it_hung_up_can_still_be_read(sockets: Sockets, state: int) -> None:
    sockets.add("127.0.0.1", 40000, "127.0.0.1", 5000, state=state)
    sockets.add("10.0.0.2", 40000, "10.0.0.9", 443, state=state)
    assert sockets.decide().image is None


@pytest.mark.parametrize("state", [SYN_SENT, FIN_WAIT1, FIN_WAIT2])
def test_who_still_waits_for_a_peer_outside_waits_no_longer(sockets: Sockets, state: int) -> None:
    sockets.add("10.0.0.2", 40000, "10.0.0.9", 443, state=state)
    assert sockets.decide().closed == ("10.0.0.9:443",)


@pytest.mark.parametrize("policy", ["close-external", "keep"])
@pytest.mark.parametrize("ends", [("10.0.0.2", "10.9.0.1"), ("10.0.0.77", "10.0.0.9"), ("10.0.0.77", "10.0.0.77")])
def test_without_address_or_route_what_the_peer_said_last_can_still_be_read(
    sockets: Sockets, policy: str, ends: tuple[str, str]
) -> None:
    sockets.add(ends[0], 40000, ends[1], 443, state=CLOSE_WAIT)
    (one,) = sockets.after(policy)
    assert (one.state, one.src_port, one.dst_port) == (CLOSE_WAIT, 40000, 443)
    assert list(one.src_addr) == list(one.dst_addr) == words("127.0.0.1")


@pytest.mark.parametrize("policy", ["close-external", "keep"])
def test_a_connection_to_where_no_route_leads_is_closed_since_criu_could_not_make_it(
    sockets: Sockets, policy: str
) -> None:
    sockets.add("10.0.0.2", 40001, "10.9.0.1", 443)
    (one,) = sockets.after(policy)
    assert (one.state, one.dst_port, one.HasField("shutdown")) == (CLOSED, 0, False)


def test_what_is_closed_or_moved_is_not_tied_to_an_interface_any_more(sockets: Sockets) -> None:
    sockets.add("10.0.0.2", 40000, "10.0.0.9", 443, tied=True)
    sockets.add("10.0.0.77", 5000, "0.0.0.0", 0, state=LISTEN, tied=True)
    sockets.add("10.0.0.2", 5001, "0.0.0.0", 0, state=LISTEN, tied=True)
    assert [(one.ifname, one.opts.so_bound_dev) for one in sockets.after()] == [("", "")] * 2 + [("tun0", "tun0")]


def test_on_request_connections_to_the_outside_are_kept(sockets: Sockets) -> None:
    sockets.add("10.0.0.2", 40000, "10.0.0.9", 443)
    assert sockets.decide("keep").image is None


def test_a_connection_whose_own_address_is_gone_cannot_be_kept(sockets: Sockets) -> None:
    sockets.add("10.0.0.77", 40000, "10.0.0.9", 443)
    assert sockets.decide("keep").closed == ("10.0.0.9:443",)


@pytest.mark.parametrize("wide", [False, True])
def test_ranks_that_talk_over_an_address_that_is_gone_talk_over_the_loopback(sockets: Sockets, wide: bool) -> None:
    sockets.add("10.0.0.77", 5000, "0.0.0.0", 0, state=LISTEN, wide=wide)
    sockets.add("10.0.0.77", 5000, "10.0.0.77", 40000, wide=wide)
    sockets.add("10.0.0.77", 40000, "10.0.0.77", 5000)
    after, loopback = sockets.after(), "127.0.0.1"
    assert sockets.decide().closed == ()
    assert sockets.decide().moved == ("10.0.0.77",)
    assert [list(one.src_addr) for one in after] == [words(loopback, wide=wide)] * 2 + [words(loopback)]
    assert list(after[2].dst_addr) == words(loopback)
    assert [(one.src_port, one.dst_port) for one in after] == [(5000, 0), (5000, 40000), (40000, 5000)]


def test_a_datagram_socket_whose_own_address_is_gone_gets_another(sockets: Sockets) -> None:
    sockets.add("10.0.0.77", 40000, "10.0.0.9", 8125, proto=UDP)
    sockets.add("10.0.0.77", 40001, "0.0.0.0", 0, proto=UDP, state=CLOSED)
    connected, bound = sockets.after()
    assert (list(connected.src_addr), connected.src_port) == ([0], 40000)
    assert (list(connected.dst_addr), connected.dst_port) == (words("10.0.0.9"), 8125)
    assert (list(bound.src_addr), bound.src_port) == ([0], 40001)


def test_a_datagram_socket_loses_a_peer_to_which_no_route_leads(sockets: Sockets) -> None:
    sockets.add("10.0.0.2", 40000, "10.9.0.1", 8125, proto=UDP)
    (one,) = sockets.after()
    assert (list(one.src_addr), list(one.dst_addr), one.dst_port) == (words("10.0.0.2"), [0], 0)


def test_datagram_sockets_that_talk_to_each_other_go_on_over_the_loopback(sockets: Sockets) -> None:
    sockets.add("10.9.0.77", 5000, "10.9.0.77", 40000, proto=UDP)
    sockets.add("10.9.0.77", 40000, "10.9.0.77", 5000, proto=UDP)
    loopback = words("127.0.0.1")
    assert [(list(one.src_addr), list(one.dst_addr)) for one in sockets.after()] == [(loopback, loopback)] * 2


def test_an_address_with_a_scope_is_known(sockets: Sockets) -> None:
    sockets.add("fe80::1", 5000, "::", 0, state=LISTEN)
    assert sockets.decide().image is None
