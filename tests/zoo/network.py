"""Servers and clients: beside the training, inside of it, over TCP, UDP, unix sockets and a terminal."""

from __future__ import annotations

from zoo.program import Program, python

FAMILY = "network"


def talking(name: str, what: str, *command: str, **more: object) -> Program:
    settings: dict[str, object] = {"lines": 100, "rest_s": 0.4, **more}
    return Program(name=name, what=what, family=FAMILY, command=command, **settings)  # type: ignore[arg-type]


PROGRAMS: tuple[Program, ...] = (
    talking(
        "http-requests",
        "metrics to a server outside: requests.Session, connections kept",
        *python("tracked_requests.py", 100, "http://127.0.0.1:{port}"),
        beside=python("tracking_server.py", 0),
    ),
    talking(
        "http-dropped",
        "the same, to a server that hangs up after every seventh request",
        *python("tracked_requests.py", 100, "http://127.0.0.1:{port}"),
        beside=python("tracking_server.py", 7),
    ),
    talking(
        "http-thread",
        "metrics to a server outside: http.client in a thread behind a queue",
        *python("tracked_queue.py", 100, "{port}"),
        beside=python("tracking_server.py", 0),
    ),
    talking("parameter-server", "parameter server and workers over loopback TCP", *python("parameter_server.py", 100)),
    talking("managers", "multiprocessing managers over a unix socket and TCP", *python("managed.py", 100)),
    talking("status-page", "web servers in a thread and in a child, asked each step", *python("status_page.py", 100)),
    talking("grpc", "gRPC server and clients, unary calls and streams", *python("rpc.py", 100)),
    talking("zeromq", "ZeroMQ: push, pull and publish over ipc and TCP", *python("zeromq.py", 100)),
    talking("udp", "UDP inside of the tree, requests numbered and repeated", *python("datagrams.py", 100)),
    talking(
        "tensorboard-child",
        "TensorBoard as a child, asked in the end",
        *python("dashboard.py", 100),
        varying=("runs/",),  # events hold the time
    ),
    talking("tqdm", "tqdm's bars on standard error", *python("bars.py", 100)),
    talking(
        "tqdm-tty",
        "tqdm's bars on a terminal",
        *python("bars.py", 100),
        same_output=False,  # left alone it has no terminal
        options=("--tty",),
        why="bars are drawn for a terminal",
    ),
)
