"""Every command of the REPL by name, and how a line becomes one."""

import difflib
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmctl.cli.repl.commands import files, knobs, sessions, show, talk
from llmctl.cli.repl.complete import Choice, Source, complete, paths
from llmctl.core.errors import LlmctlError, UsageError

if TYPE_CHECKING:
    from llmctl.cli.repl.repl import Repl

Run = Callable[["Repl", str], Awaitable[None]]

_NAME = re.compile(r"(?:/|!!)[a-z?][a-z-]*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command; its line in /help is made of `usage` and `summary`."""

    usage: str
    """The name, then what it takes."""
    summary: str
    run: Run
    aliases: tuple[str, ...] = ()
    takes_argument: bool = True

    @property
    def name(self) -> str:
        """With its slash."""
        return self.usage.split()[0]

    @property
    def meaning(self) -> str:
        """What it does, and what else it is called."""
        return self.summary + (f" Also {', '.join(self.aliases)}." if self.aliases else "")


async def _help(repl: "Repl", argument: str) -> None:
    """All commands, or one."""
    wanted = [_find("/" + argument.lstrip("/!"))] if argument else list(COMMANDS)
    rows = [[command.usage, command.meaning] for command in wanted]
    repl.console.rows([*rows, *KEYS] if not argument else rows)


async def _exit(repl: "Repl", argument: str) -> None:
    repl.leave()


KEYS = (
    ["Enter", "Send. Alt-Enter or Ctrl-J begins a new line."],
    ['"""', 'Text between """ and """ may have many lines.'],
    ["Ctrl-C", "Stop the answer and keep what came of it; clear the line."],
    ["Ctrl-D", "Leave."],
    ["Ctrl-G", "Open the line in your editor."],
    ["Tab, Ctrl-R", "Complete; search what was typed before."],
    ["a space first", "Send a line that begins with a slash as text."],
)

COMMANDS: tuple[Command, ...] = (
    Command(usage="/help [COMMAND]", summary="This list.", run=_help, aliases=("/?",)),
    Command(
        usage="/exit",
        summary="Leave.",
        run=_exit,
        aliases=("/quit", "/bye", "!!exit"),
        takes_argument=False,
    ),
    Command(
        usage="/reset",
        summary="Begin a new conversation; the old one stays in the log.",
        run=talk.reset,
        aliases=("/clear", "/new", "!!reset"),
        takes_argument=False,
    ),
    Command(
        usage="/undo",
        summary="Take back the last question and its answer.",
        run=talk.undo,
        aliases=("!!remove",),
        takes_argument=False,
    ),
    Command(
        usage="/regen",
        summary="Another answer in the place of the last.",
        run=talk.regen,
        aliases=("!!regen",),
        takes_argument=False,
    ),
    Command(
        usage="/retry [KEY=VALUE ...]",
        summary="Ask again: what failed, or the last question with other sampling for once.",
        run=talk.retry,
    ),
    Command(
        usage="/continue",
        summary="Have the last answer go on.",
        run=talk.go_on,
        takes_argument=False,
    ),
    Command(
        usage="/edit-last",
        summary="Change the last question and ask it anew.",
        run=talk.edit_last,
        takes_argument=False,
    ),
    Command(usage="/edit [TEXT]", summary="Write the next question in your editor.", run=talk.edit),
    Command(usage="/file PATH ... [-- TEXT]", summary="Send files with the next question.", run=files.attach),
    Command(usage="/copy [code]", summary="Copy the last answer, or its last code block.", run=files.copy),
    Command(
        usage="/system [TEXT]",
        summary='Show or set the system message; "" removes it.',
        run=knobs.system,
    ),
    Command(usage="/model [NAME]", summary="Show or change the model.", run=knobs.model),
    Command(
        usage="/template [FILE|default]",
        summary="Show or change the chat template.",
        run=knobs.template,
    ),
    Command(
        usage="/set [KEY [VALUE|default]]",
        summary="List or change sampling and the rest.",
        run=knobs.set_knob,
    ),
    Command(usage="/show [SUBJECT]", summary="Show what is in force.", run=show.show),
    Command(usage="/stats", summary="Tokens and speed so far.", run=show.stats, takes_argument=False),
    Command(
        usage="/save FILE",
        summary="Write the conversation to a JSON file.",
        run=sessions.save,
        aliases=("!!save",),
    ),
    Command(
        usage="/load FILE|SESSION",
        summary="Go on with a saved conversation (FastChat's files too) or a kept session.",
        run=sessions.load,
        aliases=("!!load",),
    ),
    Command(
        usage="/export md|json [FILE]",
        summary="Print the conversation, or write it.",
        run=sessions.export,
    ),
    Command(usage="/name [NAME]", summary="Name this session, for --session and /load.", run=sessions.name),
)


def is_command(text: str) -> bool:
    """Whether a line is a command: /etc/hosts is not, and neither is what begins with a space."""
    first = text.split(maxsplit=1)[0] if not text[:1].isspace() else ""
    return _NAME.match(first) is not None


async def run_command(repl: "Repl", text: str) -> None:
    """Run a line that `is_command`; what goes wrong is told, and the talk goes on."""
    name, *rest = text.strip().split(maxsplit=1)
    argument = rest[0] if rest else ""
    try:
        command = _find(name)
        if argument and not command.takes_argument:
            raise UsageError(f"{command.name} takes nothing, not {argument!r}")
        with repl.interrupts.raising():
            await command.run(repl, argument)
    except LlmctlError as error:
        repl.console.error(error)
    except KeyboardInterrupt:
        repl.console.note("(stopped)")


def completions(repl: "Repl", text: str) -> Iterator[Choice]:
    """What Tab offers for a line."""
    names = {command.name: command.summary for command in COMMANDS}
    sources: dict[str, Source] = {
        "/help": lambda _: ((command.name.removeprefix("/"), command.summary) for command in COMMANDS),
        "/set": lambda argument: knobs.choices(repl, argument),
        "/retry": lambda _: ((f"{key}=", "") for key in knobs.sampling_keys()),
        "/show": lambda _: show.SUBJECTS.items(),
        "/model": lambda _: ((name, "") for name in knobs.models(repl)),
        "/load": lambda argument: sessions.choices(repl, argument),
        "/export": lambda argument: paths(argument) if " " in argument else (("md", ""), ("json", "")),
        "/copy": lambda _: (("code", "the last code block"),),
        "/template": paths,
        "/save": paths,
        "/file": paths,
    }
    return complete(text, names, sources)


def _find(name: str) -> Command:
    known = {alias: command for command in COMMANDS for alias in (command.name, *command.aliases)}
    found = known.get(name.lower())
    if found is not None:
        return found
    near = difflib.get_close_matches(name.lower(), known, n=1)
    remedy = f"did you mean {near[0]}? " if near else "/help lists them; "
    raise UsageError(f"no command {name}", hint=f"{remedy}to say it to the model begin with a space")
