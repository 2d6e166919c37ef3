"""PyTorch: data loaders of every kind, compiled models, checkpoints, and several ranks."""

from __future__ import annotations

import sys

from zoo.program import HOME, Program, python

FAMILY = "PyTorch"
# Ranks meet on the loopback interface, so that no name has to be resolved; that it has none is not worth a warning.
QUIET = ("env", "TORCH_CPP_LOG_LEVEL=ERROR")
MEETING = ("--nnodes", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1")


def loader(name: str, what: str, *arguments: object) -> Program:
    return Program(
        name=f"torch-{name}",
        what=f"DataLoader, {what}",
        family=FAMILY,
        command=python("digits_loader.py", *arguments),
        lines=90,
        rest_s=0.4,
    )


def torchrun(ranks: int, *arguments: object) -> tuple[str, ...]:
    launcher = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), *MEETING)
    return (*QUIET, *launcher, str(HOME / "digits_ddp.py"), *map(str, arguments))


def accelerate(script: str, processes: int) -> tuple[str, ...]:
    launcher = (sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes))
    alone = ("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0")
    return (*QUIET, *launcher, *alone, str(HOME / script))


PROGRAMS: tuple[Program, ...] = (
    loader("plain", "no workers"),
    loader("fork", "4 workers by fork", "--workers", 4),
    loader("spawn", "2 workers by spawn", "--workers", 2, "--context", "spawn"),
    loader(
        "forkserver", "3 persistent workers by forkserver", "--workers", 3, "--context", "forkserver", "--persistent"
    ),
    loader("persistent", "2 persistent workers, prefetching 4", "--workers", 2, "--persistent", "--prefetch", 4),
    loader(
        "file-system",
        "2 persistent workers, sharing by files",
        "--workers",
        2,
        "--sharing",
        "file_system",
        "--persistent",
    ),
    Program(
        name="torch-threads",
        what="ensemble in 2 threads, each with 2 of OpenMP",
        family=FAMILY,
        command=("env", "OMP_NUM_THREADS=2", *python("digits_mlp.py", "--members", 2)),
        lines=100,
        rest_s=0.3,
    ),
    Program(
        name="torch-compile",
        what="torch.compile (Inductor, C++)",
        family=FAMILY,
        command=python("digits_mlp.py", "--compile"),
        lines=100,
        rest_s=0.3,
    ),
    Program(
        name="torch-checkpoints",
        what="checkpoints, the last 3 kept, a link to the latest",
        family=FAMILY,
        command=python("digits_checkpoints.py"),
        lines=100,
        rest_s=0.3,
    ),
    Program(
        name="torch-tensorboard",
        what="SummaryWriter, read back in the end",
        family=FAMILY,
        command=python("digits_tensorboard.py"),
        lines=100,
        rest_s=0.3,
        varying=("runs/events.out.tfevents",),
    ),
    Program(
        name="torch-ddp2",
        what="torchrun, 2 ranks over gloo, each with a data worker",
        family=FAMILY,
        command=torchrun(2, "--workers", 1),
        lines=76,
        rest_s=0.4,
    ),
    Program(
        name="torch-ddp4",
        what="torchrun, 4 ranks over gloo",
        family=FAMILY,
        command=torchrun(4),
        lines=76,
        rest_s=0.4,
    ),
    Program(
        name="accelerate",
        what="accelerate launch, 2 processes",
        family=FAMILY,
        command=accelerate("digits_accelerate.py", 2),
        lines=76,
        rest_s=0.4,
    ),
)
