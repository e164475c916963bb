"""The flags that every part of a fleet has: where it listens, and the token that parts show each other."""

import os
from typing import Annotated

import typer

VARIABLE = "LLMCTL_CLUSTER_TOKEN_FILE"
"""Names the file of the token, where no flag does."""
_MAX_PORT = 65_535

Host = Annotated[
    str,
    typer.Option(
        "--host",
        metavar="ADDRESS",
        help="Where to listen; 0.0.0.0 is everywhere, and asks for a key or token.",
    ),
]
Port = Annotated[
    int, typer.Option("--port", metavar="NUMBER", min=0, max=_MAX_PORT, help="0 is one that is free.")
]
TokenFile = Annotated[
    str | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help=f"File with the token of the fleet; else {VARIABLE} names it.",
        show_default=False,
    ),
]


def cluster_token(file: str | None) -> str | None:
    """The token in `file`, or in the file that the environment names; None where neither is given.

    Raises what `key_files.read_token` raises.
    """
    from llmctl.services.http.key_files import read_token

    named = file or os.environ.get(VARIABLE)
    return read_token(named) if named else None
