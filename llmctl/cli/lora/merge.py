"""`llmctl lora merge`: a base and an adapter as one checkpoint."""

from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.cli.artifact_flags import DryRun, MaxShardSize, Out, Overwrite, shard_bytes
from llmctl.cli.console import Console
from llmctl.cli.logs.display import harmless
from llmctl.cli.options import Json, Revision, console_of, settings_of
from llmctl.core.places import expanded
from llmctl.core.sizes import shown

if TYPE_CHECKING:
    from llmctl.artifacts.lora.merge import MergeResult


def merge(
    ctx: typer.Context,
    adapter: Annotated[
        str,
        typer.Option(
            "--adapter",
            metavar="ADAPTER",
            help="The adapter: a folder that peft saved, or a hub id.",
            show_default=False,
        ),
    ],
    out: Out,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Its base: a folder, `demo`, or a hub id; left out, the one that the adapter names.",
            show_default=False,
        ),
    ] = None,
    max_shard_size: MaxShardSize = "2GB",
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    revision: Revision = None,
    is_json: Json = False,
) -> None:
    """Merge a LoRA adapter into its base: a checkpoint that needs no adapter any more.

    Each tensor is read, changed and written by itself, in the types of the base. An interrupted run goes on
    where it stopped. `llmctl chat ADAPTER` does the same in memory.
    """
    from llmctl.artifacts.lora.merge import MergeRequest
    from llmctl.artifacts.lora.merge import merge as run

    console = console_of(ctx)
    settings_of(ctx)
    request = MergeRequest(
        adapter=adapter,
        base=base,
        out=expanded(out),
        revision=revision,
        overwrite=overwrite,
        is_dry_run=dry_run,
        max_shard_bytes=shard_bytes(max_shard_size),
    )
    with console.progress() as progress:
        result = run(request, progress)
    if is_json:
        console.json(result.as_dict())
    else:
        _tell(console, result)


def _tell(console: Console, result: "MergeResult") -> None:
    for notice in result.notices:
        console.note(harmless(notice))
    changed = len(result.changed) + len(result.added)
    done = "would be changed" if result.is_dry_run else "changed"
    console.line(
        harmless(f"{changed} of {result.num_tensors} tensors of {result.base} {done} by {result.adapter}")
    )
    if result.added:
        console.line(harmless(f"new: {', '.join(result.added)}"))
    for key, value in result.config_changes.items():
        console.line(harmless(f"config.json: {key} is {value}"))
    done = "would be written to" if result.is_dry_run else "written to"
    along = f"with {', '.join(result.carried) or 'no other files'}"
    console.line(harmless(f"{shown(result.num_bytes)} {done} {result.out}, {along}"))
