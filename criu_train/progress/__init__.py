"""How far a training is, as it tells by itself: its output, read for steps, epochs and metrics."""
