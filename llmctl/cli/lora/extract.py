"""`llmctl lora extract`: the difference of two checkpoints as an adapter."""

import statistics
from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.cli.artifact_flags import DryRun, Out, Overwrite
from llmctl.cli.console import Console
from llmctl.cli.logs.display import harmless
from llmctl.cli.options import Json, Revision, console_of, settings_of
from llmctl.core.places import expanded
from llmctl.core.sizes import shown

if TYPE_CHECKING:
    from llmctl.artifacts.lora.extract import ExtractResult

_POOR = 0.5
"""A mean residual above it is told."""


def extract(
    ctx: typer.Context,
    base: Annotated[
        str,
        typer.Option(
            "--base",
            metavar="MODEL",
            help="What it was tuned from: a folder, `demo`, or a hub id.",
            show_default=False,
        ),
    ],
    target: Annotated[
        str,
        typer.Option(
            "--target",
            metavar="MODEL",
            help="The tuned model: a folder, `demo`, or a hub id.",
            show_default=False,
        ),
    ],
    out: Out,
    rank: Annotated[int, typer.Option(metavar="NUMBER", min=1, help="Rank of the adapter's matrices.")] = 16,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    revision: Revision = None,
    is_json: Json = False,
) -> None:
    """Make a LoRA adapter of the difference of two models, as peft and vLLM read it.

    The residual of a layer is the share of its difference that the rank has no room for: 0 is none, 1 all of
    it. Norms, biases and tables that have grown are saved whole; what an adapter cannot hold is named.
    """
    from llmctl.artifacts.lora.extract import ExtractRequest
    from llmctl.artifacts.lora.extract import extract as run

    console = console_of(ctx)
    settings_of(ctx)
    request = ExtractRequest(
        base=base,
        target=target,
        out=expanded(out),
        rank=rank,
        revision=revision,
        overwrite=overwrite,
        is_dry_run=dry_run,
    )
    with console.progress() as progress:
        result = run(request, progress)
    if is_json:
        console.json(result.as_dict())
    else:
        _tell(console, result)


def _tell(console: Console, result: "ExtractResult") -> None:
    for notice in result.notices:
        console.note(harmless(notice))
    if result.residuals:
        rows = [[harmless(module), f"{value:.3f}"] for module, value in result.residuals.items()]
        console.table(["layer", "residual"], rows)
        mean = statistics.fmean(result.residuals.values())
        if mean > _POOR:
            console.note(
                f"the mean residual is {mean:.2f}: the adapter holds little of the difference; "
                "a higher --rank holds more"
            )
    if result.saved:
        console.line(harmless(f"saved whole: {', '.join(result.saved)}"))
    if result.left_out:
        console.note(harmless(f"left out, an adapter cannot hold them: {', '.join(result.left_out)}"))
    done = "would be written to" if result.is_dry_run else "written to"
    matrices = f"rank {result.rank} for {len(result.low_rank)} layers"
    took = "" if result.is_dry_run else f" in {result.seconds:.1f} s"
    console.line(harmless(f"{matrices}, {shown(result.num_bytes)} {done} {result.out}{took}"))
