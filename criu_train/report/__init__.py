"""The report of a run: one page, made from what the supervisor has written down."""
