"""The store: snapshots of one job on disk, durable, checked, counted."""
