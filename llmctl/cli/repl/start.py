"""Puts the REPL together for the terminal at hand and runs it."""

import asyncio
import os

from llmctl.cli.chat.conversation import Conversation
from llmctl.cli.chat.flags import Output
from llmctl.cli.chat.opening import Opener
from llmctl.cli.console import Console
from llmctl.cli.repl.commands.table import completions
from llmctl.cli.repl.repl import Repl
from llmctl.cli.repl.resumed import show_resumed
from llmctl.cli.repl.terminal import PlainTerminal, Terminal
from llmctl.cli.repl.view import Look
from llmctl.core import log
from llmctl.core.places import Places, private_folder


def converse(
    console: Console, opener: Opener, conversation: Conversation, output: Output, *, has_history: bool
) -> int:
    """Talk until the user leaves; returns the exit code."""
    is_plain = not console.is_editable
    look = Look(
        style=output.style or ("simple" if is_plain else "rich"),
        reasoning=opener.opening.settings.reasoning,
    )
    repl = Repl(console, opener, conversation, look)
    terminal: Terminal = (
        PlainTerminal(console, repl.interrupts) if is_plain else _full(repl, has_history=has_history)
    )
    repl.terminal = terminal
    # Output that goes elsewhere gets what is said from now on.
    if (conversation.turns or conversation.unanswered is not None) and console.shows_text:
        show_resumed(console, look, conversation)

    with terminal.whole(), repl.interrupts.installed(), log.shown_by(repl.tell), asyncio.Runner() as runner:
        return runner.run(repl.run())


def _plain(repl: Repl) -> Terminal:
    return PlainTerminal(repl.console, repl.interrupts)


def _full(repl: Repl, *, has_history: bool) -> Terminal:
    # A tenth of a second to import, which plain terminals need not pay.
    from llmctl.cli.repl.full import FullTerminal

    history = None
    if has_history:
        try:
            history = private_folder(Places.from_environ(os.environ).data) / "history"
        except OSError as error:
            repl.console.note(f"(typed lines are not kept: {error.strerror})")
    return FullTerminal(repl, lambda text: completions(repl, text), history=history)
