"""gRPC inside of the training: worker processes call a server in the main one, one of them over a stream."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
from progress import report
from softmax import Softmax

WORKERS = 2


class Trainer(grpc.GenericRpcHandler):
    """``/zoo/Step``: a stream of gradients in, a stream of weights out; bytes are the messages."""

    def __init__(self) -> None:
        self.model, self.step = Softmax(), 0
        self.gradients = np.zeros((WORKERS, 64, 10))
        self.barrier = threading.Barrier(WORKERS, action=self.apply)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        known = {
            "/zoo/Step": grpc.stream_stream_rpc_method_handler(self.steps),
            "/zoo/Weights": grpc.unary_unary_rpc_method_handler(lambda asked, context: self.model.weights.tobytes()),
        }
        return known.get(details.method)

    def steps(self, gradients: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        number = int(dict(context.invocation_metadata())["worker"])
        for gradient in gradients:
            self.gradients[number] = np.frombuffer(gradient).reshape(64, 10)
            self.barrier.wait()
            yield self.model.weights.tobytes()

    def apply(self) -> None:
        self.model.weights -= 0.5 * self.gradients.mean(axis=0)
        report(self.step, accuracy=self.model.accuracy())
        self.step += 1


def serve(steps: int) -> None:
    trainer = Trainer()
    server = grpc.server(ThreadPoolExecutor(8), handlers=[trainer])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    command = [sys.executable, __file__, str(steps), str(port)]
    workers = [subprocess.Popen([*command, str(number)]) for number in range(WORKERS)]
    print("workers ended with", [worker.wait() for worker in workers])
    server.stop(None).wait()
    np.save("weights.npy", trainer.model.weights)


def work(steps: int, port: int, number: int) -> None:
    model = Softmax(seed=number)
    next_one = threading.Semaphore()

    def gradients() -> Iterator[bytes]:
        for _ in range(steps):
            next_one.acquire()
            yield model.gradient()[1].tobytes()

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        model.weights = np.frombuffer(channel.unary_unary("/zoo/Weights")(b"")).reshape(64, 10)
        for weights in channel.stream_stream("/zoo/Step")(gradients(), metadata=[("worker", str(number))]):
            model.weights = np.frombuffer(weights).reshape(64, 10)
            next_one.release()


if __name__ == "__main__":
    serve(int(sys.argv[1])) if len(sys.argv) == 2 else work(*map(int, sys.argv[1:]))
