"""An asyncio trainer: a unix-socket server hands out batches to subprocesses, which send gradients back."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from pathlib import Path

import numpy as np
from progress import report
from softmax import Softmax

STEPS, WORKERS = int(sys.argv[1]), 2


class Trainer:
    """Takes a gradient of each worker a step; a step is over when all have sent theirs."""

    def __init__(self) -> None:
        self.model, self.step = Softmax(), 0
        self.gradients: dict[int, np.ndarray] = {}
        self.stepped, self.over = asyncio.Condition(), asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        worker = int(await reader.readline())
        for step in range(STEPS):
            writer.write(self.model.weights.tobytes())
            await writer.drain()
            self.gradients[worker] = np.frombuffer(await reader.readexactly(5120)).reshape(64, 10)
            async with self.stepped:
                if len(self.gradients) == WORKERS:
                    await self.finish(step)
                await self.stepped.wait_for(lambda step=step: self.step > step)
        writer.close()

    async def finish(self, step: int) -> None:
        self.model.weights -= 0.5 * (self.gradients[0] + self.gradients[1]) / WORKERS
        self.gradients.clear()
        await asyncio.to_thread(report, step, accuracy=self.model.accuracy())
        self.step = step + 1
        self.stepped.notify_all()


async def train(path: str) -> None:
    trainer = Trainer()
    server = await asyncio.start_unix_server(trainer.serve, path)
    command = [sys.executable, __file__, str(STEPS), path]
    workers = [await asyncio.create_subprocess_exec(*command, str(number)) for number in range(WORKERS)]
    heartbeat = asyncio.create_task(beat())
    print("workers ended with", await asyncio.gather(*(worker.wait() for worker in workers)))
    heartbeat.cancel()
    server.close()
    np.save("weights.npy", trainer.model.weights)
    print(f"accuracy {trainer.model.accuracy():.4f}")


async def beat() -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(0.05)


async def work(path: str, number: int) -> None:
    model = Softmax(seed=number)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"%d\n" % number)
    for _ in range(STEPS):
        model.weights = np.frombuffer(await reader.readexactly(5120)).reshape(64, 10)
        writer.write(model.gradient()[1].tobytes())
        await writer.drain()
    await reader.read()
    writer.close()


if len(sys.argv) > 2:
    asyncio.run(work(sys.argv[2], int(sys.argv[3])))
else:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(train(str(Path(directory) / "trainer.sock")))
