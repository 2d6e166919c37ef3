"""Handwritten digits, with scalars, histograms and pictures for TensorBoard; its scalars are read back in the end."""

from __future__ import annotations

import json

import torch
from progress import report
from sklearn.datasets import load_digits
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.tensorboard import SummaryWriter

STEPS = 100


def main() -> None:
    torch.manual_seed(0)
    data = load_digits()
    images = torch.tensor(data.data / 16.0, dtype=torch.float32)
    labels = torch.tensor(data.target)
    model = nn.Sequential(nn.Linear(64, 96), nn.Tanh(), nn.Dropout(0.1), nn.Linear(96, 10))
    optimizer = torch.optim.RMSprop(model.parameters(), lr=2e-3)
    with SummaryWriter("runs", flush_secs=1) as board:
        board.add_images("digits", images[:8].reshape(8, 1, 8, 8))
        for step in range(STEPS):
            chosen = torch.randint(1500, (64,))
            loss = nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            board.add_scalar("loss", loss.item(), step)
            report(step, loss=loss.item())
            if step % 20 == 19:
                board.add_histogram("weights", model[0].weight, step)
                print(f"step {step}: loss {loss.item():.4f}")
    with torch.no_grad():
        guesses = model.eval()(images[1500:]).argmax(dim=1)
    print(f"accuracy {(guesses == labels[1500:]).float().mean():.4f}")
    events = EventAccumulator("runs", size_guidance={"scalars": 0, "histograms": 0}).Reload()
    losses = [[event.step, event.value] for event in events.Scalars("loss")]
    pictures = [event.step for event in events.Histograms("weights")]
    with open("scalars.json", "w") as file:
        json.dump({"loss": losses, "histograms": pictures}, file)
    torch.save(model.state_dict(), "weights.pt")


if __name__ == "__main__":
    main()
