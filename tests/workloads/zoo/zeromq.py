"""ZeroMQ: a ventilator pushes work to processes, a sink pulls their results, and news is published to all of them."""

from __future__ import annotations

import subprocess
import sys
import tempfile

import numpy as np
import zmq
from progress import report
from softmax import Softmax

WORKERS = 2


def train(steps: int, directory: str) -> None:
    context = zmq.Context()
    news, tasks, results = (context.socket(kind) for kind in (zmq.XPUB, zmq.PUSH, zmq.PULL))
    news.setsockopt(zmq.XPUB_VERBOSE, 1)
    news.bind(f"ipc://{directory}/news")
    results.bind(f"ipc://{directory}/results")
    port = tasks.bind_to_random_port("tcp://127.0.0.1")
    command = [sys.executable, __file__, str(steps), directory, str(port)]
    workers = [subprocess.Popen(command) for _ in range(WORKERS)]
    for _ in workers:
        news.recv()  # each has subscribed
    model = Softmax()
    for step in range(steps):
        news.send_multipart([b"weights", b"%d" % step, model.weights.tobytes()])
        for seed in range(4):
            tasks.send_json({"step": step, "seed": 4 * step + seed})
        gradients = {}
        while len(gradients) < 4:
            seed, data = results.recv_multipart()
            gradients[int(seed)] = np.frombuffer(data).reshape(64, 10)
        for seed in sorted(gradients):
            model.weights -= 0.15 * gradients[seed]
        report(step, accuracy=model.accuracy())
    news.send_multipart([b"weights", b"-1", b""])
    for _ in workers:
        tasks.send_json({"step": -1, "seed": 0})
    print("workers ended with", [worker.wait() for worker in workers])
    np.save("weights.npy", model.weights)
    context.destroy()


def work(directory: str, port: int) -> None:
    context = zmq.Context()
    news, tasks, results = (context.socket(kind) for kind in (zmq.SUB, zmq.PULL, zmq.PUSH))
    tasks.connect(f"tcp://127.0.0.1:{port}")
    results.connect(f"ipc://{directory}/results")
    news.connect(f"ipc://{directory}/news")
    news.subscribe(b"weights")
    model, known = Softmax(), None
    while (task := tasks.recv_json())["step"] >= 0:
        while known != task["step"]:
            _, number, weights = news.recv_multipart()
            known = int(number)
        model.weights = np.frombuffer(weights).reshape(64, 10)
        model.rng = np.random.default_rng(task["seed"])
        results.send_multipart([b"%d" % task["seed"], model.gradient()[1].tobytes()])
    context.destroy()


if len(sys.argv) > 2:
    work(sys.argv[2], int(sys.argv[3]))
else:
    with tempfile.TemporaryDirectory() as place:
        train(int(sys.argv[1]), place)
