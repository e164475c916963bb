"""The fish script: one `complete` line a flag, command and argument, and the helpers in fish.template."""

from collections.abc import Iterator

from llmctl.cli.completions.tree import Command, Flag, Value, fill


def script(tree: Command) -> str:
    """The whole script for `tree`; for fish 3 and newer."""
    commands = list(tree.walk())
    valued = [
        f"{_path(command)} {name}"
        for command in commands
        for flag in command.flags
        if flag.value is not None
        for name in flag.names
    ]
    tables = {
        "PATHS": _words([_path(command) for command in commands]),
        "GROUPS": _words([_path(command) for command in commands if command.commands]),
        "VALUED": _words(valued),
        "COMPLETIONS": "\n".join(line for command in commands for line in _completions(command)),
    }
    return fill("fish", tables)


def _path(command: Command) -> str:
    return "/".join(command.path)


def _words(texts: list[str]) -> str:
    return " \\\n            ".join(map(_quoted, texts))


def _completions(command: Command) -> Iterator[str]:
    path = _path(command)
    yield f"\n# {' '.join(command.path)}"
    for below in command.commands:
        yield _line(path, "0", f"-a {below.name}", below.help)
    for number, argument in enumerate(command.arguments):
        is_many = number + 1 == len(command.arguments) and command.is_last_repeatable
        if argument.offers:
            yield _line(path, f"{number}{'+' if is_many else ''}", _offers(argument), "")
    for flag in command.flags:
        yield _line(path, "", " ".join(_spellings(flag)), flag.help)


def _line(path: str, place: str, what: str, help_text: str) -> str:
    condition = _quoted(f"__llmctl_at {path} {place}".rstrip())
    description = f" -d {_quoted(help_text)}" if help_text else ""
    return f"complete -c llmctl -n {condition} {what}{description}"


def _spellings(flag: Flag) -> Iterator[str]:
    for name in flag.names:
        yield f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
    if flag.value is not None and flag.value.offers == ("@files",):
        yield "-rF"
    elif flag.value is not None:
        # -x is -r, which asks for a value, and no files.
        yield f"-x {_offers(flag.value)}".rstrip()


def _offers(value: Value) -> str:
    if all(not offer.startswith("@") for offer in value.offers):
        return f"-a '{' '.join(value.offers)}'" if value.offers else ""
    return f"-a '(__llmctl_offer {' '.join(value.offers)})'"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
