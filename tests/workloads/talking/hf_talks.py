"""Hugging Face's Trainer as it prints by itself."""

import torch
from torch import nn
from transformers import Trainer, TrainingArguments


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        out = self.layer(x)
        return {"loss": nn.functional.mse_loss(out, labels), "logits": out}


torch.manual_seed(0)
rows = [{"x": torch.randn(3), "labels": torch.randn(1)} for _ in range(48)]
arguments = TrainingArguments(
    "hf_out",
    num_train_epochs=3,
    per_device_train_batch_size=8,
    logging_steps=3,
    save_strategy="no",
    use_cpu=True,
    report_to=[],
)
Trainer(Line(), arguments, train_dataset=rows).train()
