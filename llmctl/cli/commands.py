"""The commands by name, loaded on use: `llmctl --help` imports none of them."""

import sys
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from llmctl import __version__
from llmctl.cli.console import is_terminal
from llmctl.cli.options import common_options, console_of
from llmctl.cli.parsing import Command, spare_pydantic
from llmctl.core import lazy
from llmctl.core.errors import UsageError

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"]}


@dataclass(frozen=True, slots=True)
class Entry:
    """A command, or a group of commands, and its line in `--help` (the first of the function's docstring)."""

    summary: str
    target: str = ""
    """`module:function` of a command; empty for a group."""
    commands: "dict[str, Entry] | None" = None
    refused: str = ""
    """`module:table` of flags that other programs have and this command has not, each with what to do."""


COMMANDS: dict[str, Entry] = {
    "chat": Entry("Chat with a model, or answer one prompt.", "llmctl.cli.chat.command:chat"),
    "models": Entry(
        "List, match, show, download, convert and upload models.",
        commands={
            "list": Entry(
                "List model families, or the models on this machine.", "llmctl.cli.models.listing:list_models"
            ),
            "match": Entry(
                "Say how a model is prompted, stopped and loaded, and why.",
                "llmctl.cli.models.match:match_models",
            ),
            "show": Entry("Show what a checkpoint is and whether it fits.", "llmctl.cli.models.show:show"),
            "pull": Entry("Download models, or what is missing of them.", "llmctl.cli.models.pull:pull"),
            "convert": Entry(
                "Write a model's weights in other numbers, in shards of another size, or as safetensors.",
                "llmctl.cli.models.convert:convert",
            ),
            "push": Entry(
                "Upload a folder to the hub: a model, a delta or an adapter.", "llmctl.cli.models.push:push"
            ),
            "rm": Entry("Remove a downloaded model from the cache.", "llmctl.cli.models.rm:rm"),
        },
    ),
    "compress": Entry(
        "Store a model's weights in 8 or 4 bits.",
        "llmctl.cli.compress:compress",
    ),
    "delta": Entry(
        "Make and apply deltas: what makes one model of another.",
        commands={
            "make": Entry(
                "Write what turns one model into another.",
                "llmctl.cli.delta.make:make",
                refused="llmctl.cli.delta.flags:OF_MAKE",
            ),
            "apply": Entry(
                "Write the model that a delta makes of its base.",
                "llmctl.cli.delta.apply:apply",
                refused="llmctl.cli.delta.flags:OF_APPLY",
            ),
            "show": Entry(
                "Show what a delta is: its base and target, what differs, how large it is.",
                "llmctl.cli.delta.show:show",
            ),
            "verify": Entry(
                "Read all of a delta, and of its base and target where given, and say what is not as it was.",
                "llmctl.cli.delta.verify:verify",
            ),
        },
    ),
    "lora": Entry(
        "Merge LoRA adapters, or make one of two models.",
        commands={
            "merge": Entry(
                "Merge a LoRA adapter into its base: a checkpoint that needs no adapter any more.",
                "llmctl.cli.lora.merge:merge",
            ),
            "extract": Entry(
                "Make a LoRA adapter of the difference of two models, as peft and vLLM read it.",
                "llmctl.cli.lora.extract:extract",
            ),
        },
    ),
    "logs": Entry(
        "Look at past conversations, export or delete them.",
        commands={
            "list": Entry(
                "List conversations, the most recent first.", "llmctl.cli.logs.browse:list_sessions"
            ),
            "show": Entry("Show a conversation as markdown.", "llmctl.cli.logs.browse:show"),
            "search": Entry(
                "Search conversations for words, the newest message first.", "llmctl.cli.logs.browse:search"
            ),
            "export": Entry("Write a conversation to stdout or to a file.", "llmctl.cli.logs.export:export"),
            "delete": Entry("Delete conversations for good.", "llmctl.cli.logs.delete:delete"),
        },
    ),
    "config": Entry(
        "Look at the settings.",
        commands={
            "show": Entry("Show every setting in force and where it comes from.", "llmctl.cli.config:show")
        },
    ),
    "bench": Entry(
        "Measure speed on this machine.",
        commands={
            "layers": Entry(
                "Time quantised layers against dense ones, over one block of a model.",
                "llmctl.cli.bench:layers",
            ),
            "engine": Entry(
                "Time the engine: decode, prefill, many clients, memory.", "llmctl.cli.bench_engine:engine"
            ),
            "serve": Entry(
                "Time a server under load: first token, inter-token, throughput.",
                "llmctl.cli.bench_serve:serve",
            ),
        },
    ),
    "serve": Entry(
        "Serve models to OpenAI clients: a worker alone, or a fleet.",
        commands={
            "up": Entry("Start a whole fleet on this machine, and watch over it.", "llmctl.cli.serve.up:up"),
            "ps": Entry("List the fleets that run on this machine.", "llmctl.cli.serve.ps:ps"),
            "stop": Entry("Stop a fleet of this machine.", "llmctl.cli.serve.stop:stop"),
            "worker": Entry(
                "Serve models to OpenAI clients, by itself or as a part of a fleet.",
                "llmctl.cli.serve.worker:worker",
                refused="llmctl.cli.serve.fastchat_flags:OF_WORKERS",
            ),
            "controller": Entry(
                "Keep the table of a fleet: who serves what, and how busy it is.",
                "llmctl.cli.serve.controller:controller",
            ),
            "api": Entry(
                "Serve OpenAI clients from the workers of a fleet.",
                "llmctl.cli.serve.api:api",
                refused="llmctl.cli.serve.api:OF_FASTCHAT",
            ),
            "status": Entry(
                "Show the workers of a fleet, their models and their load.", "llmctl.cli.serve.status:status"
            ),
        },
    ),
    "doctor": Entry("Say what llmctl finds on this machine.", "llmctl.cli.doctor:doctor"),
    "completions": Entry(
        "Print the completion script of a shell.", "llmctl.cli.completions.command:completions"
    ),
}


