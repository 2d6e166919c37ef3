"""What CRIU leaves out of a dump with no more than a warning: what waited to be read at the cut."""

from __future__ import annotations

_KINDS = {
    "inotify events will be dropped": "file events",
    "fanotify events will be dropped": "file events",
    "Read queue is dropped for socket": "datagrams",
}


def unread(log: str) -> str:
    """Told in words by CRIU's log of a dump; empty where nothing is lost."""
    return " and ".join(dict.fromkeys(kind for words, kind in _KINDS.items() if words in log))
