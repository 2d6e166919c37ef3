"""Handwritten digits with a plain loop: an ensemble in threads of one process, or a compiled model."""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor

import torch
from progress import report
from sklearn.datasets import load_digits
from torch import nn


class Member:
    """One network of the ensemble, with its own draws of the data."""

    def __init__(self, seed: int, hidden: int, compiled: bool) -> None:
        torch.manual_seed(seed)
        self.network = nn.Sequential(
            nn.Linear(64, hidden),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, 10),
        )
        self.run = torch.compile(self.network) if compiled else self.network
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-3)
        self.draws = torch.Generator().manual_seed(seed)

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        chosen = torch.randint(len(labels), (256,), generator=self.draws)
        loss = nn.functional.cross_entropy(self.run(images[chosen]), labels[chosen])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--members", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    data = load_digits()
    images = torch.tensor(data.data / 16.0, dtype=torch.float32)
    labels = torch.tensor(data.target)
    members = [Member(seed, options.hidden, options.compile) for seed in range(options.members)]
    with ThreadPoolExecutor(options.members) as threads:
        for step in range(options.steps):
            losses = list(threads.map(lambda member: member.step(images[:1500], labels[:1500]), members))
            report(step, **{f"loss{number}": loss for number, loss in enumerate(losses)})
            if step % 20 == 19:
                print(f"step {step}: " + " ".join(f"{loss:.4f}" for loss in losses))
    with torch.no_grad():
        guesses = torch.stack([member.network(images[1500:]).softmax(dim=1) for member in members]).mean(dim=0)
    print(f"accuracy {(guesses.argmax(dim=1) == labels[1500:]).float().mean():.4f}")
    torch.save([member.network.state_dict() for member in members], "weights.pt")
    torch.save(guesses, "predictions.pt")


if __name__ == "__main__":
    main()
