"""`llmctl delta show`: what a delta is."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.cli.delta.flags import DELTA_HELP
from llmctl.cli.logs.display import harmless, write_json
from llmctl.cli.options import Json, Revision, console_of, settings_of
from llmctl.core.sizes import shown

if TYPE_CHECKING:
    from llmctl.artifacts.delta.show import Shown


def show(
    ctx: typer.Context,
    delta: Annotated[str, typer.Argument(metavar="DELTA", help=DELTA_HELP)],
    revision: Revision = None,
    is_json: Json = False,
) -> None:
    """Show what a delta is: its base and target, what differs, how large it is."""
    from llmctl.artifacts.delta.find import find
    from llmctl.artifacts.delta.show import show as show_delta

    console = console_of(ctx)
    settings_of(ctx)
    with console.progress() as progress:
        told = show_delta(find(delta, revision=revision, progress=progress))
    if is_json:
        write_json(console, told.as_dict())
        return
    for title, text in _rows(told):
        console.line(harmless(f"{title:<10}{text}"))


def _rows(told: "Shown") -> Iterator[tuple[str, str]]:
    yield "delta", told.name
    how = "exact, bit for bit" if told.kind == "exact" else "add, float16 differences as FastChat has them"
    yield "format", how if told.is_told else f"{how}, by its looks: it does not say so itself"
    if told.base is not None:
        commit = f" at {told.base_commit}" if told.base_commit else ""
        yield "base", f"{told.base}{commit}, content {told.base_digest}"
    if told.target is not None:
        yield "target", told.target
    fates = ", ".join(f"{count} {fate}" for fate, count in told.tensors.items())
    yield "tensors", fates + (f", {len(told.removed)} of the base left out" if told.removed else "")
    share = f" ({told.delta_bytes / told.target_bytes:.1%})" if told.target_bytes else ""
    yield "size", f"{shown(told.delta_bytes)} for {shown(told.target_bytes)} of weights{share}"
    if told.largest:
        yield "largest", ", ".join(f"{name} {shown(size)}" for name, size in told.largest.items())
    yield "files", ", ".join(told.files) or "none"
