"""A network in plain numpy: gradients by a pool of processes, on weights and data in shared memory."""

from __future__ import annotations

import argparse
import multiprocessing
from multiprocessing.shared_memory import SharedMemory

import numpy as np
from progress import report
from sklearn.datasets import load_digits

SHAPES = ((64, 48), (48,), (48, 10), (10,))
SIZE = sum(int(np.prod(shape)) for shape in SHAPES)


def layers(flat: np.ndarray) -> list[np.ndarray]:
    ends = np.cumsum([np.prod(shape) for shape in SHAPES])
    return [part.reshape(shape) for part, shape in zip(np.split(flat, ends[:-1]), SHAPES, strict=True)]


def forward(weights: list[np.ndarray], images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    hidden = np.tanh(images @ weights[0] + weights[1])
    outputs = np.exp(hidden @ weights[2] + weights[3])
    return hidden, outputs / outputs.sum(axis=1, keepdims=True)


class Worker:
    """What a process of the pool keeps: the data, and the weights as everyone sees them."""

    def __init__(self, name: str) -> None:
        self.memory = SharedMemory(name)
        self.weights = layers(np.ndarray(SIZE, buffer=self.memory.buf))
        self.images, self.labels = load()


def attach(name: str) -> None:
    Worker.own = Worker(name)


def gradient(chosen: np.ndarray) -> tuple[float, np.ndarray]:
    own = Worker.own
    weights, images, labels = own.weights, own.images[chosen], own.labels[chosen]
    hidden, chances = forward(weights, images)
    rows = np.arange(len(labels))
    loss = -np.log(chances[rows, labels]).sum()
    chances[rows, labels] -= 1
    back = chances @ weights[2].T * (1 - hidden**2)
    parts = images.T @ back, back.sum(axis=0), hidden.T @ chances, chances.sum(axis=0)
    return float(loss), np.concatenate([part.ravel() for part in parts])


def load() -> tuple[np.ndarray, np.ndarray]:
    images, labels = load_digits(return_X_y=True)
    return images / 16.0, labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--context", choices=["fork", "spawn", "forkserver"], default="fork")
    context = multiprocessing.get_context(parser.parse_args().context)
    chance = np.random.default_rng(0)
    memory = SharedMemory(create=True, size=SIZE * 8)
    weights = np.ndarray(SIZE, buffer=memory.buf)
    weights[:] = chance.normal(0, 0.1, SIZE)
    speed = np.zeros(SIZE)
    with context.Pool(3, attach, (memory.name,)) as pool:
        for step in range(90):
            results = pool.map(gradient, np.array_split(chance.integers(0, 1500, 192), 3))
            speed = 0.9 * speed - 0.1 * sum(part for _, part in results) / 192
            weights += speed
            report(step, loss=sum(loss for loss, _ in results) / 192)
            if step % 30 == 29:
                np.save("weights.npy", weights)
        pool.close()
        pool.join()
    images, labels = load()
    guesses = forward(layers(weights), images[1500:])[1].argmax(axis=1)
    print(f"accuracy {(guesses == labels[1500:]).mean():.4f}")
    np.savetxt("predictions.txt", guesses, fmt="%d")
    del weights
    memory.close()
    memory.unlink()


if __name__ == "__main__":
    main()
