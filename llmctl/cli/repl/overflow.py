"""What happens when the conversation has outgrown the model's context: the user chooses, never silence."""

from dataclasses import replace
from typing import TYPE_CHECKING

from llmctl.cli.chat.opening import LocalOpener
from llmctl.core.errors import ContextOverflowError

if TYPE_CHECKING:
    from llmctl.cli.repl.repl import Repl

ANSWER_SHARE = 0.25
"""Of the context, what dropping leaves free for the answer."""


async def make_room(repl: "Repl", error: ContextOverflowError) -> bool:
    """Do what the user, or the setting `overflow`, chooses; returns whether it is worth asking again."""
    choice = {"drop": "d", "stop": "s"}.get(repl.settings.overflow)
    longest, can_drop = _longest(repl), repl.conversation.can_drop_oldest
    if choice == "s":
        return False
    if longest is None and not can_drop:
        repl.console.error(error)
        repl.console.note("(this question alone is too long: shorten it)")
        repl.is_overflow_told = True
        return False
    if choice is None:
        repl.console.error(error)
        choices = {"d": "drop the oldest turns"} if can_drop else {}
        if longest is not None:
            choices["r"] = f"raise the limit to {longest}"
        choice = await repl.terminal.choose("What now?", choices | {"s": "stop"})
        repl.is_overflow_told = True
    if choice == "r" and isinstance(repl.opener, LocalOpener):
        settings = replace(repl.settings, context=None)
        repl.opener.reconfigure(replace(repl.opener.opening, settings=settings))
        repl.console.note(f"(the context is now {longest} tokens)")
        return True
    return choice == "d" and _drop(repl, error)


def _longest(repl: "Repl") -> int | None:
    """The model's own context, where a lower limit is set."""
    if not isinstance(repl.opener, LocalOpener) or repl.opener.backend is None:
        return None
    backend = repl.opener.backend
    return backend.longest_context if backend.longest_context > (backend.info.context_length or 0) else None


def _drop(repl: "Repl", error: ContextOverflowError) -> bool:
    """Leave out the oldest turns, enough of them that an answer fits too."""
    total = sum(len(message.content) for message in repl.conversation.messages)
    limit = _characters_that_fit(total, error)
    dropped = 0
    while (count := repl.conversation.drop_oldest()) > 0:
        dropped += count
        if sum(len(message.content) for message in repl.conversation.messages) <= limit:
            break
    if not dropped:
        return False
    repl.console.note(f"(the model no longer sees the oldest {dropped} turns; the log keeps them)")
    return True


def _characters_that_fit(total: int, error: ContextOverflowError) -> float:
    """How much text may stay, by the tokens of the failed prompt; where unknown, a turn less is tried."""
    if not error.prompt_tokens or not error.context_length:
        return total
    return total * (1 - ANSWER_SHARE) * error.context_length / error.prompt_tokens
