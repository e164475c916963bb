"""The families that a command knows, with the flag that brings more of them."""

import os
from pathlib import Path
from typing import Annotated

import typer

from llmctl.adapters.registry import USER_FOLDER, Registry
from llmctl.adapters.spec import KINDS
from llmctl.core.errors import UsageError
from llmctl.core.places import Places

AdapterFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter-file",
        metavar="FILE",
        help="Families of your own: rows (.toml) or classes (.py, which is run); repeatable.",
        show_default=False,
    ),
]


def registry(adapter_files: list[str] | None) -> Registry:
    """All families, the user's and those of `adapter_files` too; raises what `Registry.load` does."""
    user_folder = Places.from_environ(os.environ).config / USER_FOLDER
    return Registry.load(user_folder, [Path(file) for file in adapter_files or []])


def check_kind(kind: str | None) -> None:
    """Raise `UsageError` for what is no kind of family."""
    if kind is not None and kind not in KINDS:
        raise UsageError(f"--kind must be one of {', '.join(KINDS)}, not {kind!r}")
