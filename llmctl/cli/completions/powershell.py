"""The PowerShell script: a table of commands in front of the engine in powershell.template."""

from collections.abc import Iterator

from llmctl.cli.completions.tree import Command, Flag, fill

# PowerShell 5 is sure to read ASCII rightly and nothing else, and takes typographic quotes for plain ones.
_ASCII = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "..."})


def script(tree: Command) -> str:
    """The whole script for `tree`, in ASCII; for PowerShell 5 and newer."""
    commands = [line for command in tree.walk() for line in _command(command)]
    return fill("powershell", {"COMMANDS": "\n".join(commands)})


def _command(command: Command) -> Iterator[str]:
    places = ", ".join(_quoted(" ".join(place.offers)) for place in command.arguments)
    yield f"        {_quoted(' '.join(command.path))} = @{{"
    yield f"            Arguments = @({places})"
    yield f"            IsLastRepeatable = ${str(command.is_last_repeatable).lower()}"
    yield "            Commands = @("
    for below in command.commands:
        yield f"                @{{ Name = {_quoted(below.name)}; Help = {_quoted(below.help)} }}"
    yield "            )"
    yield "            Flags = @("
    yield from map(_flag, command.flags)
    yield "            )"
    yield "        }"


def _flag(flag: Flag) -> str:
    names = ", ".join(map(_quoted, flag.names))
    offers = "$null" if flag.value is None else _quoted(" ".join(flag.value.offers))
    return f"                @{{ Names = @({names}); Offers = {offers}; Help = {_quoted(flag.help)} }}"


def _quoted(text: str) -> str:
    plain = text.translate(_ASCII).encode("ascii", "replace").decode("ascii")
    return "'" + plain.replace("'", "''") + "'"
