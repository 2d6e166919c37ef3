"""Timers that go off again and again are wound up again; all others stay as they were dumped."""

from __future__ import annotations

import struct

import pytest

from criu_train.criu.entries import pack, unpack
from criu_train.criu.find import find_criu
from criu_train.criu.schema import image_schema
from criu_train.criu.timers import rearm

pytestmark = pytest.mark.criu

MAGICS = struct.pack("<ii", 1, 2)
PYCRIU = find_criu().pycriu


def image(*timers: dict[str, int]) -> bytes:
    entry = image_schema(PYCRIU).pb.file_entry
    file_type = entry.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_name["TIMERFD"].number
    entries = []
    for number, timer in enumerate(timers):
        fields = {
            "id": number,
            "flags": 0,
            "clockid": 1,
            "vsec": 0,
            "vnsec": 0,
            "isec": 0,
            "insec": 0,
            "ticks": 0,
            "settime_flags": 0,
            **timer,
        }
        one = entry(type=file_type, id=number)
        for name, value in fields.items():
            setattr(one.tfd, name, value)
        one.tfd.fown.SetInParent()
        for name in ("uid", "euid", "signum", "pid_type", "pid"):
            setattr(one.tfd.fown, name, 0)
        entries.append(one)
    return pack(MAGICS, entries)


@pytest.mark.parametrize("interval", [{"isec": 1}, {"insec": 1000}])
def test_a_timer_that_went_off_and_was_not_read_goes_off_again(interval: dict[str, int]) -> None:
    after = rearm(image({"ticks": 3, **interval}, {"isec": 5, "vsec": 2}), PYCRIU)
    first, second = (entry.tfd for entry in unpack(after, image_schema(PYCRIU).pb.file_entry))
    assert (first.vsec, first.vnsec, first.ticks) == (0, 1, 3)
    assert (second.vsec, second.vnsec) == (2, 0)


@pytest.mark.parametrize(
    "timer", [{"ticks": 1}, {"isec": 1}, {"isec": 1, "vnsec": 5, "ticks": 2}, {"isec": 1, "vsec": 5}, {}]
)
def test_all_others_stay_as_they_are(timer: dict[str, int]) -> None:
    before = image(timer)
    assert rearm(before, PYCRIU) is before
