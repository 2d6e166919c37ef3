"""A digest of a PyTorch model: its parameters and buffers, byte by byte."""

from __future__ import annotations

from itertools import chain
from typing import Any


def digest_of(model: Any) -> str:
    """Hexadecimal BLAKE3. Of a sharded model what this rank holds; what lies on a GPU is copied, a tensor at a time."""
    import torch  # only the training has it
    from blake3 import blake3

    total = blake3()
    for name, tensor in chain(model.named_parameters(), model.named_buffers()):
        mine = tensor.detach()
        if hasattr(mine, "to_local"):
            mine = mine.to_local()
        total.update(f"{name} {mine.dtype} {tuple(mine.shape)}\n".encode())
        total.update(mine.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return str(total.hexdigest())
