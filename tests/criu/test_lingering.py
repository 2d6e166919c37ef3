"""Ports that the kernel keeps for connections of nobody's are free again at once."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from harness import until

from criu_train.criu.lingering import forget

pytestmark = pytest.mark.criu  # it takes the same rights


@pytest.fixture(params=[(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["IPv4", "IPv6"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family, address = request.param
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind((address, 0))
        listener.listen()
        yield listener


def test_a_port_is_free_again(listener: socket.socket) -> None:
    family, address = listener.family, listener.getsockname()
    with socket.create_connection(address[:2]):
        listener.accept()[0].close()  # the one that hangs up first keeps its port
    listener.close()
    with pytest.raises(OSError, match="Address already in use"):
        listen(family, address)
    assert forget({address[1] + 1 if address[1] < 65535 else 1}) == 0
    with pytest.raises(OSError, match="Address already in use"):
        listen(family, address)
    until(lambda: forget({address[1]}) == 0, "nothing to be left")
    listen(family, address)


def test_connections_of_a_process_are_left_alone(listener: socket.socket) -> None:
    with socket.create_connection(listener.getsockname()[:2]) as client, listener.accept()[0] as server:
        server.shutdown(socket.SHUT_WR)
        assert forget({listener.getsockname()[1], client.getsockname()[1]}) == 0
        client.sendall(b"still here")
        assert server.recv(100) == b"still here"


def listen(family: int, address: tuple[str, int]) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(address)
        again.listen()
