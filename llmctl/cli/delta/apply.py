"""`llmctl delta apply`: base and delta make the target, as a folder."""

from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.cli.artifact_flags import DryRun, Out, Overwrite, ShardSizeOrNone, shard_bytes
from llmctl.cli.delta.flags import DELTA_HELP, Base, BaseRevision
from llmctl.cli.logs.display import harmless, write_json
from llmctl.cli.options import Json, Revision, console_of, settings_of
from llmctl.core.places import expanded
from llmctl.core.sizes import shown

if TYPE_CHECKING:
    from llmctl.artifacts.delta.apply import Result


def apply(
    ctx: typer.Context,
    base: Base,
    delta: Annotated[str, typer.Option("--delta", metavar="DELTA", help=DELTA_HELP)],
    out: Out,
    max_shard_size: ShardSizeOrNone = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    base_revision: BaseRevision = None,
    revision: Revision = None,
    is_json: Json = False,
) -> None:
    """Write the model that a delta makes of its base.

    Every tensor is checked: another base or a damaged delta is refused. Published deltas in FastChat's way,
    such as Vicuna's, are known by themselves. An interrupted run goes on where it stopped.
    """
    from llmctl.artifacts.delta.apply import Wish
    from llmctl.artifacts.delta.apply import apply as apply_exact
    from llmctl.artifacts.delta.apply_add import apply_add
    from llmctl.artifacts.delta.find import find
    from llmctl.artifacts.delta.opened import Delta
    from llmctl.artifacts.stream.source import Source

    console = console_of(ctx)
    settings_of(ctx)
    num_bytes = shard_bytes(max_shard_size) if max_shard_size is not None else None
    wish = Wish(out=expanded(out), max_shard_bytes=num_bytes, overwrite=overwrite)
    with console.progress() as progress:
        found = find(delta, revision=revision, progress=progress)
        source = Source.open(base, revision=base_revision, progress=progress, takes_pickles=True)
        if found.kind == "add":
            result = apply_add(source, found, wish, progress, is_dry=dry_run)
        else:
            opened = Delta.open(found.folder, name=found.name)
            result = apply_exact(source, opened, wish, progress, is_dry=dry_run)
    if is_json:
        write_json(console, {**result.as_dict(), "dry_run": dry_run})
        return
    for notice in result.notices:
        console.note(notice)
    done = "would be written to" if result.seconds is None else "written to"
    unread = " (if base and delta hold what they say: their numbers were not read)" if dry_run else ""
    console.line(harmless(f"{result.base} with {result.delta}: {_told(result)}{unread}"))
    console.line(harmless(f"{done} {result.out}, with {', '.join(result.carried) or 'no other files'}"))


def _told(result: "Result") -> str:
    files = "1 file" if len(result.files) == 1 else f"{len(result.files)} files"
    exactness = "bit for bit" if result.kind == "exact" else "in float16"
    return f"{result.num_tensors} tensors, {shown(result.num_bytes)} in {files}, {exactness}"
