"""The command line as plain data, read from the real commands: what every shell's script is made from."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.cli.commands import COMMANDS, CONTEXT_SETTINGS, Entry, build_command, build_group

# What a placeholder such as FILE in the help stands for. A model may be a folder as well as a name.
SOURCES: Mapping[str, tuple[str, ...]] = {
    "FILE": ("@files",),
    "PATH": ("@files",),
    "DIR": ("@folders",),
    "FOLDER": ("@folders",),
    "MODEL": ("@models", "@folders"),
    "SESSION": ("@sessions",),
}
# No shell gives these characters a meaning, so the scripts need no quotes around commands, flags and choices.
_PLAIN = re.compile(r"[A-Za-z0-9_.+-]+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """What may stand in one place of a command line."""

    placeholder: str
    """As the help shows it: FILE, `auto|cuda|cpu`."""
    offers: tuple[str, ...]
    """Words to choose from, and `@files`, `@folders`, `@models`, `@sessions`; empty when anything goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """A flag that the help shows."""

    names: tuple[str, ...]
    """All its spellings: ("-p", "--prompt")."""
    help: str
    """The first sentence, without its full stop."""
    value: Value | None
    """None when it takes none."""
    is_repeatable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command or, when it has `commands`, a group."""

    path: tuple[str, ...]
    """("llmctl", "config", "show")."""
    help: str
    flags: tuple[Flag, ...]
    arguments: tuple[Value, ...]
    is_last_repeatable: bool
    """Whether the last argument may be given any number of times."""
    commands: tuple["Command", ...]

    @property
    def name(self) -> str:
        """The last word of the path."""
        return self.path[-1]

    @property
    def flag_names(self) -> list[str]:
        """Every spelling of every flag."""
        return [name for flag in self.flags for name in flag.names]

    def walk(self) -> Iterator["Command"]:
        """Itself and everything below, from the top."""
        yield self
        for command in self.commands:
            yield from command.walk()


def command_tree(entries: dict[str, Entry] = COMMANDS) -> Command:
    """All of `llmctl`, with `entries` as its commands; imports every command, which takes a moment."""
    root = build_group("llmctl", "", entries, has_version=True)
    return _command(("llmctl",), root, Entry("", commands=entries))


def fill(shell: str, tables: Mapping[str, str]) -> str:
    """The template of `shell` beside this file, `@NAME@` replaced by each of `tables`."""
    text = Path(__file__).with_name(f"{shell}.template").read_text(encoding="utf-8")
    for name, table in tables.items():
        assert f"@{name}@" in text, f"{name} is not in the template of {shell}"
        text = text.replace(f"@{name}@", table)
    return text


def _command(path: tuple[str, ...], built: Any, entry: Entry) -> Command:
    arguments = [param for param in built.params if param.param_type_name == "argument" and not param.hidden]
    return Command(
        path=path,
        help=_first_sentence(entry.summary),
        flags=tuple(_flags(built)),
        arguments=tuple(map(_value, arguments)),
        is_last_repeatable=bool(arguments) and arguments[-1].nargs == -1,
        commands=tuple(_commands(path, entry)),
    )


def _commands(path: tuple[str, ...], entry: Entry) -> Iterator[Command]:
    for name, below in (entry.commands or {}).items():
        if below.commands is None:
            built: Any = build_command(name, below)
        else:
            built = build_group(name, below.summary, below.commands)
        yield _command((*path, _plain(name)), built, below)


def _flags(built: Any) -> Iterator[Flag]:
    for param in built.params:
        if param.param_type_name == "option" and not param.hidden:
            yield Flag(
                names=tuple(map(_plain, [*param.opts, *param.secondary_opts])),
                help=_first_sentence(param.help or ""),
                value=None if param.is_flag or param.count else _value(param),
                is_repeatable=param.multiple or param.count,
            )
    yield Flag(
        names=tuple(CONTEXT_SETTINGS["help_option_names"]),
        help="Show the help",
        value=None,
        is_repeatable=False,
    )


def _value(param: Any) -> Value:
    """What a parameter takes, read from its metavar: words in capitals are placeholders, others are meant."""
    metavar = (param.metavar or param.name.upper()).strip("[]").removesuffix("...")
    if not param.metavar and param.type_descriptor.choices:
        metavar = "|".join(param.type_descriptor.choices)
    words = metavar.split("|")
    offers = [SOURCES.get(word, () if word == word.upper() else (_plain(word),)) for word in words]
    return Value(placeholder=metavar, offers=tuple(offer for group in offers for offer in group))


def _plain(word: str) -> str:
    """`word`, which goes into the scripts unquoted."""
    assert _PLAIN.fullmatch(word), f"the completion scripts would need quotes around {word!r}"
    return word


def _first_sentence(text: str) -> str:
    return _SENTENCE_END.split(" ".join(text.split()), maxsplit=1)[0].removesuffix(".")
