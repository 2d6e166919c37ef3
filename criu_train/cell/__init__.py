"""The cell: the namespaces the training lives in, and the init that is PID 1 there."""
