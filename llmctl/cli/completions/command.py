"""`llmctl completions SHELL`: prints the script of a shell, the same text as in the folder completions/."""

from typing import Annotated

import typer

from llmctl.cli.options import console_of
from llmctl.core import lazy
from llmctl.core.errors import UsageError

SCRIPTS = {
    "bash": "llmctl.cli.completions.bash:script",
    "zsh": "llmctl.cli.completions.zsh:script",
    "fish": "llmctl.cli.completions.fish:script",
    "powershell": "llmctl.cli.completions.powershell:script",
}
"""The shells and the functions that write their scripts from a `tree.Command`."""


def completions(
    ctx: typer.Context,
    shell: Annotated[
        str | None,
        typer.Argument(metavar="|".join(SCRIPTS), help="The shell to complete in.", show_default=False),
    ] = None,
) -> None:
    """Print the completion script of a shell.

    Save what it prints where the SHELL looks for it, then open a new terminal:

    \b
    bash: llmctl completions bash > ~/.llmctl.bash
          with `. ~/.llmctl.bash` in ~/.bashrc
    zsh:  llmctl completions zsh > ~/.zfunc/_llmctl
          with `fpath+=~/.zfunc` in ~/.zshrc, above `compinit`
    fish: llmctl completions fish > ~/.config/fish/completions/llmctl.fish
    powershell: llmctl completions powershell > llmctl.ps1
          with `. FOLDER/llmctl.ps1` in the file that $PROFILE names
    """
    console_of(ctx).write(script(shell))


def script(shell: str | None) -> str:
    """The script of `shell`, for the commands as they are now.

    Raises `UsageError` for a shell that has none.
    """
    if shell not in SCRIPTS:
        message = "completions needs a shell" if shell is None else f"no completions for the shell {shell!r}"
        raise UsageError(message, hint=f"llmctl completions {'|'.join(SCRIPTS)}")
    from llmctl.cli.completions.tree import command_tree

    write: str = lazy.load(SCRIPTS[shell])(command_tree())
    return write
