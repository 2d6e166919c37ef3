"""criu-train: makes a long training run unbreakable without touching its code."""

__version__ = "0.1.0"
