"""A parameter server over TCP on the loopback interface: worker processes pull weights and push gradients."""

from __future__ import annotations

import pickle
import socket
import socketserver
import struct
import subprocess
import sys
import threading

import numpy as np
from progress import report
from softmax import Softmax

WORKERS = 3


def send(connection: socket.socket, message: object) -> None:
    data = pickle.dumps(message)
    connection.sendall(struct.pack("!I", len(data)) + data)


def receive(connection: socket.socket) -> object:
    (size,) = struct.unpack("!I", connection.recv(4, socket.MSG_WAITALL))
    return pickle.loads(connection.recv(size, socket.MSG_WAITALL))


class Server(socketserver.ThreadingTCPServer):
    """All workers' gradients of a step are summed in the order of their numbers before anybody goes on."""

    daemon_threads = True

    def __init__(self, steps: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.model, self.steps, self.step = Softmax(), steps, 0
        self.gradients: list[np.ndarray | None] = [None] * WORKERS
        self.barrier = threading.Barrier(WORKERS, action=self.apply)

    def apply(self) -> None:
        for gradient in self.gradients:
            self.model.weights -= 0.5 * gradient / WORKERS
        report(self.step, accuracy=self.model.accuracy())
        self.step += 1


class Handler(socketserver.BaseRequestHandler):
    server: Server

    def handle(self) -> None:
        number = receive(self.request)
        for _ in range(self.server.steps):
            send(self.request, self.server.model.weights)
            self.server.gradients[number] = receive(self.request)
            self.server.barrier.wait()


def serve(steps: int) -> None:
    with Server(steps) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [sys.executable, __file__, str(steps), str(server.server_address[1])]
        workers = [subprocess.Popen([*command, str(number)]) for number in range(WORKERS)]
        print("workers ended with", [worker.wait() for worker in workers])
        server.shutdown()
        np.save("weights.npy", server.model.weights)


def work(steps: int, port: int, number: int) -> None:
    model = Softmax(seed=number)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        send(connection, number)
        for _ in range(steps):
            model.weights = receive(connection)
            send(connection, model.gradient()[1])


if __name__ == "__main__":
    serve(int(sys.argv[1])) if len(sys.argv) == 2 else work(*map(int, sys.argv[1:]))
