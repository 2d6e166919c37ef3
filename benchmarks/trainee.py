"""A PyTorch training to be measured: so many DataLoader workers, so much state, so much data held in memory.

It appends the time of day of every step to STEPS, touches GAP.ready after some steps, and tells the largest gap
between two ticks of a thread of its own as victim.py does.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import threading
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

WARM_STEPS = 5


class Samples(Dataset):
    """Rows of a tensor that is held in memory."""

    def __init__(self, mib: int, width: int) -> None:
        self.rows = torch.randn(max(1, mib * (1 << 20) // (4 * width)), width)

    def __len__(self) -> int:
        return 1 << 20

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.rows[index % len(self.rows)] + 0.01 * torch.randn(self.rows.shape[1])


class Ticker(threading.Thread):
    """Notices how long the process stood still."""

    def __init__(self, gap: Path) -> None:
        super().__init__(daemon=True)
        self._gap = gap
        self._asked = threading.Event()
        signal.signal(signal.SIGUSR2, lambda *_: self._asked.set())

    def run(self) -> None:
        worst, last = 0.0, time.perf_counter()
        while True:
            time.sleep(0.0005)
            now = time.perf_counter()
            worst, last = max(worst, now - last), now
            if self._asked.is_set():
                self._asked.clear()
                temporary = self._gap.with_suffix(".tmp")
                temporary.write_text(f"{worst:.6f}\n")
                os.replace(temporary, self._gap)
                worst, last = 0.0, time.perf_counter()


def main() -> None:
    """Trains until it is killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--state-mb", type=float, default=1, help="parameters and Adam's moments together")
    parser.add_argument("--data-mib", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=Path, default=None)
    parser.add_argument("--gap", type=Path, required=True)
    options = parser.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(options.threads)
    width, batch = 512, 64
    layers = max(1, round(options.state_mb * 1e6 / 12 / width**2))  # a weight and two moments, 4 bytes each
    model = nn.Sequential(*(nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(layers)))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    loader = DataLoader(Samples(options.data_mib, width), batch_size=batch, shuffle=False, num_workers=options.workers)
    Ticker(options.gap).start()
    steps = options.steps.open("a", buffering=1) if options.steps else None
    for step, rows in enumerate(itertools.chain.from_iterable(itertools.repeat(loader))):
        loss = nn.functional.mse_loss(model(rows), rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if steps:
            steps.write(f"{time.time():.6f}\n")
        if step == WARM_STEPS:
            options.gap.with_suffix(".ready").touch()


if __name__ == "__main__":
    main()
