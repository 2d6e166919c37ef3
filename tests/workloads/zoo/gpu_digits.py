"""Handwritten digits on a CUDA GPU: images through a DataLoader and pinned memory, in mixed precision if wanted."""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import numpy as np
import torch
from digits_loader import Digits
from progress import report
from torch import nn
from torch.utils.data import DataLoader


class Step:
    """One step of the optimizer, with everything on the GPU; recorded once and then replayed where wanted."""

    def __init__(self, model: nn.Module, *, mixed: bool, compiled: bool) -> None:
        self.model = torch.compile(model) if compiled else model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, capturable=True)
        self.mixed = mixed

    def __call__(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=self.mixed):
            loss = nn.functional.cross_entropy(self.model(images), labels)
        self.optimizer.zero_grad(set_to_none=False)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


class Recorded:
    """The same step as a CUDA graph, fed through buffers that stay where they are."""

    def __init__(self, step: Step, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels = images.clone(), labels.clone()
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(3):
                step(self.images, self.labels)
        torch.cuda.current_stream().wait_stream(beside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.loss = step(self.images, self.labels)

    def __call__(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.graph.replay()
        return self.loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--context", choices=["fork", "spawn", "forkserver"])
    parser.add_argument("--persistent", action="store_true")
    parser.add_argument("--mixed", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--graph", action="store_true")
    parser.add_argument("--mib", type=int, default=0, help="of GPU memory held beside the model")
    options = parser.parse_args()
    torch.manual_seed(0)
    np.random.seed(0)
    torch.use_deterministic_algorithms(True)
    held = torch.randn(options.mib << 18, device="cuda")
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 512), nn.GELU(), nn.Dropout(0.1), nn.Linear(512, 10)).to("cuda")
    step: Step | Recorded = Step(model, mixed=options.mixed, compiled=options.compile)
    train = DataLoader(
        Digits(slice(0, 1500), noise=0.1),
        batch_size=50,
        shuffle=True,
        num_workers=options.workers,
        multiprocessing_context=options.context,
        persistent_workers=options.persistent,
        pin_memory=True,
    )
    number = 0
    for epoch in range(3):
        for images, labels in train:
            there = images.to("cuda", non_blocking=True), labels.to("cuda", non_blocking=True)
            if options.graph and isinstance(step, Step):
                step = Recorded(step, *there)
            loss = step(*there).item()
            report(number, loss=loss, seen=images.sum().item())
            number += 1
        print(f"epoch {epoch}: loss {loss:.4f}")
    torch.save({name: value.cpu() for name, value in model.state_dict().items()}, "weights.pt")
    np.savetxt("held.txt", [held.double().sum().item()])


if __name__ == "__main__":
    main()
