"""Data-parallel training of two ranks over gloo, started by torchrun; each rank keeps a log of its own."""

from __future__ import annotations

import argparse
import json

import torch
import torch.distributed as dist
from rest import rest
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def train(steps: int, delay: float) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(32, 64), nn.Dropout(0.1), nn.ReLU(), nn.Linear(64, 1)))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    torch.manual_seed(100 + rank)
    with open(f"rank{rank}.jsonl", "a") as log:
        for step in range(steps):
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
    if rank == 0:
        torch.save(model.module.state_dict(), "weights.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--delay", type=float, default=0.04, help="seconds of rest after each step")
    arguments = parser.parse_args()
    train(arguments.steps, arguments.delay)
