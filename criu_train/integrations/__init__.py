"""Callbacks for training frameworks: each tells hooks how far the training is. One module a framework."""
