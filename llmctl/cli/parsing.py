"""What llmctl's commands do differently from Typer's: values that may be left out, text that costs nothing.

An option whose metavar stands in brackets, `--render [FILE]`, may come without its value; Typer's parser
has no such thing. And Typer imports pydantic, which takes longer than all of llmctl, to turn text into text.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from typer._coercion import RuntimeParam
from typer.core import TyperCommand

from llmctl.core.errors import UsageError

_SUFFIX = ".json"
_PLAIN = (str, list[str])


class Command(TyperCommand):
    """A command whose options may leave out their value; without one they are the empty text."""

    refused: Mapping[str, str] = {}
    """Flags that it has not, each with what to do instead."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give every such option its value, then parse as ever. Raises `UsageError` for a refused flag."""
        self._refuse(args)
        for param in self.get_params(ctx):
            spare_pydantic(param)
        options = [param for param in self.params if param.param_type_name == "option"]
        optional = {name for option in options if _is_optional(option) for name in option.opts}
        takers = {name for option in options if not _is_valueless(option) for name in option.opts}
        return super().parse_args(ctx, list(_completed(args, optional, takers - optional)))

    def _refuse(self, args: list[str]) -> None:
        for arg in args:
            name = arg.partition("=")[0]
            # The programs that these flags are from write some of them with underscores.
            if (told := self.refused.get(name.replace("_", "-"))) is not None:
                raise UsageError(f"{self.name} has no {name}", hint=told)


def spare_pydantic(param: Any) -> None:
    """Let a parameter take text and counts as they are, and all else by Typer's means once it has a value."""
    found = param.type_descriptor
    # Typer builds this when it first needs it, and keeps it here.
    param._runtime_param = _WhenNeeded(found.parameter_info, found.annotation)  # noqa: SLF001


@dataclass(frozen=True)
class _WhenNeeded(RuntimeParam):
    def _coerce_value(self, value: Any, param: Any, ctx: Any) -> Any:
        if self.annotation in _PLAIN or getattr(param, "count", False):
            return list(value) if isinstance(value, tuple) else value
        param._runtime_param = None  # noqa: SLF001
        return param.get_runtime_param().coerce(value, param=param, ctx=ctx)


def _is_optional(option: Any) -> bool:
    return (option.metavar or "").startswith("[")


def _is_valueless(option: Any) -> bool:
    return bool(option.is_flag or option.count)


def _completed(args: Sequence[str], optional: set[str], takers: set[str]) -> Iterator[str]:
    """`args` with `--name=` in the place of each `--name` that has no value behind it."""
    rest = iter(enumerate(args))
    for index, arg in rest:
        following = args[index + 1] if index + 1 < len(args) else None
        if arg == "--":
            yield from args[index:]
            return
        if arg in optional:
            is_given = following is not None and _is_value(following)
            yield f"{arg}={next(rest)[1] if is_given else ''}"
        else:
            yield arg
            if arg in takers and following is not None:
                yield next(rest)[1]


def _is_value(word: str) -> bool:
    """Whether a word is a file; it may as well be the command's argument. `--name=WORD` is always one."""
    # Unlike Path, it takes a name that no file can have for an absent one.
    return word.endswith(_SUFFIX) or os.path.isfile(word)  # noqa: PTH113
