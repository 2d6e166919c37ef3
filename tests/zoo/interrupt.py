"""Runs a program of the zoo without us, then under us with kills, and compares what both leave."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness import Job, Undisturbed, run_undisturbed

from zoo.program import Program

KILLS = 2  # and one end by SIGTERM
LIMIT_S = 240.0
TAKEN_S = 1.5


@dataclass(frozen=True)
class Outcome:
    """How it went, in words of the table, and the largest of all its snapshots. ``frozen_time_us``: the longest."""

    verdict: str
    tasks: int = 0
    memory_bytes: int = 0
    stored_bytes: int = 0
    frozen_time_us: int = 0


def carry(program: Program, place: Path) -> Outcome:
    """Killed, ended by SIGTERM, and compared; AssertionError where any of it goes wrong, or preflight was wrong."""
    expected = left_alone(program, place)
    with beside(program, place) as command:
        job = Job(place / "job", command, "--every", "1h", *program.options, env={"ZOO_REST": str(program.rest_s)})
        try:
            snapshots = interrupted(job.start(), program)
            code = job.finish(LIMIT_S)
            assert code == 0, f"exit code {code}\n{job.history()}"
        finally:
            job.kill_everything()
    compare(program, job, expected)
    assert foreseen(job) == [], "preflight warned of what was carried"
    options = " ".join(program.options)
    return Outcome(
        f"carried bit for bit{f', with `{options}`' if options else ''}",
        tasks=max(one["tasks"] for one in snapshots),
        memory_bytes=max(one["memory_bytes"] for one in snapshots),
        stored_bytes=max(one["stored_bytes"] for one in snapshots),
        frozen_time_us=max(one["frozen_time_us"] or 0 for one in snapshots),  # none for one that ends the training
    )


def interrupted(job: Job, program: Program) -> list[dict[str, object]]:
    """Leaves the job restored after its last interruption; all snapshots that were taken, as they are listed."""
    moments = [program.lines * (number + 1) // (KILLS + 3) for number in range(KILLS + 1)]
    for moment in moments[:-1]:
        job.wait_for_step(max(moment, 1), deadline_s=LIMIT_S)
        dump(job)
        job.wait_for_progress(2, deadline_s=LIMIT_S)
        job.kill_everything()
        job.start()
        job.wait_for_restore(LIMIT_S)
    job.wait_for_step(moments[-1], deadline_s=LIMIT_S)
    job.wait_for_progress(2, deadline_s=LIMIT_S)
    job.send(signal.SIGTERM)
    code = job.wait(LIMIT_S)
    assert code == 143, f"exit code {code} after SIGTERM\n{job.history()}"
    snapshots = job.complete()
    assert len(snapshots) == KILLS + 1, job.history()
    job.start()
    job.wait_for_restore(LIMIT_S)
    return snapshots


def dump(job: Job) -> None:
    """A snapshot of a training at work; it rests once that is taken, so that packing it has a core to itself."""
    with ThreadPoolExecutor(1) as asking:
        taken = asking.submit(job.dump)
        with contextlib.suppress(TimeoutError):
            taken.result(TAKEN_S)
        (job.place / "hold").touch()
        try:
            taken.result()
        finally:
            (job.place / "hold").unlink()


def refuse(program: Program, place: Path) -> Outcome:
    """The dump fails for the reason that the program names, and the program does not mind."""
    expected = left_alone(program, place)
    with beside(program, place) as command:
        job = Job(place / "job", command, "--every", "1h", *program.options, env={"ZOO_REST": str(program.rest_s)})
        try:
            job.start().wait_for_step(2, deadline_s=LIMIT_S)
            told = job.tell("dump", limit_s=LIMIT_S)
            assert told.code != 0 and program.refused in told.err, told.text
            assert foreseen(job) != [], "preflight knew nothing of it"
            assert job.finish(LIMIT_S) == 0, job.history()
        finally:
            job.kill_everything()
    compare(program, job, expected)
    return Outcome(f"refused: {told.err.splitlines()[0].removeprefix('error: ')}")


def foreseen(job: Job) -> list[str]:
    """What the job was told, before its first dump, that a snapshot of it would not carry."""
    told = [event for event in job.events() if event["event"] == "preflight"]
    return [event["what"] for event in told if event["level"] == "blocks"]


def left_alone(program: Program, place: Path) -> Undisturbed:
    """In the directory where it runs under us later, for many a program writes down where it is."""
    reference = place / "reference"
    reference.mkdir()
    with beside(program, reference) as command:
        expected = run_undisturbed(place / "job", command)
    (place / "job").rename(reference / "job")
    return expected


def compare(program: Program, job: Job, expected: Undisturbed) -> None:
    """Every path in the working directory, and the output, but for what tells the time or a PID."""
    ours, theirs = ({path: what for path, what in contents.items() if not path.startswith(program.varying)}
                    for contents in (job.contents(), expected.contents))  # fmt: skip
    assert ours == theirs, difference(ours, theirs)
    assert job.steps() == program.lines, f"{job.steps()} lines of metrics rather than {program.lines}"
    if program.same_output:
        assert job.output() == expected.output
    runs = {snapshot["run"] for snapshot in job.complete()}
    assert len(runs) == 1, f"a hidden cold start: {runs}"


def difference(ours: dict[str, str], theirs: dict[str, str]) -> str:
    paths = sorted(path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path))
    return "\n".join(f"{path}: {ours.get(path)}, undisturbed {theirs.get(path)}" for path in paths)


@contextlib.contextmanager
def beside(program: Program, place: Path) -> Iterator[list[str]]:
    """The program's command, while the server that it talks to runs outside of its tree."""
    if not program.beside:
        yield list(program.command)
        return
    place.mkdir(parents=True, exist_ok=True)
    with subprocess.Popen(program.beside, cwd=place, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            yield [word.replace("{port}", port) for word in program.command]
        finally:
            server.kill()
