"""A training in containers: its command, its snapshots, and whether it left what it leaves undisturbed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from containers import Container
from harness import contents, until

if TYPE_CHECKING:
    from container_fixtures import Left

STEPS = 160


def training(start_method: str = "fork", steps: int = STEPS) -> tuple[str, ...]:
    return ("python3", "/app/train.py", str(steps), "0.03", start_method)


def run(command: tuple[str, ...]) -> tuple[str, ...]:
    """Outside of volumes no kernel tells who writes what on overlayfs: such places have to be named."""
    elsewhere = (word for place in ("/app", "/root", "/tmp") for word in ("--workspace", place))
    return ("run", "--every", "1.5s", *elsewhere, "--", *command)


def snapshots(store: Path) -> list[dict[str, object]]:
    """Manifests of the complete ones, oldest first."""
    found = sorted(store.glob("snapshots/*/COMPLETE"))
    return [json.loads((path.parent / "manifest.json").read_text()) for path in found]


def wait_for_snapshot(container: Container, store: Path, count: int = 1) -> None:
    def there() -> bool:
        assert not container.ended(), f"the container ended:\n{container.said()}"
        return len(list(store.glob("snapshots/*/COMPLETE"))) >= count

    until(there, f"{count} snapshots", 60.0)


def assert_as_if_nothing_happened(work: Path, expected: Left) -> None:
    """Every file byte-equal, none too many, none missing; the output once; one run, and started but once."""
    store = work / ".criu-train"
    assert contents(work) == expected.contents
    assert (store / "output.log").read_text() == expected.output
    assert len({manifest["run"] for manifest in snapshots(store)}) == 1
    events = [json.loads(line)["event"] for line in (store / "events.jsonl").read_text().splitlines()]
    assert events.count("started") == 1, "a hidden cold start"
    assert "restored" in events
