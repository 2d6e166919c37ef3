"""The control socket: how `criu-train dump` asks the running supervisor. One JSON line each way."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
import stat
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from criu_train.errors import EnvironmentUnfitError
from criu_train.store.durable import make_private_dir
from criu_train.store.guard import check_ours

# Whoever has just made a socket's file is about to listen there.
_YOUNG_S = 60.0

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


def runtime_directory() -> Path:
    """A short path for sockets and locks (unix socket addresses end at 107 bytes), ours alone.

    Raises EnvironmentUnfitError, StoreError.
    """
    base = Path("/run") if os.access("/run", os.W_OK) else Path(tempfile.gettempdir())
    directory = base / "criu-train"
    elsewhere = f"see who made it and take it away: ls -ld {directory}"
    try:
        if base.stat().st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
            raise EnvironmentUnfitError(
                f"our sockets can't be in {base}: anybody could put others in their place", tip=f"chmod +t {base}"
            )
        with contextlib.suppress(FileExistsError):
            make_private_dir(directory)
        check_ours(directory, "the directory for our sockets", elsewhere)
    except OSError as error:
        raise EnvironmentUnfitError(
            f"the directory for our sockets {directory} can't be had: {error.strerror}", tip=elsewhere
        ) from error
    return directory


def remove_dead_sockets(directory: Path) -> None:
    """Those that nobody has open any more: a killed job leaves its own, and may never be started again."""
    for suffix in ("sock", "cell"):
        for path in directory.glob(f"*.{suffix}"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _YOUNG_S and _is_dead(path):
                    path.unlink()


def _is_dead(path: Path) -> bool:
    """Whoever lives hears nothing of the question, as these sockets aren't of its kind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as question:
        return question.connect_ex(str(path)) == errno.ECONNREFUSED


class ControlServer:
    """Answers requests while open; the socket file is removed at the end."""

    def __init__(self, path: Path, handler: Handler) -> None:
        self.path = path
        self._handler = handler
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> ControlServer:
        self.path.unlink(missing_ok=True)
        remove_dead_sockets(self.path.parent)
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))
        self.path.chmod(0o600)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        self.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ValueError):
            answer = await self._handler(json.loads(await reader.readline()))
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()


async def ask(path: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Send one request and wait for its answer. Raises OSError or ValueError when the supervisor is gone."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(json.dumps(request).encode() + b"\n")
        await writer.drain()
        answer: dict[str, Any] = json.loads(await reader.readline())
        return answer
    finally:
        writer.close()
