"""Connections to the outside come back closed, those inside the tree live on, and on request all are kept."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from conftest import Reference, StartJob
from harness import Job, workload

pytestmark = [pytest.mark.criu, pytest.mark.slow, pytest.mark.timeout(120)]


class Tracker(ThreadingHTTPServer):
    """A server outside of the training; counts connections and notes which steps were reported."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.connections = 0
        self.steps: list[int] = []

    def process_request(self, *arguments: Any) -> None:
        self.connections += 1
        super().process_request(*arguments)

    def handle_error(self, *_: Any) -> None:
        """A client that is killed leaves a broken connection: that is what these tests are about."""


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Tracker

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.steps.append(int(self.path[1:]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Silence."""


@pytest.fixture
def tracker() -> Iterator[Tracker]:
    with Tracker() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Tracked:
    """A training that reports to the tracker, and what it leaves when nothing happens to it."""

    def __init__(self, start_job: StartJob, undisturbed: Reference, tracker: Tracker, *words: str) -> None:
        command = workload("tracked.py", "--port", tracker.server_port, *words)
        self._expected = undisturbed(command).contents
        self._start = lambda *options: start_job(command, "--every", "1h", *options)
        tracker.connections, tracker.steps = 0, []

    def start(self, *options: str) -> Job:
        return self._start(*options)

    def goes_on_to_its_end(self, job: Job) -> None:
        job.start()
        job.wait_for_restore()
        assert job.finish() == 0
        assert job.contents() == self._expected


def killed_after_a_snapshot(job: Job) -> None:
    job.wait_for_step(20)
    job.dump()
    job.wait_for_progress(10)
    job.kill_everything()


def test_a_connection_to_a_tracker_outside_is_made_anew_after_a_restore(
    start_job: StartJob, undisturbed: Reference, tracker: Tracker
) -> None:
    training = Tracked(start_job, undisturbed, tracker)
    job = training.start()
    killed_after_a_snapshot(job)
    training.goes_on_to_its_end(job)
    assert sorted(set(tracker.steps)) == list(range(300))
    assert tracker.connections == 2
    assert f"connections that come back closed: 127.0.0.1:{tracker.server_port}" in job.said()


def test_a_connection_is_kept_on_request_when_the_peer_has_waited(
    start_job: StartJob, undisturbed: Reference, tracker: Tracker
) -> None:
    training = Tracked(start_job, undisturbed, tracker)
    job = training.start("--tcp", "keep")
    job.wait_for_step(50)
    job.send(signal.SIGTERM)
    assert job.wait() == 143
    training.goes_on_to_its_end(job)
    assert tracker.steps == list(range(300))
    assert tracker.connections == 1


@pytest.fixture
def passing_address() -> Iterator[str]:
    """An address that this machine has until a test takes it away."""
    address = "10.213.77.5"
    subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    yield address
    subprocess.run(["ip", "address", "del", f"{address}/32", "dev", "lo"], check=False, capture_output=True)


def test_a_training_goes_on_although_its_own_address_is_gone(
    start_job: StartJob, undisturbed: Reference, tracker: Tracker, passing_address: str
) -> None:
    training = Tracked(start_job, undisturbed, tracker, "--through", passing_address)
    job = training.start()
    killed_after_a_snapshot(job)
    subprocess.run(["ip", "address", "del", f"{passing_address}/32", "dev", "lo"], check=True)
    training.goes_on_to_its_end(job)
    assert f"addresses that can't be used any more, others instead: {passing_address}" in job.said()


def test_a_port_that_only_the_kernel_still_keeps_is_taken_back(start_job: StartJob) -> None:
    job = start_job(workload("serving.py", 400), "--every", "1h")
    job.wait_for_step(20)
    job.dump()
    job.wait_for_progress(5)
    job.kill_everything()
    job.start()
    job.wait_for_restore()
    assert job.finish() == 0
    assert job.steps() == 400
