"""Assembles the one Typer app and maps every way that a command can end to its exit code."""

import re
import signal
import sys
import traceback
from types import FrameType
from typing import Any

import typer
from typer.exceptions import TyperException

from llmctl.cli.commands import COMMANDS, LazyGroup, build_group
from llmctl.cli.console import Console
from llmctl.core import log
from llmctl.core.errors import LlmctlError, UsageError

HELP = "Run open language models: chat with one in the terminal, serve many."
SIGTERM_EXIT = 143
SIGINT_EXIT = 130


class _Terminated(BaseException):
    """SIGTERM, raised in the main thread so that everything is closed on the way out."""


def run(args: list[str]) -> int:
    """Run one command line and return the process's exit code (table in README)."""
    console = Console(is_json="--json" in args)
    log.setup(console.verbosity)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return _exit_code(root().main(args, "llmctl", standalone_mode=False, obj=console))
    except LlmctlError as error:
        _trace(console)
        console.error(error)
        return error.exit_code
    except TyperException as error:
        console.error(_usage_error(error, args))
        return UsageError.exit_code
    except (KeyboardInterrupt, typer.Abort) as error:
        return _interrupted(console, error)
    except _Terminated:
        return SIGTERM_EXIT
    except Exception as error:  # noqa: BLE001  # the edge: whatever nobody foresaw becomes one line
        return _fail(console, error)


def root() -> LazyGroup:
    """The whole command line."""
    return build_group("llmctl", HELP, COMMANDS, has_version=True)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise _Terminated


def _exit_code(result: Any) -> int:
    return result if isinstance(result, int) else 0


def _usage_error(error: TyperException, args: list[str]) -> UsageError:
    """A mistake in the command line as one line of ours, pointing at the help of the command concerned."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else _command_path(args)
    message, value = _plainly(error.format_message().rstrip(".")), _value_given(error, args)
    is_told = value is None or repr(value) in message
    return UsageError(message if is_told else f"{message}: {value!r}", hint=f"{path} --help")


def _plainly(message: str) -> str:
    """Typer's number errors come from pydantic, which speaks of parsing strings."""
    message = re.sub(r"Input should be a valid integer, .*", "must be a whole number", message)
    return re.sub(r"Input should be a valid number, .*", "must be a number", message)


def _value_given(error: TyperException, args: list[str]) -> str | None:
    """What stands behind the option that `error` is about; Typer's number errors leave it out."""
    names = getattr(getattr(error, "param", None), "opts", ())
    for arg, following in zip(args, [*args[1:], None], strict=True):
        name, has_value, value = arg.partition("=")
        if name in names:
            return value if has_value else following
    return None


def _command_path(args: list[str]) -> str:
    """The command that `args` begin with, for the errors to which Typer gives no context."""
    path, entries = ["llmctl"], COMMANDS
    for arg in args:
        if arg not in entries:
            break
        path.append(arg)
        entries = entries[arg].commands or {}
    return " ".join(path)


def _interrupted(console: Console, error: BaseException) -> int:
    """Ctrl-C; but Typer makes an Abort of an EOFError too, and one that a command let pass is a defect."""
    cause = error.__cause__
    return _fail(console, cause) if isinstance(cause, EOFError) else SIGINT_EXIT


def _fail(console: Console, error: Exception) -> int:
    _trace(console)
    console.error(_unforeseen(error))
    return LlmctlError.exit_code


def _unforeseen(error: Exception) -> LlmctlError:
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    hint = "this is a defect of llmctl: run again with --debug and report what it prints"
    return LlmctlError(text, hint=hint)


def _trace(console: Console) -> None:
    if console.is_debug:
        traceback.print_exc(file=sys.stderr)
