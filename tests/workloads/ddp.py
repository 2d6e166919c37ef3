"""Data-parallel training of two ranks over gloo, started by torchrun; each rank keeps a log of its own."""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch
import torch.distributed as dist
from rest import rest
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from criu_train import hooks


def train(steps: int, delay: float, use_hooks: bool) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(32, 64), nn.Dropout(0.1), nn.ReLU(), nn.Linear(64, 1)))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    torch.manual_seed(100 + rank)
    inside = np.memmap(f"inside{rank}.bin", np.int64, "w+", shape=2)  # the step, and whether it is being made
    with open(f"rank{rank}.jsonl", "a") as log:
        for step in range(steps):
            inside[:] = step, 1
            batch = torch.randn(32, 32)
            loss = nn.functional.mse_loss(model(batch), batch.sum(dim=1, keepdim=True))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            mean = loss.detach().clone()
            dist.all_reduce(mean)
            log.write(json.dumps({"step": step, "own": loss.item(), "both": mean.item() / 2}) + "\n")
            log.flush()
            rest(delay)
            inside[1] = 0
            if use_hooks:
                hooks.report(step=step, loss=mean.item() / 2)
    if rank == 0:
        torch.save(model.module.state_dict(), "weights.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--delay", type=float, default=0.04, help="seconds of rest after each step")
    parser.add_argument("--hooks", action="store_true", help="report every step to criu-train")
    arguments = parser.parse_args()
    train(arguments.steps, arguments.delay, arguments.hooks)
