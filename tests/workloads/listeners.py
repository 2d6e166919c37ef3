"""A training some threads of which wait in recv(2) on connections; an error there ends all of it.

Usage: listeners.py [--steps 3000] [--delay 0.02] [--memory MIB] [--threads 8]
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import threading
import time


def listen(link: socket.socket) -> None:
    try:
        while link.recv(8):
            pass
    except OSError as error:
        print(f"a thread that waited met {error!r}", flush=True)
    os._exit(3)


def connection() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    return client, server


def main(steps: int, delay: float, memory_mib: int, threads: int) -> None:
    links = [connection() for _ in range(threads)]
    for client, _ in links:
        threading.Thread(target=listen, args=(client,), daemon=True).start()
    memory = random.Random(0).randbytes(1 << 20) * memory_mib
    with open("metrics.jsonl", "a") as metrics:
        for step in range(steps):
            for _, server in links[step % 7 :]:
                server.sendall(b"%08d" % step)
            metrics.write(f'{{"step": {step}, "byte": {memory[step]}}}\n')
            metrics.flush()
            time.sleep(delay)
    os._exit(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--delay", type=float, default=0.02)
    parser.add_argument("--memory", type=int, default=1, metavar="MIB")
    parser.add_argument("--threads", type=int, default=8)
    chosen = parser.parse_args()
    main(chosen.steps, chosen.delay, chosen.memory, chosen.threads)
