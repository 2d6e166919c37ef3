"""Not Python alone: shells and their pipelines, launchers, notebooks, other languages, subprocesses that talk."""

from __future__ import annotations

import sys
from pathlib import Path

from zoo.program import HOME, Program, python, shell

UV = str(Path(sys.executable).with_name("uv"))

FAMILY = "not Python alone"


def script(text: str) -> tuple[str, ...]:
    """A line for sh; it finds the interpreter as $PYTHON and the zoo's programs as $ZOO."""
    return ("env", f"PYTHON={sys.executable}", f"ZOO={HOME}", "sh", "-c", text)


PROGRAMS: tuple[Program, ...] = (
    Program(
        name="bash-epochs",
        what="bash script that starts Python anew for each epoch",
        family=FAMILY,
        command=shell("epochs.sh", 60),
        lines=60,
        rest_s=0.0,
    ),
    Program(
        name="openmp",
        what="C with OpenMP, compiled by the same command",
        family=FAMILY,
        command=script("gcc -O2 -fopenmp -o kmeans $ZOO/kmeans.c -lm && exec ./kmeans 100"),
        lines=100,
        rest_s=0.4,
    ),
    Program(
        name="tee",
        what="python train.py | tee log",
        family=FAMILY,
        command=script("$PYTHON $ZOO/digits_sgd.py 100 2>&1 | tee train.log"),
        lines=100,
        rest_s=0.4,
    ),
    Program(
        name="pipeline",
        what="zstd -dc data | grep | python | tee, the pipes full all the time",
        family=FAMILY,
        command=shell("stream.sh", 100),
        lines=100,
        rest_s=0.4,
    ),
    Program(
        name="make",
        what="Makefile with several targets under make -j2",
        family=FAMILY,
        command=script("make -j2 -f $ZOO/experiment.mk PYTHON=$PYTHON"),
        lines=80,
        rest_s=0.4,
        same_output=False,  # two recipes at once
    ),
    Program(
        name="uv-run",
        what="uv run python train.py",
        family=FAMILY,
        command=(
            str(Path(sys.executable).with_name("uv")),
            "run",
            "--no-project",
            "--offline",
            "--python",
            sys.executable,
            *python("digits_sgd.py", 100),
        ),
        lines=100,
        rest_s=0.4,
    ),
    Program(
        name="launchers",
        what="nice, timeout, stdbuf and time around the program",
        family=FAMILY,
        command=(
            *("nice", "-n", "5", "timeout", "20m", "/usr/bin/time", "-f", "%x", "-o", "code.txt", "stdbuf", "-oL"),
            *python("digits_sgd.py", 100),
        ),
        lines=100,
        rest_s=0.4,
    ),
    Program(
        name="notebook",
        what="Jupyter: nbconvert --execute, the kernel behind ZeroMQ",
        family=FAMILY,
        command=script(
            "cp $ZOO/path.ipynb . && $PYTHON -m nbconvert --to notebook --execute --output executed path.ipynb"
            " && $PYTHON -m nbconvert --to markdown --CoalesceStreamsPreprocessor.enabled=True"
            " --output report executed.ipynb"
        ),
        varying=("executed.ipynb",),  # when each cell ran, and in which pieces its output came
        same_output=False,  # how many bytes that was
        lines=80,
        rest_s=0.5,
    ),
    Program(
        name="node",
        what="Node.js with a worker thread and shared memory",
        family=FAMILY,
        command=("node", str(HOME / "network.mjs"), "100"),
        lines=100,
        rest_s=0.4,
    ),
    Program(
        name="node-fork",
        what="Node.js with forked processes, their channels and a unix socket",
        family=FAMILY,
        command=("node", str(HOME / "cluster.mjs"), "100"),
        lines=100,
        rest_s=0.4,
    ),
    Program(
        name="java",
        what="JVM with a thread pool and the parallel collector, compiled by the same command",
        family=FAMILY,
        command=script(
            "javac -d classes $ZOO/Boosting.java"
            " && exec java -Xmx96m -XX:+UseParallelGC -XX:ParallelGCThreads=4 -cp classes Boosting 100"
        ),
        lines=100,
        rest_s=0.4,
    ),
    Program(
        name="perl",
        what="Perl, its data from a pipe",
        family=FAMILY,
        command=script(
            "$PYTHON -c 'import sys, numpy as n, sklearn.datasets as s; n.savetxt(sys.stdout, "
            'n.c_[s.load_iris(return_X_y=True)], "%g", ",")\' | perl $ZOO/perceptron.pl 100'
        ),
        lines=100,
        rest_s=0.4,
    ),
    Program(
        name="subprocess-json",
        what="subprocess.Popen workers that talk JSON over pipes",
        family=FAMILY,
        command=python("workers.py", 100),
        lines=100,
        rest_s=0.4,
    ),
    Program(
        name="asyncio",
        what="asyncio: subprocesses and a server on a unix socket",
        family=FAMILY,
        command=python("service.py", 100),
        lines=100,
        rest_s=0.5,
    ),
)
