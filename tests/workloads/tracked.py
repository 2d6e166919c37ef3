"""A training that reports each step to a server outside over one HTTP connection that it keeps open.

As experiment trackers do: when the connection is lost it makes a new one and sends again. What it leaves is the same
whether the server had to be asked twice or not. ``--through`` names the local address to connect from; ``--ranks`` adds
a child it talks to over that address.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import struct

from rest import rest


class Tracker:
    """Reports steps; ``source`` is the local address, "" for any."""

    def __init__(self, port: int, source: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20, source_address=(source, 0))
        self._source = source

    def report(self, step: int) -> None:
        for _ in range(3):
            try:
                self._connection.request("POST", f"/{step}", body=b"{}")
                self._connection.getresponse().read()
                return
            except (OSError, http.client.HTTPException):
                self._connection.close()  # the next request connects anew
                self._connection.source_address = ("", 0)
        raise SystemExit("the tracker does not answer")


def partner(address: str) -> socket.socket:
    """A child that adds up, at the other end of a TCP connection."""
    with socket.create_server((address, 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    if os.fork():
        server.close()
        return client
    client.close()
    total = 0
    while request := server.recv(8):
        total += struct.unpack("!Q", request)[0]
        server.sendall(struct.pack("!Q", total))
    os._exit(0)


def unread_answer(address: str) -> socket.socket:
    """A connection that both sides have ended; what the other one said is still to be read."""
    with socket.create_server((address, 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    client.shutdown(socket.SHUT_WR)
    server.sendall(b"the answer")
    server.close()
    return client


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--through", default="")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--delay", type=float, default=0.03)
    options = parser.parse_args()
    address = options.through or "127.0.0.1"
    tracker, peer, ended = Tracker(options.port, options.through), partner(address), unread_answer(address)
    with open("metrics.jsonl", "a") as metrics:
        for step in range(options.steps):
            peer.sendall(struct.pack("!Q", step))
            (total,) = struct.unpack("!Q", peer.recv(8))
            tracker.report(step)
            metrics.write(json.dumps({"step": step, "total": total}) + "\n")
            metrics.flush()
            rest(options.delay)
        metrics.write(json.dumps({"answer": [ended.recv(100).decode(), ended.recv(100).decode()]}) + "\n")
    peer.close()
