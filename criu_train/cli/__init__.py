"""The command line: one file a command; parse, one call, exit code."""
