"""A tiny GPT-2 learns to add by Hugging Face's Trainer: words made up here, weights drawn at random (``--gpu``)."""

from __future__ import annotations

import sys

import torch
from progress import report
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments, set_seed

STEPS = 80


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
            report(state.global_step, loss=float(logs["loss"]), rate=float(logs["learning_rate"]))


def main() -> None:
    set_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=12, n_positions=6, n_embd=96, n_layer=2, n_head=4, bos_token_id=10, eos_token_id=11)
    )
    arguments = TrainingArguments(
        output_dir="out",
        max_steps=STEPS,
        per_device_train_batch_size=128,
        learning_rate=5e-3,
        warmup_steps=10,
        logging_steps=1,
        save_steps=20,
        save_total_limit=2,
        eval_strategy="steps",
        eval_steps=40,
        use_cpu="--gpu" not in sys.argv,
        report_to="none",
        disable_tqdm=True,
        dataloader_num_workers=1,
    )
    test = Sums(200)
    trainer = Trainer(model, arguments, train_dataset=Sums(2000), eval_dataset=test, callbacks=[Report()])
    trainer.train()
    guesses = trainer.predict(test).predictions[:, 3:5].argmax(axis=-1)
    right = (torch.tensor(guesses) == torch.tensor(test.rows)[:, 4:]).all(dim=1)
    print(f"{right.float().mean():.3f} of the sums are right")
    torch.save(model.state_dict(), "weights.pt")


if __name__ == "__main__":
    main()
