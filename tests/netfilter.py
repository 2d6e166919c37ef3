"""The names of nftables tables in this network namespace, asked from the kernel: ``nft`` need not be there."""

from __future__ import annotations

import socket
import struct

NETLINK_NETFILTER = 12
NFT_MSG_GETTABLE = (10 << 8) | 1  # subsystem nftables, message GETTABLE
NLM_F_REQUEST_DUMP = 0x301
NLMSG_ERROR, NLMSG_DONE = 2, 3
NFTA_TABLE_NAME = 1


def tables() -> set[str]:
    """Names of all tables of all families; empty where the kernel has no nftables."""
    request = struct.pack("=IHHIIBBH", 20, NFT_MSG_GETTABLE, NLM_F_REQUEST_DUMP, 1, 0, 0, 0, 0)
    names: set[str] = set()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as link:
        link.settimeout(5)
        link.sendto(request, (0, 0))
        while True:
            data = link.recv(1 << 16)
            while data:
                length, kind = struct.unpack_from("=IH", data)
                if kind in (NLMSG_DONE, NLMSG_ERROR):
                    return names
                names |= set(_names(data[20:length]))
                data = data[(length + 3) & ~3 :]


def _names(attributes: bytes) -> list[str]:
    found = []
    while len(attributes) >= 4:
        length, kind = struct.unpack_from("=HH", attributes)
        if kind & 0x3FFF == NFTA_TABLE_NAME:
            found.append(attributes[4:length].rstrip(b"\0").decode())
        attributes = attributes[(length + 3) & ~3 :]
    return found
