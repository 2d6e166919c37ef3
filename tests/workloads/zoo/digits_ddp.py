"""Handwritten digits on several ranks over gloo, each with its share of the data and a log of its own."""

from __future__ import annotations

import argparse
import json

import torch
import torch.distributed as dist
from progress import report
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler


def main(epochs: int, workers: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images / 16.0, dtype=torch.float32), torch.tensor(labels))
    sampler = DistributedSampler(data, seed=1)
    loader = DataLoader(data, batch_size=96 // dist.get_world_size(), sampler=sampler, num_workers=workers)
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    torch.manual_seed(100 + rank)
    step = 0
    with open(f"rank{rank}.jsonl", "a") as log:
        for epoch in range(epochs):
            sampler.set_epoch(epoch)
            for batch, targets in loader:
                outputs = model(batch)
                loss = nn.functional.cross_entropy(outputs, targets)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                right = (outputs.argmax(dim=1) == targets).float().mean()
                dist.all_reduce(right)
                log.write(json.dumps({"step": step, "loss": loss.item()}) + "\n")
                log.flush()
                if rank == 0:
                    report(step, loss=loss.item(), accuracy=right.item() / dist.get_world_size())
                step += 1
            dist.barrier()
            if rank == 0:
                torch.save({"model": model.module.state_dict(), "epoch": epoch}, "checkpoint.pt")
                print(f"epoch {epoch}: loss {loss.item():.4f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.workers)
