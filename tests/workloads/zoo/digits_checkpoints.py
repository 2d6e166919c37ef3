"""Handwritten digits, with a checkpoint every few steps: the last three are kept, and ``latest`` points to one."""

from __future__ import annotations

from pathlib import Path

import torch
from progress import report
from sklearn.datasets import load_digits
from torch import nn

STEPS = 100
EVERY = 4
KEPT = 3


def save(directory: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Written beside and renamed, as one does against crashes; older ones are removed."""
    path = directory / f"step-{step:04d}.pt"
    state = {
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": torch.get_rng_state(),
    }
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").rename(path)
    link = directory / "latest.new"
    link.symlink_to(path.name)
    link.rename(directory / "latest")
    for old in sorted(directory.glob("step-*.pt"))[:-KEPT]:
        old.unlink()


def main() -> None:
    torch.manual_seed(0)
    data = load_digits()
    images = torch.tensor(data.images / 16.0, dtype=torch.float32).unsqueeze(1)
    labels = torch.tensor(data.target)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 10)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    directory = Path("checkpoints")
    directory.mkdir()
    for step in range(STEPS):
        chosen = torch.randint(1500, (64,))
        loss = nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        report(step, loss=loss.item())
        if step % EVERY == EVERY - 1:
            save(directory, step, model, optimizer)
    best = torch.load(directory / "latest")
    model.load_state_dict(best["model"])
    model.eval()
    with torch.no_grad():
        guesses = model(images[1500:]).argmax(dim=1)
    print(f"step {best['step']}: accuracy {(guesses == labels[1500:]).float().mean():.4f}")
    torch.save(guesses, "predictions.pt")


if __name__ == "__main__":
    main()
