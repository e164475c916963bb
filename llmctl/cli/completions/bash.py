"""The bash script: tables of commands and flags in front of the engine in bash.template."""

from llmctl.cli.completions.tree import Command, fill


def script(tree: Command) -> str:
    """The whole script for `tree`; for bash 3.2 and newer."""
    commands = [line for command in tree.walk() for line in _command(command)]
    values = [line for command in tree.walk() for line in _values(command)]
    return fill("bash", {"COMMANDS": "\n".join(commands), "VALUES": "\n".join(values)})


def _command(command: Command) -> list[str]:
    places = " ".join(f"'{' '.join(argument.offers)}'" for argument in command.arguments)
    return [
        f"        '{' '.join(command.path)}')",
        f"            commands='{' '.join(below.name for below in command.commands)}'",
        f"            flags='{' '.join(command.flag_names)}'",
        f"            places=({places}) many={'1' if command.is_last_repeatable else ''}",
        "            ;;",
    ]


def _values(command: Command) -> list[str]:
    """The flags that take a value, those that offer the same in one line."""
    names_by_offers: dict[str, list[str]] = {}
    for flag in command.flags:
        if flag.value is not None:
            names_by_offers.setdefault(" ".join(flag.value.offers), []).extend(flag.names)
    cases = [f"{' | '.join(names)}) offers='{offers}' ;;" for offers, names in names_by_offers.items()]
    return [
        f"        '{' '.join(command.path)}')",
        "            case $2 in",
        *(f"                {case}" for case in cases),
        "                *) return 1 ;;",
        "            esac",
        "            ;;",
    ]
