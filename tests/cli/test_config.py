"""Options from criu-train.toml and pyproject.toml."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from criu_train.cli import run as module
from criu_train.cli.main import cli
from criu_train.cli.settings import Settings
from criu_train.errors import UsageError
from criu_train.supervisor.options import RunOptions


class Ran(Exception):  # noqa: N818
    """What `run` would have been run with."""

    def __init__(self, settings: Settings, options: RunOptions) -> None:
        self.settings, self.options = settings, options


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory; `run` gets no further than its options."""

    def stop(settings: Settings, chosen: dict[str, object]) -> RunOptions:
        raise Ran(settings, options_of(settings, chosen))

    options_of = module.options_of
    monkeypatch.setattr(module, "options_of", stop)
    for name in [name for name in os.environ if name.startswith("CRIU_TRAIN_")]:
        monkeypatch.delenv(name)
    job = tmp_path / "job"
    job.mkdir()
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(job)
    return job


def call(*arguments: str) -> Result:
    result = CliRunner().invoke(cli, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def run(*arguments: str) -> Ran:
    with pytest.raises(Ran) as caught:
        call(*arguments, "run", "--", "python", "train.py")
    return caught.value


def refused(*arguments: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        call(*(arguments or ("run", "--", "true")))
    assert caught.value.exit_code == 2
    return caught.value


def test_without_a_file_everything_is_as_by_default(job: Path) -> None:
    assert run().options.every == 1800


def test_keys_are_common_or_of_one_command(job: Path) -> None:
    (job / "criu-train.toml").write_text('every = "5m"\nkeep = 2\n[run]\nevery = 90\ntty = true\n')
    ran = run()
    assert (ran.options.every, ran.options.keep, ran.options.tty) == (90, 2, True)
    assert "default: 90" in call("run", "--help").stdout
    assert "default: 5m" in call("attach", "--help").stdout


def test_the_command_line_comes_before_the_environment_before_the_files(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job / "pyproject.toml").write_text('[tool.criu-train]\nkeep = 7\n[tool.criu-train.run]\nevery = "7m"\n')
    assert (run().options.every, run().options.keep) == (420, 7)
    (job / "criu-train.toml").write_text('every = "6m"\n')  # even what it says of all commands
    assert (run().options.every, run().options.keep) == (360, 7)
    monkeypatch.setenv("CRIU_TRAIN_EVERY", "5m")
    assert run().options.every == 300
    with pytest.raises(Ran) as caught:
        call("run", "--every", "4m", "--", "true")
    assert caught.value.options.every == 240


def test_the_nearest_directory_counts_up_to_one_with_a_repository(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = job / "a" / "b"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    (job / "criu-train.toml").write_text("keep = 2\n")
    (job / "a" / "pyproject.toml").write_text("[tool.other]\nkeep = 9\n")
    assert run().options.keep == 2
    (job / "a" / "pyproject.toml").write_text("[tool.criu-train]\nkeep = 3\n")
    assert run().options.keep == 3
    (deep / ".git").mkdir()
    assert run().options.keep == 5


def test_paths_are_as_seen_from_the_file(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = job / "below"
    below.mkdir()
    (job / "data").mkdir()
    monkeypatch.chdir(below)
    (job / "criu-train.toml").write_text('store = "snapshots"\nworkspace = ["data"]\n')
    ran = run()
    assert (ran.settings.store, ran.options.workspace) == (job / "snapshots", (job / "data",))
    assert run("--store", "here").settings.store == below / "here"


@pytest.mark.parametrize(
    ("text", "told", "tip"),
    [
        ("evry = 5", "the file has an unknown key 'evry'", "did you mean 'every'?"),
        ("[run]\nstore = 'x'", "[run] has an unknown key 'store'", "known are"),
        ("[rum]\nkeep = 1", "the file has an unknown key 'rum'", "did you mean 'run'?"),
        ("fresh = true", "unknown key 'fresh'", ""),
        ("[snapshot.delete]\nforce = true", "[snapshot.delete] has an unknown key 'force'", ""),
        ("every = 'soon'", "every: 'soon' is not a duration", "--every"),
        ("every = -5", "every: '-5' is not a duration", ""),
        ("every = true", "every has to be text or a number", ""),
        ("keep = 0", "keep: 0 is not in the range", ""),
        ("keep = 1.5", "keep: '1.5' is not a valid integer", ""),
        ("tty = 'yes'", "tty is neither true nor false", ""),
        ("prove = 'sometimes'", "prove: 'sometimes' is not one of", ""),
        ("workspace = [1, true]", "workspace has to be texts, in brackets", ""),
        ("workspace = 'nowhere'", "does not exist", ""),
        ("every = {a = 1}", "unknown key 'every'", ""),
        ("every = ", "is not TOML", "mend it"),
        ("run = 5", "unknown key 'run'", ""),
        ("every = '5m'\n'' = 1", "unknown key ''", ""),
    ],
)
def test_what_is_wrong_is_refused_with_file_and_key(job: Path, text: str, told: str, tip: str) -> None:
    (job / "criu-train.toml").write_text(text)
    error = refused()
    assert str(error).startswith(str(job / "criu-train.toml"))
    assert told in str(error)
    assert tip in error.tip
    assert "\n" not in str(error)


def test_in_pyproject_the_key_is_named_with_its_table(job: Path) -> None:
    (job / "pyproject.toml").write_text("[tool.criu-train.run]\nevery = 'soon'\n")
    assert str(refused()).startswith(f"{job}/pyproject.toml: tool.criu-train.run.every: ")
    (job / "pyproject.toml").write_text("[tool.criu-train.run]\nfoo = 1\n")
    assert "[tool.criu-train.run] has an unknown key 'foo'" in str(refused())
    (job / "pyproject.toml").write_text("[tool]\ncriu-train = 1\n")
    assert "tool.criu-train is not a table" in str(refused())


def test_a_value_is_of_concern_only_where_it_is_used(job: Path) -> None:
    (job / "criu-train.toml").write_text("every = 'soon'\n")
    assert call("snapshot", "list").exit_code == 0


def test_help_is_shown_in_spite_of_a_wrong_file(job: Path) -> None:
    (job / "criu-train.toml").write_text("evry = 5\n")
    told = call("run", "--help")
    assert (told.exit_code, "Usage:" in told.stdout) == (0, True)
    with pytest.raises(UsageError):
        call("run", "--", "python", "train.py", "--help")


@pytest.mark.parametrize("how", ["owner", "group", "others", "link"])
def test_a_file_that_others_could_have_written_is_passed_over_and_that_is_told(job: Path, how: str) -> None:
    file = job / "criu-train.toml"
    file.write_text("keep = 2\n")
    if how == "owner":
        os.chown(file, 4711, 4711)
    elif how == "link":
        file.rename(job / "real.toml")
        file.symlink_to("real.toml")
        os.chown(file, 4711, 4711, follow_symlinks=False)
    else:
        file.chmod(0o664 if how == "group" else 0o646)
    (job / "pyproject.toml").write_text("[tool.criu-train]\nkeep = 3\n")
    assert run().options.keep == 3
    assert f"warning: {file} is passed over" in call("snapshot", "list").stderr


def test_a_pipe_in_place_of_a_file_holds_nobody_up(job: Path) -> None:
    os.mkfifo(job / "criu-train.toml")
    assert run().options.keep == 5


def test_every_option_that_reads_the_environment_can_be_in_a_file(job: Path) -> None:
    """What README says; but for --fresh, which is for one call."""
    lines = []
    for option in (*cli.params, *module.run.params):
        if isinstance(option, click.Option) and option.envvar and option.name != "fresh":
            value = option.default if isinstance(option.default, str | int) and not option.is_flag else None
            if option.is_flag:
                lines.append(f"{option.opts[0][2:]} = true")
            elif value is not None and re.fullmatch(r"[\w-]+", str(value)):
                lines.append(f"{option.opts[0][2:]} = {str(value)!r}")
    assert len(lines) > 10
    (job / "criu-train.toml").write_text("\n".join(lines))
    assert run().options.tty is True