_SAME = (
    ("chat", "run", "ask", "generate"),
    ("list", "ls"),
    ("pull", "download", "get"),
    ("rm", "remove", "delete"),
)
"""Words of other tools for what is a command here."""


class LazyGroup(TyperGroup):
    """A Typer group over a table of entries."""

    entries: dict[str, Entry]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Typer does."""
        for param in self.get_params(ctx):
            spare_pydantic(param)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        """All names, in the order of the table."""
        return list(self.entries)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A group, or a command's name and line of help; the command itself comes from `resolve_command`."""
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        if entry.commands is not None:
            return build_group(cmd_name, entry.summary, entry.commands)
        return TyperCommand(cmd_name, help=entry.summary, rich_markup_mode=markup_mode())

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is about to run, imported now."""
        if args[0] not in self.entries and (meant := _meant(args[0], self.name or "", self.entries)):
            hint = f"did you mean {' or '.join(f'llmctl {path}' for path in meant)}?"
            raise UsageError(f"no such command: {ctx.command_path} {args[0]}", hint=hint)
        name, found, rest = super().resolve_command(ctx, args)
        if name is not None and self.entries[name].commands is None:
            found = build_command(name, self.entries[name])
        return name, found, rest


def _meant(word: str, group: str, entries: dict[str, Entry]) -> list[str]:
    """The commands that `word` may stand for: those of the group, else those of the others."""
    words = next((same for same in _SAME if word in same), (word,))
    own = [name if entries is COMMANDS else f"{group} {name}" for name in entries if name in words]
    inner = [
        f"{outer} {name}"
        for outer, entry in COMMANDS.items()
        for name in entry.commands or ()
        if name in words
    ]
    return own or [*(name for name in COMMANDS if name in words), *inner]


def build_group(
    name: str, help_text: str, entries: dict[str, Entry], *, has_version: bool = False
) -> LazyGroup:
    """A Typer app whose commands come from `entries`, turned into its command object.

    With `has_version` the group takes `--version` as well.
    """
    app = typer.Typer(
        name=name,
        cls=LazyGroup,
        help=help_text,
        add_completion=False,
        invoke_without_command=True,
        context_settings=CONTEXT_SETTINGS,
        rich_markup_mode=markup_mode(),
    )
    app.callback()(_show_help_or_version if has_version else _show_help)
    built = get_command(app)
    assert isinstance(built, LazyGroup)
    built.params.extend(common_options())
    built.entries = entries
    # Typer reads only the keys, to suggest the nearest name.
    built.commands = dict.fromkeys(entries, TyperCommand(None))
    return built


def build_command(name: str, entry: Entry) -> TyperCommand:
    """Import a command's function and build its command object, common options included."""
    app = typer.Typer(add_completion=False, context_settings=CONTEXT_SETTINGS, rich_markup_mode=markup_mode())
    app.command(name, cls=Command)(lazy.load(entry.target))
    built = get_command(app)
    assert isinstance(built, Command)
    built.params.extend(common_options())
    if entry.refused:
        built.refused = lazy.load(entry.refused)
    return built


def markup_mode() -> Any:
    """Boxes and colour in help only on a terminal: a pipe gets plain text, faster."""
    return "rich" if is_terminal(sys.stdout) else None


def _show_help(ctx: typer.Context) -> None:
    """Without a command, a group shows what it offers."""
    if ctx.invoked_subcommand is None:
        help_text = ctx.get_help()
        # With boxes Typer prints by itself and returns nothing.
        if help_text:
            console_of(ctx).line(help_text)


def _show_help_or_version(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", "-V", help="Print the version.")] = False,
) -> None:
    if version:
        console_of(ctx).line(f"llmctl {__version__}")
        raise typer.Exit
    _show_help(ctx)
