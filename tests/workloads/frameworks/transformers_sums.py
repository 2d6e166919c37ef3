"""A tiny GPT-2 learns to add by Hugging Face's Trainer, with the callback for it."""

from __future__ import annotations

import sys

import torch
from restored import note_restore, report
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments, set_seed

from criu_train.integrations.transformers import CriuTrainCallback


class Sums(Dataset):
    """Digits of a + b = c, each a word of its own; 10 is +, 11 is =."""

    def __init__(self, count: int) -> None:
        numbers = torch.randint(0, 10, (count, 2), generator=torch.Generator().manual_seed(1))
        self.rows = [[a, 10, b, 11, (a + b) // 10, (a + b) % 10] for a, b in numbers.tolist()]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        words = torch.tensor(self.rows[index])
        return {"input_ids": words, "labels": torch.where(torch.arange(6) < 4, -100, words)}


class Report(TrainerCallback):
    def on_log(self, arguments: TrainingArguments, state: object, control: object, logs: dict, **_: object) -> None:
        if "loss" in logs:
            report(state.global_step, loss=float(logs["loss"]))


def main(checkpoint_every_epochs: int | None) -> None:
    set_seed(0)
    torch.set_num_threads(1)
    config = GPT2Config(vocab_size=12, n_positions=6, n_embd=32, n_layer=1, n_head=2, bos_token_id=10, eos_token_id=11)
    model = GPT2LMHeadModel(config)
    arguments = TrainingArguments(
        output_dir="out",
        num_train_epochs=12,
        per_device_train_batch_size=32,
        gradient_accumulation_steps=2,
        learning_rate=5e-3,
        logging_steps=1,
        save_strategy="no",
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    ours = CriuTrainCallback(checkpoint_every_epochs=checkpoint_every_epochs, digest=True, after_restore=note_restore)
    Trainer(model, arguments, train_dataset=Sums(1280), callbacks=[Report(), ours]).train()
    torch.save(model.state_dict(), "weights.pt")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else None)
