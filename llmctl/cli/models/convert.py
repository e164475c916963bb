"""`llmctl models convert`: the same weights in other numbers or other files."""

from typing import Annotated

import typer

from llmctl.cli.artifact_flags import DryRun, MaxShardSize, Out, Overwrite, shard_bytes
from llmctl.cli.logs.display import harmless
from llmctl.cli.options import Json, Revision, console_of, settings_of
from llmctl.core.places import expanded
from llmctl.core.sizes import shown


def convert(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, `demo`, or a hub id.")],
    out: Out,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="float32|bfloat16|float16",
            help="Numbers of the result; left out, every bit stays.",
            show_default=False,
        ),
    ] = None,
    max_shard_size: MaxShardSize = "2GB",
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    revision: Revision = None,
    is_json: Json = False,
) -> None:
    """Write a model's weights in other numbers, in shards of another size, or as safetensors.

    Pickle files (*.bin) are read without running what they say. Everything that is no weight comes along.
    """
    from llmctl.artifacts.convert import ConvertRequest
    from llmctl.artifacts.convert import convert as run

    console = console_of(ctx)
    settings_of(ctx)
    request = ConvertRequest(
        model=model,
        target=expanded(out),
        dtype=dtype,
        max_shard_bytes=shard_bytes(max_shard_size),
        revision=revision,
        overwrite=overwrite,
        is_dry=dry_run,
    )
    with console.progress() as progress:
        result = run(request, progress)
    if is_json:
        console.json({**result.as_dict(), "dry_run": dry_run})
        return
    for name, kept in result.joined.items():
        console.note(f"{name} is {kept}: stored once")
    files = "1 file" if result.num_files == 1 else f"{result.num_files} files"
    sizes = f"{shown(result.bytes_before)} before, {shown(result.bytes_after)} after, in {files}"
    done = "would be written to" if dry_run else "written to"
    console.line(harmless(f"{result.name}: {sizes}"))
    console.line(harmless(f"{done} {result.target}, with {', '.join(result.carried) or 'no other files'}"))
