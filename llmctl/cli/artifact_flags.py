"""The flags of all commands that write a folder: where to, over what, in which sizes, or only to see."""

from typing import Annotated

import typer

from llmctl.core.sizes import parse_size

_WRITING = "Writing"

Out = Annotated[
    str,
    typer.Option("--out", metavar="DIR", help="The folder to write.", rich_help_panel=_WRITING),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace the folder, once the new one is whole.",
        rich_help_panel=_WRITING,
        show_default=False,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Only say what would be done.",
        rich_help_panel=_WRITING,
        show_default=False,
    ),
]
MaxShardSize = Annotated[
    str,
    typer.Option(
        "--max-shard-size", metavar="SIZE", help="Most weights in one file.", rich_help_panel=_WRITING
    ),
]
ShardSizeOrNone = Annotated[
    str | None,
    typer.Option(
        "--max-shard-size",
        metavar="SIZE",
        help="Most weights in one file; left out, the files are as they were.",
        rich_help_panel=_WRITING,
        show_default=False,
    ),
]


def shard_bytes(text: str) -> int:
    """Bytes of a --max-shard-size. Raises `UsageError`."""
    return parse_size(text, flag="--max-shard-size")
