"""``criu-train completion``: TAB in bash, zsh and fish."""

from __future__ import annotations

import os
from pathlib import Path

import click

from criu_train.cli.shells import SHELLS
from criu_train.errors import EnvironmentUnfitError, UsageError

_SETUP_OF_ZSH = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }\n"


@click.group()
def completion() -> None:
    """Complete commands, options and snapshots with TAB.

    \b
    Examples:
      criu-train completion install
      eval "$(criu-train completion show bash)"
    """


@completion.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def show(ctx: click.Context, shell: str) -> None:
    """Print the script for SHELL.

    \b
    Examples:
      eval "$(criu-train completion show bash)"
      criu-train completion show fish > ~/.config/fish/completions/criu-train.fish
    """
    click.echo(_script(ctx, shell), nl=False)


@completion.command()
@click.option("--shell", type=click.Choice(SHELLS), default=None, help="Which one; else the one that $SHELL names.")
@click.pass_context
def install(ctx: click.Context, shell: str | None) -> None:
    """Have every new shell complete: writes the script and, for bash and zsh, a line that reads it.

    The script goes to ~/.local/share/criu-train, the line to ~/.bashrc or ~/.zshrc, once. Fish has a place of its own
    for such scripts, ~/.config/fish/completions. To undo it, remove the two.

    \b
    Examples:
      criu-train completion install
      criu-train completion install --shell zsh
    """
    shell = shell or Path(os.environ.get("SHELL", "")).name
    if shell not in SHELLS:
        raise UsageError(f"{shell or 'no shell'} is what $SHELL names", tip="name one: --shell bash, zsh or fish")
    script, profile = _places(shell)
    try:
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(_script(ctx, shell))
        changed = profile is not None and _add(profile, f'[ -r "{script}" ] && . "{script}"')
    except OSError as error:
        raise EnvironmentUnfitError(
            f"{error.filename} can't be written: {error.strerror}",
            tip=f"put it elsewhere by hand: criu-train completion show {shell}",
        ) from error
    click.echo(f"written: {script}")
    if profile is not None:
        click.echo(f"{'added to' if changed else 'already in'}: {profile}")
    click.echo(f"every new {shell} completes now; in this one: . {script}")


def _script(ctx: click.Context, shell: str) -> str:
    from click.shell_completion import get_completion_class

    from criu_train.cli.shells import use_our_scripts

    use_our_scripts()
    kind = get_completion_class(shell)
    assert kind is not None
    root = ctx.find_root()
    source = kind(root.command, {}, "criu-train", "_CRIU_TRAIN_COMPLETE").source()
    return source.replace("\n", f"\n{_SETUP_OF_ZSH}", 1) if shell == "zsh" else source


def _places(shell: str) -> tuple[Path, Path | None]:
    """Of the script, and of the file that each new shell reads, where a line is needed there."""
    home = Path.home()
    if shell == "fish":
        base = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
        return base / "fish" / "completions" / "criu-train.fish", None
    script = Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share") / "criu-train" / f"completion.{shell}"
    if shell == "zsh":
        return script, Path(os.environ.get("ZDOTDIR") or home) / ".zshrc"
    return script, home / ".bashrc"


def _add(profile: Path, line: str) -> bool:
    """Whether it was not there yet."""
    before = profile.read_text(errors="surrogateescape") if profile.exists() else ""
    if line in before.splitlines():
        return False
    with profile.open("a") as file:
        file.write(("" if before.endswith("\n") or not before else "\n") + line + "\n")
    return True
