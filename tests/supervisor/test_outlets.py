"""Metrics over HTTP and in a file, as the parser of Prometheus' own library reads them; and what can't be had."""

from __future__ import annotations

import contextlib
import os
import socket
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import pytest
from harness import until
from listeners import Warned
from metrics_document import PAGE, document
from prometheus_client.parser import text_string_to_metric_families
from store_samples import mode

from criu_train.store.store import Store
from criu_train.supervisor.gauge import Gauge
from criu_train.supervisor.metrics import TABLE
from criu_train.supervisor.options import Endpoint, RunOptions
from criu_train.supervisor.outlets import Outlets, outlets
from criu_train.supervisor.reporter import Reporter
from criu_train.supervisor.state import State, StateFile

DUMPED = {
    **{"snapshot": "20261121T204520Z-000001", "trigger": "timer", "step": 7, "seconds": 2.0, "memory_bytes": 90},
    **{"frozen_time_us": 120_000, "added_bytes": 10, "stored_bytes": 30},
}


def values(text: str) -> dict[str, float]:
    """By name and labels but the store's, as in ``criu_train_metric{name=loss}``."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation and family.type in ("gauge", "counter", "histogram")
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sample.labels.items() if name != "store")
            assert sample.labels["store"]
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def get(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return values(answer.read().decode())


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def warned() -> Warned:
    return Warned()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create_or_open(tmp_path / "store")


@contextlib.contextmanager
def opened(store: Store, warned: Warned, **chosen: object) -> Iterator[Outlets]:
    with outlets(store, RunOptions(**chosen), cast(Reporter, warned)) as told:  # type: ignore[arg-type]
        yield told


def test_metrics_tell_of_state_progress_and_events(store: Store, warned: Warned, port: int) -> None:
    with opened(store, warned, metrics_port=Endpoint("127.0.0.1", port)) as told:
        assert get(port)["criu_train_state{state=starting}"] == 1.0
        told.events.run = "a"
        told.events.append("dumped", **DUMPED)
        told.events.append("finished", exit_code=3)
        at = "2026-11-21T20:45:12Z"
        StateFile(store.layout.supervisor, State("running", supervisor_pid=os.getpid(), next_dump_at=at, run="a"))
        store.layout.output_log.write_text("epoch 2\nstep 7 loss 0.5\n")
        gauge = Gauge(store.layout.output_log)
        told.show(gauge)
        gauge.update()
        with store.layout.output_log.open("a") as file:
            file.write("step 9 loss 0.25\n")
        gauge.update()
        found = get(port)
    expected: Mapping[str, float] = {
        "criu_train_state{state=running}": 1,
        "criu_train_state{state=starting}": 0,
        "criu_train_step": 9,
        "criu_train_epoch": 2,
        "criu_train_metric{name=loss}": 0.25,
        "criu_train_snapshots_total{trigger=timer}": 1,
        "criu_train_snapshots_total{trigger=manual}": 0,
        "criu_train_pause_seconds_count": 1,
        "criu_train_pause_seconds_sum": 0.12,
        "criu_train_last_snapshot_timestamp_seconds": 1795293920,
        "criu_train_next_snapshot_timestamp_seconds": 1795293912,
        "criu_train_snapshot_added_bytes_total": 10,
        "criu_train_exit_code": 3,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert found["criu_train_steps_per_second"] > 0
    assert {row.name for row in TABLE} <= {name.partition("{")[0].removesuffix("_count") for name in found}
    assert not warned.warnings


def test_counters_go_on_where_the_last_supervisor_left_them(store: Store, warned: Warned, port: int) -> None:
    with opened(store, warned) as told:
        told.events.run = "a"
        told.events.append("dumped", **DUMPED)
    with store.layout.events.open("ab") as file:
        file.write(b'{"event": "dumped", "run": "a"}\n{"event": []}\n' + b"[" * 100_000 + b"\n")
    with opened(store, warned, metrics_port=Endpoint("127.0.0.1", port)) as told:
        assert get(port)["criu_train_snapshot_added_bytes_total"] == 10
        told.events.run = "a"
        told.events.append("dumped", **DUMPED)
        assert get(port)["criu_train_snapshot_added_bytes_total"] == 20


def test_a_damaged_event_keeps_back_no_metric_but_its_own(store: Store, warned: Warned, port: int) -> None:
    with opened(store, warned) as told:
        told.events.append("dumped", **DUMPED)
        told.events.append("finished", exit_code="soon")
        told.events.append("dumped", **{**DUMPED, "snapshot": 7, "trigger": None})
    with opened(store, warned, metrics_port=Endpoint("127.0.0.1", port)):
        found = get(port)
    assert found["criu_train_last_snapshot_step"] == 7 and "criu_train_exit_code" not in found


def test_names_that_are_no_text_keep_nothing_back(store: Store, warned: Warned, port: int) -> None:
    store.layout.output_log.write_bytes(b'step 3 loss 0.5\n{"acc\\ud800uracy": 0.25}\n{"loss\\n}": 0.75}\n')
    with opened(store, warned, metrics_port=Endpoint("127.0.0.1", port)) as told:
        gauge = Gauge(store.layout.output_log)
        told.show(gauge)
        gauge.update()
        found = get(port)
    assert {found[f"criu_train_metric{{name={name}}}"] for name in ("loss", "acc?uracy")} == {0.5, 0.25}


def test_the_port_is_free_again_afterwards(store: Store, warned: Warned, port: int) -> None:
    for _ in range(2):
        with opened(store, warned, metrics_port=Endpoint("127.0.0.1", port)):
            get(port)
    assert not warned.warnings


def test_whoever_asks_and_does_not_read_keeps_others_waiting_only_for_a_while(
    store: Store, warned: Warned, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("criu_train.supervisor.exposing._PATIENCE_S", 0.2)
    with opened(store, warned, metrics_port=Endpoint("127.0.0.1", port)):
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
        nonsense = socket.create_connection(("127.0.0.1", port))
        nonsense.sendall(b"\0\xff nonsense\r\n\r\n")
        nonsense.close()
        assert get(port)
        for one in silent:
            one.close()


def test_a_port_that_is_taken_is_told_and_nothing_else(store: Store, warned: Warned) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = Endpoint("127.0.0.1", server.getsockname()[1])
        with opened(store, warned, metrics_port=taken) as told:
            assert told.events.append("finished", exit_code=0)
    [(what, tip)] = warned.warnings
    assert "in use" in what and tip is not None


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid"])
def test_an_address_that_is_not_ours_is_told(store: Store, warned: Warned, port: int, host: str) -> None:
    with opened(store, warned, metrics_port=Endpoint(host, port)):
        pass
    [(what, _)] = warned.warnings
    assert host in what


def test_a_textfile_is_written_at_once_and_at_the_end_for_others_to_read(
    store: Store, warned: Warned, tmp_path: Path
) -> None:
    path = tmp_path / "one.prom"
    with opened(store, warned, metrics_textfile=path) as told:
        until(path.exists, "the file")
        told.events.append("finished", exit_code=0)
    assert values(path.read_text())["criu_train_exit_code"] == 0.0
    assert mode(path) == 0o644
    assert sorted(one.name for one in tmp_path.iterdir()) == ["one.prom", "store"]


def test_a_textfile_that_cannot_be_written_is_told_once(store: Store, warned: Warned, tmp_path: Path) -> None:
    with opened(store, warned, metrics_textfile=tmp_path / "gone" / "one.prom"):
        pass
    [(what, tip)] = warned.warnings
    assert "No such file" in what and tip is not None


def test_a_link_that_somebody_laid_in_the_way_of_a_textfile_is_not_followed(
    store: Store, warned: Warned, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".one.prom.tmp").symlink_to(tmp_path / "precious")
    (tmp_path / "one.prom").symlink_to(tmp_path / "precious")
    with opened(store, warned, metrics_textfile=tmp_path / "one.prom"):
        pass
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "one.prom").is_symlink()


def test_the_page_about_metrics_is_current() -> None:
    assert PAGE.read_text() == document(), "run tests/supervisor/metrics_document.py"
