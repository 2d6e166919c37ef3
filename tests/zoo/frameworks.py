"""Frameworks on top and beside: Lightning, Hugging Face, JAX, Keras, trees, reinforcement learning, plain numpy."""

from __future__ import annotations

from zoo.program import Program, python

FAMILY = "Frameworks"


PROGRAMS: tuple[Program, ...] = (
    Program(
        name="jax",
        what="JAX, Flax and Optax",
        family=FAMILY,
        command=python("jax_mlp.py"),
        lines=100,
        rest_s=0.3,
    ),
    Program(
        name="xgboost",
        what="XGBoost, 2 threads, a checkpoint each 20 rounds",
        family=FAMILY,
        command=python("boost_xgboost.py"),
        lines=120,
        rest_s=0.25,
    ),
    Program(
        name="lightgbm",
        what="LightGBM, 2 threads, a checkpoint each 20 rounds",
        family=FAMILY,
        command=python("boost_lightgbm.py"),
        lines=80,
        rest_s=0.3,
    ),
    Program(
        name="ppo",
        what="Stable-Baselines3, PPO with 3 environments by forkserver",
        family=FAMILY,
        command=python("rl_ppo.py", "--environments", 3),
        lines=80,
        rest_s=0.3,
        varying=("checkpoints/",),  # archives hold the time
    ),
    Program(
        name="lightning",
        what="Lightning Trainer, CSVLogger, best and last checkpoint",
        family=FAMILY,
        command=python("lightning_trainer.py"),
        lines=88,
        rest_s=0.3,
    ),
    Program(
        name="lightning-bar",
        what="Lightning Trainer with its progress bar",
        family=FAMILY,
        command=python("lightning_trainer.py", "--bar"),
        lines=88,
        rest_s=0.3,
        same_output=False,  # how fast it goes
    ),
    Program(
        name="huggingface",
        what="Hugging Face Trainer, tiny GPT-2, a checkpoint each 20 steps",
        family=FAMILY,
        command=("env", "HF_HUB_OFFLINE=1", *python("hf_trainer.py")),
        lines=80,
        rest_s=0.3,
        varying=("out/checkpoint-60/trainer_state.json", "out/checkpoint-80/trainer_state.json"),
        same_output=False,  # how long it took
    ),
    Program(
        name="keras-jax",
        what="Keras on JAX, HDF5 checkpoints",
        family=FAMILY,
        command=("env", "KERAS_BACKEND=jax", *python("keras_fit.py")),
        lines=90,
        rest_s=0.3,
    ),
    Program(
        name="keras-torch",
        what="Keras on PyTorch, HDF5 checkpoints",
        family=FAMILY,
        command=("env", "KERAS_BACKEND=torch", *python("keras_fit.py")),
        lines=90,
        rest_s=0.3,
    ),
    Program(
        name="sklearn",
        what="scikit-learn, partial_fit",
        family=FAMILY,
        command=python("sk_partial_fit.py"),
        lines=100,
        rest_s=0.3,
    ),
    Program(
        name="loky",
        what="scikit-learn, cross-validation by joblib's 2 processes",
        family=FAMILY,
        command=python("sk_parallel.py"),
        lines=60,
        rest_s=0.4,
    ),
    Program(
        name="q-learning",
        what="Gymnasium, a table of values",
        family=FAMILY,
        command=python("q_learning.py"),
        lines=100,
        rest_s=0.25,
    ),
    Program(
        name="numpy-pool",
        what="plain numpy, a pool of 3 by fork, shared memory",
        family=FAMILY,
        command=python("np_shared.py"),
        lines=90,
        rest_s=0.25,
    ),
    Program(
        name="numpy-spawn",
        what="plain numpy, a pool of 3 by spawn, shared memory",
        family=FAMILY,
        command=python("np_shared.py", "--context", "spawn"),
        lines=90,
        rest_s=0.25,
    ),
    Program(
        name="search",
        what="search for settings, ProcessPoolExecutor, sqlite",
        family=FAMILY,
        command=python("search.py"),
        lines=60,
        rest_s=0.4,
    ),
)
