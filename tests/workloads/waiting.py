"""Something waits to be read: an event of a watched directory, or a datagram.

An attentive program reads it once there is a file ``read`` beside its working directory; any other one in the end.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from inotify_simple import INotify, flags
from rest import rest

TICK_S = 0.005


def an_event() -> Callable[[], list[str]]:
    Path("inbox").mkdir()
    inotify = INotify()
    inotify.add_watch("inbox", flags.CREATE)
    Path("inbox/letter").touch()
    return lambda: [event.name for event in inotify.read(timeout=0)]


def a_datagram() -> Callable[[], list[str]]:
    inbox = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    inbox.bind(("127.0.0.1", 0))
    inbox.setblocking(False)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"letter", inbox.getsockname())

    def read() -> list[str]:
        try:
            return [inbox.recv(100).decode()]
        except BlockingIOError:
            return []

    return read


def main(kind: str, manner: str, steps: int) -> None:
    read = {"event": an_event, "datagram": a_datagram}[kind]()
    read_so_far: list[str] = []
    for step in range(steps):
        with open("metrics.jsonl", "a") as metrics:
            metrics.write(json.dumps({"step": step, "read": read_so_far}) + "\n")
        for _ in range(10):
            rest(TICK_S)
            if manner == "attentive" and Path("../read").exists():
                read_so_far += read()
    Path("read.json").write_text(json.dumps(read_so_far + read()))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
