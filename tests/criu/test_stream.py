"""What CRIU says when it streams."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from criu_train.criu.stream import CAPTURE_SOCKET, StreamError, listen, receive_name, receive_pipe, send_answer

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """CRIU's, and ours."""
    criu, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with criu, ours:
        yield criu, ours


def message(body: bytes) -> bytes:
    return struct.pack("<I", len(body)) + body


def test_an_image_is_asked_for_by_name_and_comes_through_a_pipe(ends: Ends) -> None:
    criu, ours = ends
    criu.sendall(message(b"\x0a\x0bpages-1.img"))
    read, write = os.pipe()
    socket.send_fds(criu, [b"\0"], [read])
    os.close(read)
    assert receive_name(ours) == "pages-1.img"
    pipe = receive_pipe(ours)
    assert pipe is not None
    os.write(write, b"bytes")
    os.close(write)
    assert os.read(pipe, 10) == b"bytes"
    assert os.read(pipe, 10) == b""
    os.close(pipe)


def test_a_name_may_need_a_long_length(ends: Ends) -> None:
    criu, ours = ends
    name = "n" * 200
    criu.sendall(message(b"\x0a\xc8\x01" + name.encode()))
    assert receive_name(ours) == name


def test_a_request_may_come_in_pieces(ends: Ends) -> None:
    criu, ours = ends
    whole = message(b"\x0a\x08mm-1.img")
    criu.sendall(whole[:2])
    criu.sendall(whole[2:7])
    criu.sendall(whole[7:])
    assert receive_name(ours) == "mm-1.img"


@pytest.mark.parametrize("said", [b"", b"\x0a", message(b"\x0a\x08mm-1.img")[:-1]])
def test_a_criu_that_goes_away_is_no_request(ends: Ends, said: bytes) -> None:
    criu, ours = ends
    criu.sendall(said)
    criu.close()
    assert receive_name(ours) is None
    assert receive_pipe(ours) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x0a",
        b"\x0a\x00",
        b"\x0a\x09mm-1.img",
        b"\x0a\x07mm-1.img",
        b"\x12\x08mm-1.img",
        b"\x0a\x08../x.img",
        b"\x0a\x02..",
        b"\x0a\xff\xff\xff",
    ],
)
def test_what_is_no_request_is_refused(ends: Ends, body: bytes) -> None:
    criu, ours = ends
    criu.sendall(message(body))
    with pytest.raises(StreamError):
        receive_name(ours)


def test_a_request_of_gigabytes_is_refused_before_it_is_read(ends: Ends) -> None:
    criu, ours = ends
    criu.sendall(struct.pack("<I", 1 << 31))
    with pytest.raises(StreamError):
        receive_name(ours)


def test_a_request_without_a_pipe_is_refused(ends: Ends) -> None:
    criu, ours = ends
    criu.sendall(b"\0")
    with pytest.raises(StreamError):
        receive_pipe(ours)


def test_the_answer_is_as_criu_reads_it(ends: Ends) -> None:
    criu, ours = ends
    send_answer(ours, True)
    send_answer(ours, False)
    assert criu.recv(100) == message(b"\x08\x01") + message(b"\x08\x00")


def test_a_path_that_criu_would_cut_off_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 100)
    directory.mkdir()
    with pytest.raises(StreamError):
        listen(directory, CAPTURE_SOCKET)
