"""An ordinary PyTorch training on the digits images that scikit-learn carries. It knows nothing of criu-train.

A small convolutional network with dropout, Adam and a learning-rate schedule; a DataLoader whose workers shuffle and
augment. Each batch appends a line to ``metrics.jsonl``, the end writes ``weights.pt``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


class Digits(Dataset[tuple[Tensor, Tensor]]):
    """1,797 images of 8x8 pixels; each is handed out with fresh noise, drawn in the worker."""

    def __init__(self) -> None:
        from sklearn.datasets import load_digits  # only the parent needs it: workers start faster

        images, labels = load_digits(return_X_y=True)
        self.images = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
        self.labels = torch.tensor(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index] + 0.1 * torch.randn(1, 8, 8), self.labels[index]


def build_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(64 * 16, 10),
    )


def train(options: argparse.Namespace) -> None:
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    loader = DataLoader(
        Digits(),
        batch_size=64,
        shuffle=True,
        num_workers=options.workers,
        multiprocessing_context=options.start_method if options.workers else None,
        persistent_workers=options.persistent,
    )
    model = build_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=5, gamma=0.7)
    step = 0
    with Path("metrics.jsonl").open("a") as metrics:
        for epoch in range(options.epochs):
            right = 0
            for images, labels in loader:
                logits = model(images)
                loss = nn.functional.cross_entropy(logits, labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                right += int((logits.argmax(dim=1) == labels).sum())
                metrics.write(json.dumps({"step": step, "epoch": epoch, "loss": loss.item()}) + "\n")
                metrics.flush()
                step += 1
                time.sleep(options.delay)
            scheduler.step()
            print(f"epoch {epoch}  accuracy {right / len(loader.dataset):.4f}", flush=True)
    torch.save(model.state_dict(), "weights.pt")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2, help="processes of the DataLoader")
    parser.add_argument("--start-method", choices=["fork", "spawn", "forkserver"], default="fork")
    parser.add_argument("--persistent", action="store_true", help="keep the workers from one epoch to the next")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds of rest after each batch")
    parser.add_argument("--seed", type=int, default=1)
    train(parser.parse_args())
