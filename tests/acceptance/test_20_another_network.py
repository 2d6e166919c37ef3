"""On another network and under another host name a training goes on; what it had to do with the old one is told."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Job
from places import OTHER_HOST, OTHER_NETWORK, assert_refused, run_on, taken_in

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(120)]

WHERE = """
import json, os, socket, sys, threading, time

def echo(listener):
    while True:
        peer, _ = listener.accept()
        with peer:
            peer.sendall(peer.recv(100))

def ask(address, port, text):
    with socket.create_connection((address, port), timeout=10) as one:
        one.sendall(text)
        return one.recv(100).decode()

def ask_oneself(listener, text):
    while True:
        own, port = listener.getsockname()
        try:
            return ask(own, port, text)
        except OSError:
            if listener.getsockname()[0] == own:  # else it has moved in between
                raise

def tell(text):
    try:
        outside.sendall(text)
        return "told" if outside.recv(100) == text else "misunderstood"
    except OSError as error:
        return type(error).__name__

outside = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10)
listeners = [socket.create_server((address, 0)) for address in ("127.0.0.1", "0.0.0.0", sys.argv[1])]
for one in listeners:
    threading.Thread(target=echo, args=(one,), daemon=True).start()
ports = [one.getsockname()[1] for one in listeners]
with open("metrics.jsonl", "a") as metrics, open("where.jsonl", "a") as where:
    for step in range(400):
        text = str(step).encode()
        answers = [ask("127.0.0.1", port, text) for port in ports[:2]] + [ask_oneself(listeners[2], text)]
        where.write(json.dumps([socket.gethostname(), listeners[2].getsockname()[0], tell(text)]) + "\\n")
        where.flush()
        metrics.write(json.dumps([step, answers, ports]) + "\\n")
        metrics.flush()
        if not os.path.exists("../hurry"):
            time.sleep(0.03)
"""
ECHO = """
import socketserver, sys

class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while text := self.request.recv(100):
            self.request.sendall(text)

server = socketserver.ThreadingTCPServer((sys.argv[1], 0), Echo)
print(server.server_address[1], flush=True)
server.serve_forever()
"""
ADDRESS = "10.213.79.5"


@pytest.fixture
def network(nothing_stays_behind: None) -> Iterator[tuple[list[str], int]]:
    """Words that enter a network of its own which has an address more, and the port of a server there."""
    up = f'ip link set lo up && ip address add {ADDRESS}/32 dev lo && exec "$@"'
    argv = ["unshare", "--net", "sh", "-c", up, "sh", sys.executable, "-c", ECHO, ADDRESS]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            yield ["nsenter", "--target", str(server.pid), "--net"], int(server.stdout.readline())
        finally:
            server.kill()


def assert_each_step_once(job: Job, steps: int) -> None:
    lines = [json.loads(line) for line in (job.work / "metrics.jsonl").read_text().splitlines()]
    assert [line[:2] for line in lines] == [[step, [str(step)] * 3] for step in range(steps)]
    assert len({tuple(line[2]) for line in lines}) == 1, "ports stay what they were"


def test_on_another_network_listeners_go_on_and_connections_to_the_outside_are_closed(
    network: tuple[list[str], int], place: Path
) -> None:
    words, port = network
    job = taken_in(words, [sys.executable, "-c", WHERE, ADDRESS, str(port)], place)
    told = run_on(job, OTHER_NETWORK)
    assert told.code == 0, told.text
    assert f"connections that come back closed: {ADDRESS}:{port}" in told.text
    assert f"addresses that can't be used any more, others instead: {ADDRESS}" in told.text
    assert_each_step_once(job, 400)
    where = [json.loads(line) for line in (job.work / "where.jsonl").read_text().splitlines()]
    assert where[0] == [socket.gethostname(), ADDRESS, "told"]
    assert where[-1] == [socket.gethostname(), "127.0.0.1", "BrokenPipeError"]


def test_a_port_that_somebody_else_has_there_is_told(network: tuple[list[str], int], place: Path) -> None:
    words, port = network
    job = taken_in(words, [sys.executable, "-c", WHERE, ADDRESS, str(port)], place)
    before = job.contents()
    taken = json.loads((job.work / "metrics.jsonl").read_text().splitlines()[0])[2][1]
    hold = f"import socket, os, sys; s = socket.create_server(('', {taken})); s.set_inheritable(True); "
    holding = (*OTHER_NETWORK, sys.executable, "-c", f"{hold}os.execv(sys.argv[1], sys.argv[1:])")
    told = run_on(job, holding, "--on-restore-failure", "fail")
    assert_refused(told, "a network port that the training used is taken by another program")
    assert job.contents() == before


def test_under_another_host_name_the_training_goes_on_and_learns_the_new_one(
    network: tuple[list[str], int], place: Path
) -> None:
    words, port = network
    job = taken_in(words, [sys.executable, "-c", WHERE, ADDRESS, str(port)], place)
    told = run_on(job, (*words, *OTHER_HOST))
    assert told.code == 0, told.text
    assert_each_step_once(job, 400)
    where = [json.loads(line) for line in (job.work / "where.jsonl").read_text().splitlines()]
    assert (where[0][0], where[-1][0]) == (socket.gethostname(), "elsewhere")
