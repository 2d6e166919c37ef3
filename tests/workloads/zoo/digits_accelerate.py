"""Handwritten digits by Accelerate, on as many processes as its launcher starts; its state is saved each epoch."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from progress import report
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

EPOCHS = 4


def main() -> None:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    set_seed(0)
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images / 16.0, dtype=torch.float32), torch.tensor(labels))
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loader = DataLoader(data, batch_size=48, shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    step = 0
    for epoch in range(EPOCHS):
        for batch, targets in loader:
            with accelerator.accumulate(model):
                loss = nn.functional.cross_entropy(model(batch), targets)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            mean = accelerator.reduce(loss.detach(), reduction="mean")
            if accelerator.is_main_process:
                report(step, loss=mean.item())
            step += 1
        accelerator.save_state(f"state/{epoch}")
        accelerator.print(f"epoch {epoch}: loss {mean.item():.4f}")
    accelerator.save_model(model, "model")
    accelerator.end_training()


if __name__ == "__main__":
    main()
