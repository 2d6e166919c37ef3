"""A server in the training that never asked for SO_REUSEADDR, and a child with a new connection for each step.

The server hangs up first, so the kernel keeps its port for a minute after each answer.
"""

from __future__ import annotations

import json
import os
import socket
import socketserver
import sys
from pathlib import Path

from rest import rest


class Squares(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        number = int(self.rfile.readline())
        self.wfile.write(b"%d\n" % number**2)


def ask(port: int, number: int) -> int:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"%d\n" % number)
        return int(connection.makefile().read())


def train(port: int, steps: int) -> None:
    answers = []
    for step in range(steps):
        answers.append(ask(port, step))
        with open("metrics.jsonl", "a") as metrics:
            metrics.write(json.dumps({"step": step, "answer": answers[-1]}) + "\n")
        rest(0.05)
    Path("answers.json").write_text(json.dumps(answers))


with socketserver.TCPServer(("127.0.0.1", 0), Squares) as server:
    child = os.fork()
    if child == 0:
        train(server.server_address[1], int(sys.argv[1]))
        os._exit(0)
    for _ in range(int(sys.argv[1])):
        server.handle_request()
    os.waitpid(child, 0)
