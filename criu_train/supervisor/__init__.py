"""The supervisor: an event loop with named states that dumps, restores and restarts one training."""
