"""Where metrics can be had: over HTTP, and in a file for node_exporter. Neither can harm or hold up a training."""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import threading
from http.server import HTTPServer
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import MetricsHandler

from criu_train.supervisor.options import Endpoint
from criu_train.supervisor.reporter import Reporter

_EVERY_S = 15.0
# What whoever asks may take for each piece of his request and of the answer.
_PATIENCE_S = 5.0
_END_S = 2.0


class _Server(HTTPServer):
    """One request at a time: strangers who ask and ask cost us no descriptors, threads or memory."""

    def __init__(self, endpoint: Endpoint, handler: type) -> None:
        self.address_family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
        super().__init__((endpoint.host, endpoint.port), handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's asks name servers, which may take long
        self.server_name, self.server_port = self.server_address[0], self.server_address[1]  # type: ignore[assignment]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked has gone, or asked nonsense."""


class Port:
    """Serves until it is closed. Raises OSError where the endpoint can't be had."""

    def __init__(self, endpoint: Endpoint, registry: CollectorRegistry) -> None:
        handler = MetricsHandler.factory(registry)
        handler.timeout = _PATIENCE_S  # type: ignore[attr-defined]
        self._server = _Server(endpoint, handler)
        threading.Thread(target=self._server.serve_forever, name="metrics-port", daemon=True).start()

    def close(self) -> None:
        """Whoever is being answered just now is not waited for."""
        end = threading.Thread(target=self._server.shutdown, name="metrics-end", daemon=True)
        end.start()
        end.join(_END_S)
        self._server.server_close()


class Textfile:
    """Writes ``path`` anew every 15 s, and once more when it is closed, in a thread of its own: disks may hang."""

    def __init__(self, path: Path, registry: CollectorRegistry, reporter: Reporter, every_s: float = _EVERY_S) -> None:
        self._path = path
        self._registry = registry
        self._reporter = reporter
        self._every_s = every_s
        self._told = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._work, name="metrics-textfile", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._end.set()
        self._thread.join(_END_S)

    def _work(self) -> None:
        while not self._end.is_set():
            self._try()
            self._end.wait(self._every_s)
        self._try()

    def _try(self) -> None:
        try:
            self._write(generate_latest(self._registry))
        except Exception as error:  # whatever it is, the next try may do
            if not self._told:
                self._told = True
                self._reporter.warning(
                    f"metrics can't be written to {self._path}: {getattr(error, 'strerror', None) or error}",
                    "does its directory exist, and has its disk room? The training goes on without them",
                )

    def _write(self, data: bytes) -> None:
        temporary = self._path.with_name(f".{self._path.name}.tmp")  # node_exporter reads what ends in .prom
        temporary.unlink(missing_ok=True)
        # Others may be allowed to write there: made by nobody but us. And node_exporter is another user.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(data)
            temporary.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
