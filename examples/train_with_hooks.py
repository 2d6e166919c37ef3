"""A PyTorch training that helps criu-train a little (docs/hooks.md); it runs without it as well.

    criu-train run --every 30s -- python train_with_hooks.py

Each step is reported, so that snapshots fall between two steps and know step and loss; each second epoch ends with a
snapshot of its own; and what was restored is compared with what was dumped before it goes on.
"""

from __future__ import annotations

import argparse
import hashlib

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from criu_train import hooks


def train(epochs: int) -> None:
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels))
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    @hooks.state_digest
    def digest() -> bytes:
        total = hashlib.blake2b()
        for tensor in model.state_dict().values():
            total.update(tensor.numpy())
        return total.digest()

    @hooks.after_restore
    def tell() -> None:
        print(f"restored, for the {hooks.generation()}. time")

    step = 0
    for epoch in range(epochs):
        for batch, targets in DataLoader(data, batch_size=64, shuffle=True):
            loss = nn.functional.cross_entropy(model(batch), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            hooks.report(step=step, epoch=epoch, loss=loss)
        print(f"epoch {epoch}: loss {loss.item():.4f}", flush=True)
        if epoch % 2 == 1:
            taken = hooks.checkpoint()
            print(f"snapshot: {'restored just now' if taken.restored else taken.id or taken.problem}", flush=True)
    torch.save(model.state_dict(), "weights.pt")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6)
    train(parser.parse_args().epochs)
