"""A plain PyTorch loop, as the tutorials print."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(1, 4):
    for batch in range(6):
        x, y = torch.randn(8, 3), torch.randn(8, 1)
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        done = batch * len(x)
        print(f"Train Epoch: {epoch} [{done}/48 ({100 * batch / 6:.0f}%)]\tLoss: {loss.item():.6f}", flush=True)
