"""The zsh script: one function a command for zsh's own `_arguments`, and the helpers in zsh.template."""

from collections.abc import Iterator

from llmctl.cli.completions.tree import Command, Flag, Value, fill


def script(tree: Command) -> str:
    """The whole script for `tree`; for zsh 5."""
    functions = [line for command in tree.walk() for line in _function(command)]
    return fill("zsh", {"COMMANDS": "\n".join(functions)})


def _function(command: Command) -> Iterator[str]:
    below = _group_specs() if command.commands else _argument_specs(command)
    specs = [f"        {_quoted(spec)}" for spec in (*_flag_specs(command), *below)]
    yield f"{_function_name(command)}() {{"
    yield from _list_of_commands(command)
    yield "    _arguments -s -S -C \\"
    yield " \\\n".join(specs) + (" && ret=0" if command.commands else "")
    yield from _descent(command)
    yield "}\n"


def _function_name(command: Command) -> str:
    return "_".join(("", *command.path, "command"))


def _list_of_commands(command: Command) -> Iterator[str]:
    if command.commands:
        yield "    local curcontext=$curcontext state line ret=1"
        yield "    local -A opt_args"
        yield "    local -a commands=("
        yield from (f"        {_quoted(f'{below.name}:{below.help}')}" for below in command.commands)
        yield "    )"


def _descent(command: Command) -> Iterator[str]:
    if command.commands:
        yield "    case $state in"
        yield "        command) _describe -t commands command commands && ret=0 ;;"
        yield "        rest)"
        yield "            case $words[1] in"
        for below in command.commands:
            yield f"                {below.name}) {_function_name(below)} && ret=0 ;;"
        yield "            esac"
        yield "            ;;"
        yield "    esac"
        yield "    return ret"


def _group_specs() -> tuple[str, ...]:
    # `(-)`: what stands behind the command is the command's, flags too.
    return "(-): :->command", "(-)*:: :->rest"


def _argument_specs(command: Command) -> Iterator[str]:
    for number, argument in enumerate(command.arguments, start=1):
        is_many = number == len(command.arguments) and command.is_last_repeatable
        yield f"{'*' if is_many else number}{_value(argument)}"


def _flag_specs(command: Command) -> Iterator[str]:
    for flag in command.flags:
        for name in flag.names:
            yield (
                _exclusion(flag)
                + name
                + _sign(name, flag)
                + f"[{_escaped(flag.help)}]"
                + (_value(flag.value) if flag.value else "")
            )


def _exclusion(flag: Flag) -> str:
    return "*" if flag.is_repeatable else f"({' '.join(flag.names)})"


def _sign(name: str, flag: Flag) -> str:
    """How the value may follow: `--name=value` or the next word, `-nvalue` or the next word."""
    if flag.value is None:
        return ""
    return "=" if name.startswith("--") else "+"


def _value(value: Value) -> str:
    # A lone space offers nothing, and shows the placeholder.
    action = f" _llmctl_offer {' '.join(value.offers)}" if value.offers else " "
    return f":{value.placeholder.replace(':', chr(92) + ':')}:{action}"


def _escaped(text: str) -> str:
    for char in "\\[]:":
        text = text.replace(char, f"\\{char}")
    return text


def _quoted(text: str) -> str:
    escaped = text.replace("'", "'\\''")
    return f"'{escaped}'"
