"""Handwritten digits with Lightning: CSV logs, the best two checkpoints and the last, a bar if one likes."""

from __future__ import annotations

import argparse

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from progress import report
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Digits(lightning.LightningDataModule):
    def setup(self, stage: str) -> None:
        images, labels = load_digits(return_X_y=True)
        data = TensorDataset(torch.tensor(images / 16.0, dtype=torch.float32), torch.tensor(labels))
        self.train, self.test = torch.utils.data.random_split(data, [1400, 397])

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train, batch_size=64, shuffle=True, num_workers=1, persistent_workers=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.test, batch_size=397)

    predict_dataloader = val_dataloader


class Network(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 10))

    def training_step(self, batch: list[torch.Tensor], number: int) -> torch.Tensor:
        loss = nn.functional.cross_entropy(self.layers(batch[0]), batch[1])
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: list[torch.Tensor], number: int) -> None:
        outputs = self.layers(batch[0])
        self.log("test_loss", nn.functional.cross_entropy(outputs, batch[1]))
        self.log("accuracy", (outputs.argmax(dim=1) == batch[1]).float().mean(), prog_bar=True)

    def predict_step(self, batch: list[torch.Tensor], number: int) -> torch.Tensor:
        return self.layers(batch[0]).argmax(dim=1)

    def configure_optimizers(self) -> dict:
        optimizer = torch.optim.Adam(self.parameters(), lr=5e-3)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)}


class Report(Callback):
    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        report(trainer.global_step, loss=trainer.callback_metrics["train_loss"].item())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--bar", action="store_true")
    options = parser.parse_args()
    lightning.seed_everything(0, workers=True)
    best = ModelCheckpoint("checkpoints", monitor="accuracy", mode="max", save_top_k=2, save_last=True)
    trainer = lightning.Trainer(
        max_epochs=options.epochs,
        accelerator="cpu",
        deterministic=True,
        log_every_n_steps=5,
        enable_progress_bar=options.bar,
        logger=CSVLogger(".", name="logs"),
        callbacks=[Report(), best],
    )
    network, data = Network(), Digits()
    trainer.fit(network, data)
    torch.save(trainer.predict(network, data, ckpt_path="best", weights_only=False), "predictions.pt")
    print(f"best: {best.best_model_score:.4f}")


if __name__ == "__main__":
    main()
