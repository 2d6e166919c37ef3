"""Trainings on a CUDA GPU: they need one, and ``scripts/zoo --gpu`` runs them."""

from __future__ import annotations

from zoo.program import Program, python

FAMILY = "On a GPU"
# No more memory than is needed, and no choice among kernels by a race between them.
JAX = ("XLA_PYTHON_CLIENT_PREALLOCATE=false", "XLA_FLAGS=--xla_gpu_autotune_level=0")


def digits(name: str, what: str, *arguments: object) -> Program:
    return Program(
        name=f"gpu-{name}",
        what=what,
        family=FAMILY,
        command=python("gpu_digits.py", *arguments),
        lines=90,
        rest_s=0.8,
    )


PROGRAMS: tuple[Program, ...] = (
    digits("plain", "PyTorch, pinned memory"),
    digits("fork", "PyTorch, 4 data workers by fork", "--workers", 4),
    digits("persistent", "PyTorch, 2 persistent data workers by fork", "--workers", 2, "--persistent"),
    digits("spawn", "PyTorch, 2 data workers by spawn", "--workers", 2, "--context", "spawn", "--persistent"),
    digits("mixed", "PyTorch, bfloat16 autocast", "--mixed"),
    digits("graph", "PyTorch, a CUDA graph replayed", "--graph"),
    digits("compile", "torch.compile (Inductor, Triton)", "--compile"),
    digits("large", "PyTorch, 4 GiB on the GPU", "--mib", 4096),
    Program(
        name="gpu-jax",
        what="JAX, Flax and Optax",
        family=FAMILY,
        command=(
            "env",
            "XLA_PYTHON_CLIENT_PREALLOCATE=false",
            "XLA_FLAGS=--xla_gpu_autotune_level=0",
            *python("jax_mlp.py"),
        ),
        lines=100,
        rest_s=0.8,
    ),
    Program(
        name="gpu-huggingface",
        what="Hugging Face Trainer, a data worker, checkpoints",
        family=FAMILY,
        command=("env", "HF_HUB_OFFLINE=1", "CUBLAS_WORKSPACE_CONFIG=:4096:8", *python("hf_trainer.py", "--gpu")),
        lines=80,
        rest_s=0.8,
        varying=("out/checkpoint-60/trainer_state.json", "out/checkpoint-80/trainer_state.json"),
        same_output=False,  # how long it took
    ),
)
