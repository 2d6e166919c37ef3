"""What callbacks tell hooks in trainings of the real frameworks: each optimizer step once, in order, and metrics."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.zoo, pytest.mark.slow, pytest.mark.short, pytest.mark.timeout(120)]

# Each in an interpreter of its own: frameworks warn of one another, and keep threads. 3 epochs of 6 batches, of which
# two make a step.
BEGINNING = """
import json, sys
import numpy as np
from criu_train import hooks
told = []
def report(step=None, epoch=None, **metrics):
    told.append([step, epoch, {name: float(value) for name, value in metrics.items()}])
def checkpoint(wait=True):
    told.append("checkpoint")
hooks.active, hooks.report, hooks.checkpoint = lambda: True, report, checkpoint
digests = []
hooks.state_digest = digests.append
x, y = np.random.default_rng(0).normal(size=(24, 3)).astype("float32"), np.arange(24) % 2
"""
LIGHTNING = """
import torch
from criu_train.integrations.lightning import CriuTrainCallback
import lightning.pytorch as L
class Module(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
    def step(self, name, batch):
        loss = torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
        self.log(name, loss)
        return loss
    def training_step(self, batch, number): return self.step("loss", batch)
    def validation_step(self, batch, number): return self.step("val_loss", batch)
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), 0.1)
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y)), batch_size=4)
L.Trainer(max_epochs=3, accumulate_grad_batches=2, accelerator="cpu", logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False,
    callbacks=[CriuTrainCallback(log_every=1, checkpoint_every_epochs=2, digest=True)]).fit(Module(), data, data)
"""
TRANSFORMERS = """
import torch
from transformers import Trainer, TrainingArguments
from criu_train.integrations.transformers import CriuTrainCallback
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
    def forward(self, x, labels):
        return {"loss": torch.nn.functional.cross_entropy(self.layer(x), labels)}
data = [{"x": torch.tensor(a), "labels": torch.tensor(b)} for a, b in zip(x, y)]
Trainer(Model(), TrainingArguments("out", num_train_epochs=3, per_device_train_batch_size=4, logging_steps=1,
    gradient_accumulation_steps=2, eval_strategy="epoch", per_device_eval_batch_size=4, prediction_loss_only=True,
    save_strategy="no", use_cpu=True, report_to="none", disable_tqdm=True), train_dataset=data, eval_dataset=data,
    callbacks=[CriuTrainCallback(checkpoint_every_epochs=2, digest=True)]).train()
"""
KERAS = """
import keras
from criu_train.integrations.keras import CriuTrainCallback
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="softmax")])
model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), "sparse_categorical_crossentropy")
class Digest(keras.callbacks.Callback):  # in the middle of an epoch, as a dump does
    def on_train_batch_begin(self, batch, logs=None):
        made = digests[0]()
        assert made == digests[0]() and len(made) == 64
model.fit(x, y, batch_size=4, epochs=3, verbose=0, validation_data=(x, y),
    callbacks=[CriuTrainCallback(checkpoint_every_epochs=2, digest=True), Digest()])
"""
END = """
print(json.dumps([told, len(digests)]))
"""
CASES = [
    pytest.param(LIGHTNING, "", "val_loss", 1, id="lightning"),
    pytest.param(TRANSFORMERS, "", "eval_loss", 1, id="transformers"),
    pytest.param(KERAS, "jax", "val_loss", 0, id="keras-jax"),
    pytest.param(KERAS, "torch", "val_loss", 0, id="keras-torch"),
]


@pytest.mark.parametrize(("program", "backend", "validation", "first"), CASES)
def test_each_step_is_told_once_and_metrics_too(
    program: str, backend: str, validation: str, first: int, tmp_path: Path
) -> None:
    told, digests = run(BEGINNING + program + END, backend, tmp_path)
    reports = [one for one in told if one != "checkpoint"]
    assert [step for step, _, _ in reports if step is not None] == list(range(first, 10))
    assert any("loss" in metrics for _, _, metrics in reports)
    assert len([one for one in reports if validation in one[2]]) >= 3, "after each epoch"
    after_the_snapshot = told[told.index("checkpoint") + 1 :]
    assert min(step for step, _, _ in after_the_snapshot if step is not None) == 7, "it is taken after two epochs"
    assert told.count("checkpoint") == digests == 1


def run(program: str, backend: str, place: Path) -> Any:
    env = {**os.environ, "KERAS_BACKEND": backend or "numpy", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=place, env=env, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
