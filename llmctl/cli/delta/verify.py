"""`llmctl delta verify`: whether a delta, its base and its target are what they were."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.cli.delta.flags import DELTA_HELP, BaseRevision
from llmctl.cli.logs.display import harmless, write_json
from llmctl.cli.options import Json, Revision, console_of, settings_of
from llmctl.core.errors import BadFileError

if TYPE_CHECKING:
    from llmctl.artifacts.delta.verify import Verified

_NUM_SHOWN = 3


def verify(
    ctx: typer.Context,
    delta: Annotated[str, typer.Argument(metavar="DELTA", help=DELTA_HELP)],
    base: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Is this the base that it was made from?", show_default=False),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Is this the target, bit for bit?", show_default=False),
    ] = None,
    base_revision: BaseRevision = None,
    revision: Revision = None,
    is_json: Json = False,
) -> None:
    """Read all of a delta, and of its base and target where given, and say what is not as it was.

    Writes nothing. Fails where something is wrong.
    """
    from llmctl.artifacts.delta.find import find
    from llmctl.artifacts.delta.verify import verify as verify_delta
    from llmctl.artifacts.stream.source import Source

    console = console_of(ctx)
    settings_of(ctx)
    with console.progress() as progress:
        found = find(delta, revision=revision, progress=progress)
        sources = [
            None if name is None else Source.open(name, revision=at, progress=progress, takes_pickles=True)
            for name, at in ((base, base_revision), (target, None))
        ]
        told = verify_delta(found, sources[0], sources[1], progress)
    if is_json:
        write_json(console, told.as_dict())
    if not told.is_right:
        raise BadFileError("; ".join(_wrong(told)))
    if not is_json:
        looked_at = [
            delta,
            *(f"{what} {name}" for what, name in (("base", base), ("target", target)) if name),
        ]
        console.line(harmless(f"{', '.join(looked_at)}: as it was, every byte"))


def _wrong(told: "Verified") -> Iterator[str]:
    if told.damaged:
        yield f"the delta {told.name} is damaged: {_listed(told.damaged)}"
    if told.other_files:
        yield f"the delta {told.name} came with other files: {', '.join(told.other_files)}"
    for what, names in (("base", told.other_base), ("target", told.other_target)):
        if names:
            yield f"this is not the {what} of the delta {told.name}: {_listed(names)}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NUM_SHOWN} more" if len(names) > _NUM_SHOWN else ""
    what = "1 tensor differs" if len(names) == 1 else f"{len(names)} tensors differ"
    return f"{what}: {', '.join(names[:_NUM_SHOWN])}{more}"
