"""Commands that bring files in and answers out: attach, copy."""

import shlex
from typing import TYPE_CHECKING

from llmctl.cli.chat.answer import last_code_block
from llmctl.cli.repl.clipboard import copy_text
from llmctl.core.errors import UsageError
from llmctl.core.files import read_text
from llmctl.core.places import expanded

if TYPE_CHECKING:
    from llmctl.cli.repl.repl import Repl

MAX_BYTES = 10 * 2**20
"""No context of today holds more text, and a mistyped path should not stall the terminal."""
FENCE = "```"


async def attach(repl: "Repl", argument: str) -> None:
    """Read files now, send them with the next question, or at once when one stands behind `--`."""
    named, _, text = argument.partition(" -- ")
    try:
        names = shlex.split(named)
    except ValueError as error:
        raise UsageError(f"/file {named}: {error}", hint="quote paths with blanks") from error
    if not names:
        raise UsageError("/file needs a path", hint="/file PATH ... [-- TEXT]")
    # All are read before any is attached.
    found = [(path, attachment(path)) for path in names]
    repl.attachments.extend(found)
    if text.strip():
        await repl.say(text.strip())
    else:
        sizes = ", ".join(f"{path} ({len(text)} characters)" for path, text in found)
        repl.console.note(f"(goes with the next question: {sizes}; /undo takes it off again)")


async def copy(repl: "Repl", argument: str) -> None:
    """The last answer into the clipboard."""
    if argument not in ("", "code"):
        raise UsageError(f"/copy takes nothing or code, not {argument!r}")
    turn = repl.conversation.last_answer()
    if turn is None:
        raise UsageError("there is no answer to copy")
    text: str | None = turn.message.content
    if argument == "code":
        text = last_code_block(turn.message.content)
    if text is None:
        raise UsageError("the last answer has no code block", hint="/copy takes all of it")
    way = copy_text(text, repl.console)
    repl.console.note(f"({len(text)} characters copied: {way})")


def attachment(path: str) -> str:
    """A text file under its name, fenced so that the model sees where it ends.

    Raises `NotFoundError`, `BadFileError`.
    """
    file = expanded(path)
    text = read_text(file, called=path, max_bytes=MAX_BYTES)
    fence = FENCE
    while fence in text:
        fence += "`"
    return f"{file.name}:\n{fence}\n{text.rstrip()}\n{fence}"
