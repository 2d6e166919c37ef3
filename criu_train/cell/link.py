"""The supervisor's end of the control channel: messages that are waited for, messages that are news, and its loss."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from criu_train.cell.records import CellLostError
from criu_train.cell.wire import Wire

Message = dict[str, Any]


class Link:
    """``news`` is called with each message of a kind that nobody asked for, ``on_loss`` once when the cell is gone."""

    def __init__(self, wire: Wire, news: dict[str, Callable[[Message], None]], on_loss: Callable[[], None]) -> None:
        self._wire = wire
        self._news = news
        self._on_loss = on_loss
        self._waiting: dict[str, asyncio.Future[Message]] = {}
        asyncio.get_running_loop().add_reader(wire, self._on_readable)

    @property
    def lost(self) -> bool:
        return self._wire.fileno() < 0

    def send(self, kind: str, **fields: Any) -> None:
        """Raises CellLostError."""
        if self.lost:
            raise CellLostError
        try:
            self._wire.send(kind, **fields)
        except ConnectionError as error:
            self.lose()
            raise CellLostError from error

    def expect(self, kind: str) -> asyncio.Future[Message]:
        """The next message of this kind; ask for it before sending what it answers. Fails with CellLostError."""
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        # A cell that is lost fails every wait; those that nobody looks at any more must not complain.
        future.add_done_callback(lambda f: f.cancelled() or f.exception())
        self._waiting[kind] = future
        if self.lost:
            future.set_exception(CellLostError())
        return future

    def lose(self) -> None:
        """Nothing more comes: everybody who waits is told."""
        if self.lost:
            return
        asyncio.get_running_loop().remove_reader(self._wire)
        self._wire.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(CellLostError())
        self._waiting.clear()
        self._on_loss()

    def _on_readable(self) -> None:
        while not self.lost:
            try:
                message = self._wire.receive()
            except BlockingIOError:
                return
            if message is None:
                self.lose()
                return
            kind = message.pop("kind")
            if kind in self._news:
                self._news[kind](message)
            elif (waiting := self._waiting.pop(kind, None)) is not None and not waiting.done():
                waiting.set_result(message)


async def first_of(*answers: asyncio.Future[Message], limit_s: float | None = None) -> int:
    """Wait for any of these; returns which. Raises CellLostError when the cell is gone or says nothing in time."""
    done, _ = await asyncio.wait(answers, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    # The last message and the loss may have come together: then the message counts.
    for number, answer in enumerate(answers):
        if answer in done and answer.exception() is None:
            return number
    for answer in done:
        answer.result()
    raise CellLostError("the cell does not answer")


async def one(answer: asyncio.Future[Message], limit_s: float | None = None) -> Message:
    """Wait for this one, as ``first_of`` does."""
    await first_of(answer, limit_s=limit_s)
    return answer.result()
