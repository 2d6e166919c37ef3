"""multiprocessing managers: a state that processes share over a unix socket, and one of a class of our own over TCP."""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.managers import BaseManager
from threading import Barrier

import numpy as np
from progress import report
from softmax import Softmax


class Parameters:
    """The weights, kept by a process of its own; the others see it through a proxy."""

    def __init__(self) -> None:
        self.weights = np.zeros((64, 10))

    def get(self) -> np.ndarray:
        return self.weights

    def apply(self, gradients: list[np.ndarray]) -> None:
        self.weights = self.weights - 0.5 * sum(gradients) / len(gradients)


class Keeper(BaseManager):
    pass


Keeper.register("Parameters", Parameters)


def work(number: int, steps: int, parameters: Parameters, gradients: dict, turn: Barrier) -> None:
    model = Softmax(seed=number)
    for _ in range(steps):
        model.weights = parameters.get()
        gradients[number] = model.gradient()[1]
        turn.wait()
        turn.wait()  # until they have been applied


def main(steps: int, workers: int = 2) -> None:
    spawn = multiprocessing.get_context("spawn")
    with multiprocessing.Manager() as manager, Keeper(address=("127.0.0.1", 0), authkey=b"zoo") as keeper:
        parameters, gradients, turn = keeper.Parameters(), manager.dict(), manager.Barrier(workers + 1)
        settings = (steps, parameters, gradients, turn)
        processes = [spawn.Process(target=work, args=(number, *settings)) for number in range(workers)]
        for process in processes:
            process.start()
        model = Softmax()
        for step in range(steps):
            turn.wait()
            parameters.apply([gradients[number] for number in range(workers)])
            turn.wait()
            model.weights = parameters.get()
            report(step, accuracy=model.accuracy())
        for process in processes:
            process.join()
        print("workers ended with", [process.exitcode for process in processes])
        np.save("weights.npy", model.weights)


if __name__ == "__main__":
    main(int(sys.argv[1]))
