"""A run goes on in another place: a Debian with the same packages, and nothing else of the first machine."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from containers import Bind
from harness import contents, until
from runs import assert_as_if_nothing_happened, run, snapshots, training

from criu_train.workspace.elf import build_id

if TYPE_CHECKING:
    from container_fixtures import Images, Left, MakeContainer

pytestmark = [pytest.mark.criu, pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(420)]

# Not in a conftest.py: two of that name would get in each other's way.
pytest_plugins = ("container_fixtures",)


TRAINING = training("forkserver", 400)


def stopped(make: MakeContainer, work: Path) -> None:
    """A run in /work, ended by ``docker stop`` with a snapshot of its last moment."""
    first, metrics = make(work).start(*run(TRAINING)), work / "metrics.jsonl"
    until(lambda: metrics.exists() and metrics.stat().st_size > 400, "progress")
    assert first.stop() == 143, first.said()


def test_a_run_moves_to_another_machine_by_export_and_import(
    container: MakeContainer, place: Path, left_alone: Callable[..., Left]
) -> None:
    here, there = place / "here", place / "there"
    stopped(container, here)
    code, said = container(here).run("snapshot", "export", "latest", "/work/exported")
    assert code == 0, said
    there.mkdir()
    (here / "exported").rename(there / "exported")
    code, said = container(there).run("snapshot", "import", "exported")
    assert code == 0, said
    shutil.rmtree(there / "exported")
    code, said = container(there).run(*run(TRAINING))
    assert code == 0, said
    assert "cold start" not in said
    expected = left_alone(TRAINING)
    assert contents(there) == expected.contents
    assert (there / ".criu-train/output.log").read_text() == expected.output


def test_a_directory_that_is_mounted_elsewhere_is_refused_and_goes_on_after_the_line_that_is_told(
    container: MakeContainer, place: Path, left_alone: Callable[..., Left]
) -> None:
    work = place / "work"
    stopped(container, work)
    elsewhere = {"binds": [Bind(work, "/data")], "workdir": "/data"}
    code, said = container(**elsewhere).run(*run(TRAINING))
    assert code == 125, said
    assert "mkdir -p /work && mount --bind /data /work && cd /work" in " ".join(said.split())
    line = "mkdir -p /work && mount --bind /data /work && cd /work && exec criu-train"
    command = f"{line} {shlex.join(run(TRAINING))}"
    code, said = container(**elsewhere).run(entrypoint=("tini", "--", "sh", "-c", command))
    assert code == 0, said
    assert_as_if_nothing_happened(work, left_alone(TRAINING))


def test_an_image_with_another_build_of_python_is_refused_before_anything_is_touched(
    container: MakeContainer, images: Images, place: Path
) -> None:
    work = place / "work"
    stopped(container, work)
    before = contents(work)
    (manifest,) = snapshots(work / ".criu-train")[-1:]
    python = manifest["environment"]["python"]["path"]  # type: ignore[index]
    original = next(path for layer in images.training.layers if (path := layer / python.lstrip("/")).is_file())
    build, other = build_id(original), place / "python"
    assert build
    other.write_bytes(original.read_bytes().replace(bytes.fromhex(build), bytes(len(build) // 2)))
    other.chmod(0o755)
    made = container(binds=[Bind(work, "/work"), Bind(other, python, "ro")], workdir="/work")
    first, *rest = run(TRAINING)
    code, said = made.run(first, "--on-restore-failure", "fail", *rest)
    assert code == 125, said
    assert f"{python} was replaced by another build" in " ".join(said.replace("│", " ").split())
    assert contents(work) == before
