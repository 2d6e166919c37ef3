"""What is told about logs: real ones that were kept (``logs/``) and, of failures that could not be made to happen here,
lines as CRIU 4.2 words them (``logs/worded/``)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from provoked import LOGS

from criu_train.criu.explain import Explanation, explain, find_failure
from criu_train.criu.failure import Failure
from criu_train.criu.failures import FAILURES

TABLE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
REAL = sorted(LOGS.glob("*.log"))
WORDED = sorted((LOGS / "worded").glob("*.log"))


@pytest.mark.parametrize("log", [*REAL, *WORDED], ids=lambda path: path.stem)
def test_a_log_is_told_by_its_own_row(log: Path) -> None:
    found = find_failure(log.read_text())
    assert found is not None
    assert found.failure.name == log.stem
    assert "{" not in found.what + found.tip


def test_no_row_is_without_a_log_that_it_and_no_earlier_row_tells() -> None:
    names = [failure.name for failure in FAILURES]
    assert len(set(names)) == len(names)
    real, worded = ({path.stem for path in logs} for logs in (REAL, WORDED))
    assert set(names) == real | worded
    assert not real & worded, "a real log makes the worded one superfluous"


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
def test_every_row_has_a_group_for_each_blank(failure: Failure) -> None:
    blanks = [""] * failure.pattern.groups
    for sentence in (failure.what, failure.tip):
        assert sentence.format(*blanks)
        assert "\n" not in sentence and not sentence.endswith(".")


def test_the_table_in_the_documentation_has_exactly_the_rows_of_the_code() -> None:
    cells = re.compile(r"^\| (.+?) \| (.+?) \| (.+?) \| (yes|no) \|$", re.MULTILINE)
    written = [(what, tip, here) for what, _, tip, here in cells.findall(TABLE.read_text())]
    seen = {path.stem for path in REAL}
    assert written == [
        (_shown(failure.what), failure.tip, "yes" if failure.name in seen else "no") for failure in FAILURES
    ]


def _shown(what: str) -> str:
    return re.sub(r"\{\d\}", "…", what)


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("file-size.log", "/home/user/training/data has 6 bytes, the snapshot expects 5"),
        ("file-gone.log", "/home/user/training/data is gone since the snapshot"),
        ("file-mode.log", "/home/user/training/data has mode 0100600, the snapshot expects 0100644"),
        ("deleted-file-too-large.log", "the deleted file /home/user/training/gone (2097152 bytes) is larger"),
        ("special-descriptor.log", "descriptor 0 is of a kind that CRIU can't dump: perf_event"),
        ("strange-mapping.log", "can't dump: secretmem"),
        ("nested-namespace.log", "lives in a user namespace of its own"),
        ("pid-taken.log", "process number 1000 is taken"),
        ("plugin.log", "not there: cuda_plugin"),
        ("unix-path.log", "the unix socket /home/user/training/there/socket can't be made again: No such file or"),
    ],
)
def test_what_the_log_names_is_named(log: str, expected: str) -> None:
    assert expected in explain((LOGS / log).read_text(), 1).what


def test_noise_is_never_the_reason() -> None:
    log = (
        "(00.002217) Error (criu/tun.c:85): tun: Unable to create tun: No such file or directory\n"
        "(00.037153) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n"
        "(00.038000) Error (criu/some.c:1): Something nobody has heard of.\n"
        "(00.038100) Error (criu/files.c:1221): Unable to open fd=0 id=0xf\n"
        "(00.038200) Error (criu/cr-restore.c:1269): 1000 killed by signal 9: Killed\n"
        "(00.056187) Error (criu/cr-dump.c:1975): Dumping FAILED.\n"
    )
    assert explain(log, 1).what == "CRIU failed: Something nobody has heard of"
    alone = "(00.002217) Error (criu/tun.c:85): tun: Unable to create tun: No such file or directory\n"
    assert explain(alone, 1).what == "CRIU failed with exit code 1 and logged no reason"


def test_paths_in_lines_that_report_no_error_are_not_taken_for_a_cause() -> None:
    assert "GPU" not in explain("(00.1) Dumping path for /dev/nvidia0-notes.txt\n", 1).what
    assert "full" not in explain("pie: 1000: Daemon says No space left on device\n", 1).what


def test_a_restore_that_waits_for_a_lock_in_vain_is_told_as_such() -> None:
    log = "(00.1)   1000: Create fd for 0\n(00.1)   1000: (flock)flag: 2, type: 1, cmd: 2, pid: 1000, fd: 0\n"
    assert "file lock" in explain(log, -9, timed_out=True).what
    assert "file lock" in explain(log + "(00.2)   1001: Create fd for 1\n", -9, timed_out=True).what
    assert "file lock" not in explain(log + "(00.2)   1000: Create fd for 1\n", -9, timed_out=True).what


def test_a_restore_that_was_killed_late_is_told_as_killed() -> None:
    late = "task_args->pid: 1000\ntask_args->nr_threads: 1\n"
    log = (LOGS / "worded" / "killed.log").read_text()
    assert explain(late + log, 1) == explain(log, 1)


def test_connections_that_iptables_has_forgotten_explain_nothing_at_a_restore() -> None:
    log = "(00.1) Error (criu/netfilter.c:105): Iptables configuration failed\n"
    assert "locked" not in explain(log + "(00.2) Error (criu/x.c:1): pie: Can't open x\n", 1).what


@pytest.mark.parametrize(
    ("exit_code", "timed_out", "expected"),
    [
        (
            -9,
            False,
            Explanation("CRIU was killed by SIGKILL", "look for an out-of-memory kill in the kernel's log"),
        ),
        (
            -9,
            True,
            Explanation(
                "the restore took longer than its time limit",
                "allow more with --restore-timeout; the whole log is kept beside the snapshot",
                mendable=True,
            ),
        ),
        (127, False, Explanation("CRIU could not be executed", "run `criu-train setup`", mendable=True)),
    ],
)
def test_an_end_without_a_word_is_explained(exit_code: int, timed_out: bool, expected: Explanation) -> None:
    assert explain("", exit_code, timed_out=timed_out) == expected
