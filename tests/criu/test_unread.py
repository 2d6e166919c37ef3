"""What waited to be read is told from CRIU's log."""

from __future__ import annotations

from criu_train.criu.unread import unread

EVENTS = "(00.021873) Warn  (criu/fsnotify.c:325): The 0x00000a inotify events will be dropped\n"
DATAGRAMS = "(00.022871) Warn  (criu/sk-inet.c:161): Read queue is dropped for socket 2b1f9\n"


def test_a_log_without_a_warning_tells_of_nothing() -> None:
    assert unread("(00.021873) fsnotify: wd: wd 0x000001 s_dev 0x800002 i_ino 0x1a mask 0x000100\n") == ""


def test_each_kind_is_named_once() -> None:
    assert unread(EVENTS) == "file events"
    assert unread(DATAGRAMS + DATAGRAMS) == "datagrams"
    assert unread(DATAGRAMS + EVENTS) == "file events and datagrams"
