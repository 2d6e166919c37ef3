"""Can this machine do it: checks, the probe with a real dump and restore, and getting a CRIU that works."""
