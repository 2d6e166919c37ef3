"""The scripts by which shells ask for completions: click's, but for what bash and fish would get wrong with them.

Bash takes ``:``, which ours have, for the end of a word, and click's script for fish cuts help at its first comma.
"""

from __future__ import annotations

import os
from typing import ClassVar

from click.shell_completion import BashComplete, CompletionItem, FishComplete, add_completion_class, split_arg_string

SHELLS = ("bash", "zsh", "fish")

_BASH = """\
%(complete_func)s() {
    local type value
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain)
                [[ $value == *: ]] && compopt -o nospace
                COMPREPLY+=("$value")
                ;;
        esac
    done < <(COMP_WORDS="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" %(complete_var)s=bash_complete \\
        "$1" 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

_FISH = """\
function %(complete_func)s
    for completion in (env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp | string collect) \\
            COMP_CWORD=(commandline -ct | string collect) %(prog_name)s 2>/dev/null)
        set -l found (string split -m 1 , -- $completion)
        switch $found[1]
            case dir
                __fish_complete_directories $found[2]
            case file
                __fish_complete_path $found[2]
            case plain
                echo $found[2]
        end
    end
end
complete --no-files --keep-order --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


class Bash(BashComplete):
    """Takes the line as it was typed, and answers with what bash takes for the last word of it."""

    source_template: ClassVar[str] = _BASH

    def source(self) -> str:
        """The script, without asking which bash there is."""
        return self.source_template % self.source_vars()

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before, and the one that is begun."""
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)
        if line[-1:].isspace() or not words:
            return words[1:], ""
        return words[1:-1], words[-1]

    def format_completion(self, item: CompletionItem[str]) -> str:
        """Less what bash thinks to have completed already."""
        _, typed = self.get_completion_args()
        breaks = set(os.environ.get("COMP_WORDBREAKS", "")) & set(":=")
        done = 1 + max((typed.rfind(character) for character in breaks), default=-1)
        if typed.startswith("-") and "=" in typed:  # what click completes is the part behind it
            done = max(0, done - typed.index("=") - 1)
        return f"{item.type},{item.value[done:] if item.type == 'plain' else item.value}"


class Fish(FishComplete):
    """Help may have commas."""

    source_template: ClassVar[str] = _FISH


def use_our_scripts() -> None:
    """From now on click has these for bash and fish."""
    add_completion_class(Bash)
    add_completion_class(Fish)
