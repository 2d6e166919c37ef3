"""Handwritten digits with Lightning by either of its names, on one or two ranks, with the callback for it."""

from __future__ import annotations

import argparse
import importlib
import os

import torch
from restored import note_restore, report
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--name", choices=["lightning.pytorch", "pytorch_lightning"], default="lightning.pytorch")
parser.add_argument("--ranks", type=int, default=1)
parser.add_argument("--checkpoint-every-epochs", type=int)
options = parser.parse_args()
lightning = importlib.import_module(options.name)
hooked = importlib.import_module(f"criu_train.integrations.{options.name.removesuffix('.pytorch')}")


class Network(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10)
        )

    def training_step(self, batch: list[torch.Tensor], number: int) -> torch.Tensor:
        loss = nn.functional.cross_entropy(self.layers(batch[0]), batch[1])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: list[torch.Tensor], number: int) -> None:
        outputs = self.layers(batch[0])
        self.log("accuracy", (outputs.argmax(dim=1) == batch[1]).float().mean(), sync_dist=options.ranks > 1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


class Report(lightning.Callback):
    def on_train_batch_end(self, trainer: object, *_: object) -> None:
        if trainer.is_global_zero:
            report(trainer.global_step, loss=trainer.callback_metrics["train/loss"].item())


def main() -> None:
    torch.set_num_threads(1)
    lightning.seed_everything(int(os.environ.get("LOCAL_RANK", "0")))
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images / 16.0, dtype=torch.float32), torch.tensor(labels))
    train, test = torch.utils.data.Subset(data, range(1280)), torch.utils.data.Subset(data, range(1280, 1797))
    ours = hooked.CriuTrainCallback(
        log_every=1,
        checkpoint_every_epochs=options.checkpoint_every_epochs,
        digest=True,
        after_restore=note_restore,
    )
    trainer = lightning.Trainer(
        max_epochs=12,
        accelerator="cpu",
        devices=options.ranks,
        strategy="ddp" if options.ranks > 1 else "auto",
        deterministic=True,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Report(), ours],
    )
    model = Network()
    batch = 64 // options.ranks
    loaders = DataLoader(train, batch_size=batch, shuffle=True), DataLoader(test, batch_size=200)
    trainer.fit(model, *loaders)
    if trainer.is_global_zero:
        torch.save(model.state_dict(), "weights.pt")


if __name__ == "__main__":
    main()
