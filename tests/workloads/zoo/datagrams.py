"""Gradients over UDP: a child answers requests, which are numbered and repeated until there is an answer."""

from __future__ import annotations

import multiprocessing
import socket
import struct
import sys

import numpy as np
from progress import report
from softmax import Softmax


def serve(own: socket.socket) -> None:
    """Answers a repeated request with the same bytes."""
    model, last, answer = Softmax(), -1, b""
    while True:
        data, client = own.recvfrom(65536)
        (step,) = struct.unpack_from("!q", data)
        if step == last + 1:
            model.weights = np.frombuffer(data[8:]).reshape(64, 10)
            last, answer = step, data[:8] + model.gradient()[1].tobytes()
        if step == last:
            own.sendto(answer, client)


def ask(own: socket.socket, server: tuple[str, int], step: int, weights: np.ndarray) -> np.ndarray:
    while True:
        own.sendto(struct.pack("!q", step) + weights.tobytes(), server)
        try:
            data = own.recv(65536)
            while struct.unpack_from("!q", data)[0] != step:
                data = own.recv(65536)
        except TimeoutError:
            continue
        return np.frombuffer(data[8:]).reshape(64, 10)


theirs, ours = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
theirs.bind(("127.0.0.1", 0))
ours.settimeout(0.5)
child = multiprocessing.get_context("fork").Process(target=serve, args=(theirs,), daemon=True)
child.start()
address = theirs.getsockname()
theirs.close()
model = Softmax()
for step in range(int(sys.argv[1])):
    model.weights -= 0.5 * ask(ours, address, step, model.weights)
    report(step, accuracy=model.accuracy())
child.terminate()
child.join()
print("the child ended with", child.exitcode)
np.save("weights.npy", model.weights)
