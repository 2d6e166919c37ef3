"""The training of examples/digits with a DataLoader whose workers are forked anew every epoch; its rests can be ended.

It makes 29 steps an epoch, and prints a line for each.
"""

from __future__ import annotations

import argparse
import sys
import types
from pathlib import Path

from rest import rest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "digits"))

import train as digits

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2, help="processes of the DataLoader")
    parser.add_argument("--delay", type=float, default=0.05, help="seconds of rest after each step")
    digits.time = types.SimpleNamespace(sleep=rest)  # type: ignore[assignment]
    digits.train(argparse.Namespace(**vars(parser.parse_args()), start_method="fork", persistent=False, seed=1))
