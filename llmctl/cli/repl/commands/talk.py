"""Commands that change what was said: reset, undo, regen, retry, continue, edit."""

import shlex
from typing import TYPE_CHECKING, Any

from llmctl.cli.repl.commands import knobs
from llmctl.core.errors import UsageError

if TYPE_CHECKING:
    from llmctl.cli.repl.repl import Repl


async def reset(repl: "Repl", argument: str) -> None:
    """A new conversation under the same system message."""
    repl.conversation.reset()
    repl.attachments.clear()
    repl.conversation.unanswered, repl.used_tokens = None, 0
    repl.console.note("(a new conversation)")


async def undo(repl: "Repl", argument: str) -> None:
    """Take off all that is attached, else the question that got no answer, else the last exchange."""
    if repl.attachments:
        repl.attachments.clear()
        repl.console.note("(nothing is attached any more)")
        return
    if repl.conversation.unanswered is not None:
        repl.conversation.unanswered = None
        repl.console.note("(the question without an answer is forgotten)")
        return
    if not repl.conversation.turns:
        raise UsageError("there is nothing to take back")
    repl.conversation.drop_last(_exchange_length(repl))
    repl.used_tokens = None if repl.conversation.turns else 0
    question = next((turn for turn in reversed(repl.conversation.turns) if turn.message.role == "user"), None)
    now_last = f"the last question now is: {_short(question.message.content)}" if question else "nothing left"
    repl.console.note(f"(taken back; {now_last})")


async def regen(repl: "Repl", argument: str) -> None:
    """Answer the last question again; the old answer stays until something has come."""
    _need_answer(repl, "to answer again")
    await repl.reply("again")


async def retry(repl: "Repl", argument: str) -> None:
    """Ask what got no answer, or the last question again, with sampling of its own."""
    overrides = _pairs(argument)
    if repl.conversation.unanswered is not None:
        question, repl.conversation.unanswered = repl.conversation.unanswered, None
        repl.conversation.add_question(question, model=repl.opener.identity)
        await repl.reply("answer", overrides=overrides)
        return
    _need_answer(repl, "to ask again")
    await repl.reply("again", overrides=overrides)


async def go_on(repl: "Repl", argument: str) -> None:
    """Have the model go on with its last answer."""
    _need_answer(repl, "to go on with")
    await repl.reply("continue")


async def edit_last(repl: "Repl", argument: str) -> None:
    """Put the last question back into the line; what is sent replaces it and its answer."""
    from llmctl.cli.repl.commands.table import is_command

    questions = [turn.message.content for turn in repl.conversation.turns if turn.message.role == "user"]
    last = repl.conversation.unanswered or (questions[-1] if questions else None)
    if last is None:
        raise UsageError("there is no question to change")
    text = await repl.terminal.read(draft=last)
    if text is None or is_command(text):
        repl.console.note("(nothing changed)")
        return
    is_answered = repl.conversation.unanswered is None
    dropped = repl.conversation.drop_last(_exchange_length(repl)) if is_answered else ()
    await repl.say(text)
    if dropped and repl.conversation.unanswered is not None:
        repl.conversation.bring_back(dropped)
        repl.console.note("(the last exchange stays as it was)")


async def edit(repl: "Repl", argument: str) -> None:
    """Write a question in the editor and send it."""
    text = await repl.terminal.edit(argument)
    if not text.strip() or text == argument:
        repl.console.note("(nothing written, so nothing is sent)")
        return
    repl.console.note(_quoted(text))
    await repl.say(text)


def _exchange_length(repl: "Repl") -> int:
    """Turns since and with the last question."""
    roles = [turn.message.role for turn in repl.conversation.turns]
    return len(roles) - max((place for place, role in enumerate(roles) if role == "user"), default=0)


def _need_answer(repl: "Repl", what: str) -> None:
    if repl.conversation.last("assistant") is None:
        raise UsageError(f"there is no answer {what}")


def _pairs(argument: str) -> dict[str, Any]:
    """`temperature=1 top_p=0.9` as checked sampling parameters."""
    try:
        words = shlex.split(argument)
    except ValueError as error:
        raise UsageError(f"/retry {argument}: {error}") from error
    found: dict[str, Any] = {}
    for word in words:
        key, has_value, value = word.partition("=")
        if not has_value:
            raise UsageError(f"/retry takes KEY=VALUE, not {word!r}", hint="such as temperature=1")
        found |= knobs.sampling_value(key, value)
    return found


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:57] + "..."


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.splitlines())
