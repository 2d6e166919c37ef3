"""What is asked of the supervisor: dumps fold, stops count."""

from __future__ import annotations

import asyncio
import os
import signal

from criu_train.errors import DumpFailedError
from criu_train.supervisor.requests import Requests, signals_become


async def test_ten_signals_at_once_become_one_dump() -> None:
    requests = Requests()
    with signals_become(requests):
        for _ in range(10):
            os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(requests.news(), 5)
    assert (wanted := requests.take_dump()) is not None
    assert wanted.trigger == "signal"
    assert requests.take_dump() is None


async def test_a_request_during_a_dump_becomes_one_more_dump_and_not_the_running_one() -> None:
    requests = Requests()
    first = requests.dump("timer")
    running = requests.take_dump()
    assert running is not None
    second, third = requests.dump("manual"), requests.dump("signal")
    assert second is third
    assert second is not first
    later = requests.take_dump()
    assert later is not None
    assert later.trigger == "manual"


async def test_the_first_interrupt_asks_to_stop_and_the_second_to_kill() -> None:
    requests = Requests()
    requests.stop(signal.SIGINT)
    assert requests.stop_signal is signal.SIGINT
    assert not requests.kill_now.is_set()
    requests.stop(signal.SIGINT)
    assert requests.kill_now.is_set()


async def test_a_second_sigterm_changes_nothing() -> None:
    requests = Requests()
    requests.stop(signal.SIGTERM)
    requests.stop(signal.SIGTERM)
    requests.stop(signal.SIGINT)
    assert requests.stop_signal is signal.SIGTERM
    assert not requests.kill_now.is_set()


async def test_a_lost_terminal_is_no_request() -> None:
    requests = Requests()
    with signals_become(requests):
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.05)
    assert requests.stop_signal is None
    assert requests.take_dump() is None


async def test_whoever_waits_for_a_dump_is_told_when_there_will_be_none() -> None:
    requests = Requests()
    waiting = requests.dump("manual")
    reason = DumpFailedError("the training has ended", tip="nothing left to dump")
    requests.refuse_dumps(reason)
    assert await waiting is reason


async def test_patience_ends_with_the_grace_once_asked_to_stop() -> None:
    requests = Requests()
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    requests.stop(signal.SIGTERM)
    assert not await asyncio.wait_for(requests.patiently(never, 0.05), 5)
    assert requests.grace_left(0.05) == 0.0


async def test_patience_ends_at_once_with_the_second_interrupt() -> None:
    requests = Requests()
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    requests.stop(signal.SIGINT)
    requests.stop(signal.SIGINT)
    assert not await asyncio.wait_for(requests.patiently(never, 60), 5)
