"""The flags that the commands of `llmctl delta` share, and those of FastChat that are called otherwise."""

from collections.abc import Mapping
from typing import Annotated

import typer

Base = Annotated[str, typer.Option("--base", metavar="MODEL", help="The model that it starts from.")]
BaseRevision = Annotated[
    str | None,
    typer.Option(
        "--base-revision",
        metavar="REVISION",
        help="Branch, tag or commit of the base on the hub.",
        show_default=False,
    ),
]
TargetRevision = Annotated[
    str | None,
    typer.Option(
        "--revision",
        metavar="REVISION",
        help="Branch, tag or commit of the target on the hub.",
        show_default=False,
    ),
]
DELTA_HELP = "A folder that `llmctl delta make` wrote, or a hub id."

_OTHER_NAMES: Mapping[str, str] = {
    "--base-model-path": "it is called --base here",
    "--target-model-path": "it is called {target} here",
    "--delta-path": "it is called {delta} here",
}
OF_MAKE: Mapping[str, str] = {
    name: told.format(target="--target", delta="--out") for name, told in _OTHER_NAMES.items()
}
OF_APPLY: Mapping[str, str] = {
    **{name: told.format(target="--out", delta="--delta") for name, told in _OTHER_NAMES.items()},
    "--low-cpu-mem": "leave it out: it never takes much memory",
}
