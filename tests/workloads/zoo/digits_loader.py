"""Handwritten digits, read through a DataLoader whose workers disturb the images at random."""

from __future__ import annotations

import argparse

import numpy as np
import torch
from progress import report
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Digits(Dataset):
    def __init__(self, part: slice, noise: float) -> None:
        data = load_digits()
        self.images = torch.tensor(data.images[part] / 16.0, dtype=torch.float32).unsqueeze(1)
        self.labels = torch.tensor(data.target[part])
        self.noise = noise

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.images[index] + self.noise * torch.randn(1, 8, 8)
        if self.noise:
            image = image.roll(int(np.random.randint(-1, 2)), dims=2)
        return image, self.labels[index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--context", choices=["fork", "spawn", "forkserver"])
    parser.add_argument("--persistent", action="store_true")
    parser.add_argument("--sharing", default="file_descriptor")
    parser.add_argument("--prefetch", type=int)
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    torch.multiprocessing.set_sharing_strategy(options.sharing)
    torch.manual_seed(0)
    np.random.seed(0)
    train = DataLoader(
        Digits(slice(0, 1500), noise=0.1),
        batch_size=50,
        shuffle=True,
        num_workers=options.workers,
        multiprocessing_context=options.context,
        persistent_workers=options.persistent,
        prefetch_factor=options.prefetch,
    )
    test = Digits(slice(1500, None), noise=0.0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.1), nn.Flatten(), nn.Linear(256, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs * len(train))
    step = 0
    for epoch in range(options.epochs):
        model.train()
        for images, labels in train:
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            report(step, loss=loss.item(), seen=images.sum().item())
            step += 1
        model.eval()
        with torch.no_grad():
            guesses = model(test.images).argmax(dim=1)
        print(f"epoch {epoch}: loss {loss.item():.4f}, accuracy {(guesses == test.labels).float().mean():.4f}")
    torch.save(model.state_dict(), "weights.pt")
    np.savetxt("predictions.txt", guesses.numpy(), fmt="%d")


if __name__ == "__main__":
    main()
