"""`llmctl compress`: a checkpoint in 8 or 4 bits, and what that cost."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.cli.artifact_flags import DryRun, MaxShardSize, Out, Overwrite, shard_bytes
from llmctl.cli.console import Console
from llmctl.cli.logs.display import harmless
from llmctl.cli.options import Json, Revision, console_of, settings_of
from llmctl.core.places import expanded

if TYPE_CHECKING:
    from llmctl.artifacts.compress.request import Compressed


def compress(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, `demo`, or a hub id.")],
    method: Annotated[
        str,
        typer.Option(
            metavar="int8|int4|fp8|nf4|gptq|awq",
            help="How the weights are stored; gptq and awq need the package gptqmodel.",
            show_default=False,
        ),
    ],
    out: Out,
    group_size: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            help="Weights that share a scale: 32, 64 or 128; left out, the one that divides most rows.",
            show_default=False,
        ),
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Leave layers alone whose name this regular expression finds; repeatable.",
            show_default=False,
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Text like what the model will meet: int4 rounds by it, which takes a while.",
            show_default=False,
        ),
    ] = None,
    evaluation: Annotated[
        str | None,
        typer.Option(
            "--eval", metavar="FILE", help="Text to judge by; left out, llmctl's own.", show_default=False
        ),
    ] = None,
    no_eval: Annotated[bool, typer.Option("--no-eval", help="Do not judge.", show_default=False)] = False,
    max_shard_size: MaxShardSize = "2GB",
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    revision: Revision = None,
    is_json: Json = False,
) -> None:
    """Store a model's weights in 8 or 4 bits.

    The files are such as vLLM and transformers load too. Embeddings and the head stay as they are. Ends with
    a table of what was gained and lost, which the model card and llmctl_compress.json in the folder hold as
    well. An interrupted run goes on where it stopped.
    """
    from llmctl.artifacts.compress.request import CompressRequest
    from llmctl.artifacts.compress.run import compress as run

    console = console_of(ctx)
    settings_of(ctx)
    request = CompressRequest(
        model=model,
        target=expanded(out),
        method=method,
        group_size=group_size,
        skip=tuple(skip or ()),
        calibration=_path(calibration),
        evaluates=not no_eval,
        evaluation=_path(evaluation),
        max_shard_bytes=shard_bytes(max_shard_size),
        revision=revision,
        overwrite=overwrite,
        is_dry=dry_run,
    )
    with console.progress() as progress:
        result = run(request, progress)
    if is_json:
        console.json({**result.as_dict(), "dry_run": dry_run})
    else:
        _tell(console, result, is_dry=dry_run)


def _path(given: str | None) -> Path | None:
    return expanded(given) if given is not None else None


def _tell(console: Console, result: "Compressed", *, is_dry: bool) -> None:
    from llmctl.artifacts.compress.card import table

    console.table(["", "before", "after"], [list(row) for row in table(result)])
    done = "would be written to" if is_dry else "written to"
    console.line(
        harmless(f"{result.num_compressed} weights compressed, {len(result.dense)} modules left as they are")
    )
    console.line(harmless(f"{done} {result.target}, with {', '.join(result.carried) or 'no other files'}"))
