"""`llmctl bench`: how fast llmctl is on this machine."""

import math
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.bench.shapes import DEFAULT_SHAPE, SHAPES
from llmctl.bench.timing import LAYER_SHARE
from llmctl.cli.console import Console
from llmctl.cli.options import DeviceFlag, Json, console_of, settings_of
from llmctl.core.errors import UsageError
from llmctl.quant.methods import METHODS

if TYPE_CHECKING:
    from llmctl.bench.layers import Request, Timing

MAX_ROWS = 65536
MAX_SECONDS = 600.0
_DIGITS = 1
"""Of microseconds; a clock is not finer."""


def layers(
    ctx: typer.Context,
    shape: Annotated[
        str, typer.Option(metavar="|".join(SHAPES), help="The model whose block is measured.")
    ] = DEFAULT_SHAPE,
    rows: Annotated[
        str, typer.Option(metavar="N,N", help="How many rows at a time: 1 is a token, 512 a prompt.")
    ] = "1,4,16,64,512",
    method: Annotated[
        str, typer.Option(metavar="NAME,NAME", help=f"Quantised kernels: {', '.join(METHODS)}.")
    ] = "int8,int4,nf4",
    device: DeviceFlag = None,
    seconds: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="Time for a block at one number of rows; more is steadier."),
    ] = 2.0,
    is_json: Json = False,
) -> None:
    """Time quantised layers against dense ones, over one block of a model."""
    console = console_of(ctx)
    num_rows, methods = _rows(rows), _methods(method)
    if shape not in SHAPES:
        raise UsageError(f"--shape must be one of {', '.join(SHAPES)}, not {shape!r}")
    if not 0 < seconds <= MAX_SECONDS:
        raise UsageError(f"--seconds must be above 0 and at most {MAX_SECONDS:.0f}, not {seconds}")
    asked = settings_of(ctx).with_flags({"device": device}).device
    with console.progress() as progress:
        progress.stage("import torch")
        from llmctl.bench.layers import Request, measure
        from llmctl.loading import devices
        from llmctl.loading.planning.plan import choose_device
        from llmctl.quant import cuda

        cuda.untried_wanted(os.environ)
        request = Request(
            shape=SHAPES[shape],
            rows=num_rows,
            methods=methods,
            device=choose_device(asked, devices.available())[0],
            seconds=seconds,
        )
    if not is_json:
        console.note(_announced(request))
    with console.progress() as progress:
        timings = measure(request, progress)
    if is_json:
        console.json({"rows": [_as_json(each) for each in timings]})
    else:
        _tell(console, request, timings)


def _rows(text: str) -> tuple[int, ...]:
    """The numbers of "1,4,16" without repetitions. Raises `UsageError`."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and 1 <= int(word) <= MAX_ROWS for word in words):
        raise UsageError(f"--rows must be numbers from 1 to {MAX_ROWS} with commas between, not {text!r}")
    return tuple(dict.fromkeys(map(int, words)))


def _methods(text: str) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    if unknown := [word for word in words if word not in METHODS]:
        raise UsageError(f"--method must be of {', '.join(METHODS)} with commas between, not {unknown[0]!r}")
    return words


def _announced(request: "Request") -> str:
    """What is coming, and how long it takes where calls are quick."""
    least = len(request.rows) * request.seconds * (1 + len(request.shape.layers) * LAYER_SHARE)
    return (
        f"measuring {', '.join(request.methods)} against dense layers (rows "
        f"{', '.join(map(str, request.rows))}) takes at least {math.ceil(least)} s; "
        "--rows, --method and --seconds make it less"
    )


def _as_json(timing: "Timing") -> dict[str, str | int | float]:
    found = asdict(timing)
    return {key: round(value, _DIGITS) if isinstance(value, float) else value for key, value in found.items()}


def _tell(console: Console, request: "Request", timings: "list[Timing]") -> None:
    import torch

    shape, device = request.shape, request.device
    dtype = str(request.dtype).removeprefix("torch.")
    threads = f", {torch.get_num_threads()} threads" if device.kind == "cpu" else ""
    console.line(f"one block of {shape.source}: {shape.num_weights / 1e6:.1f} million weights in 7 layers")
    console.line(f"{device.kind} ({device.name}{threads}), {dtype} against quantised weights")
    if not device.has_bf16:
        console.line(
            f"no native bfloat16 here: a 16-bit checkpoint would run in {dtype}, so that is measured"
        )
    console.line()
    console.table(_heading(request, dtype), _cells(request, timings))
    console.note(
        "us: microseconds, the best of many turns; times: how many times as fast as dense; other work on "
        "this machine shifts them, so run it twice"
    )


def _heading(request: "Request", dtype: str) -> list[str]:
    ours = [word for method in request.methods for word in (f"{method} us", "times")]
    return ["layer", "rows", f"{dtype} us", *ours]


def _cells(request: "Request", timings: "list[Timing]") -> list[list[str]]:
    by_place = {(each.layer, each.rows, each.method): each for each in timings}
    cells = []
    for layer, num_rows in dict.fromkeys((each.layer, each.rows) for each in timings):
        found = [by_place[layer, num_rows, method] for method in request.methods]
        row = [layer, str(num_rows), f"{found[0].bf16_us:.0f}"]
        for each in found:
            row += [f"{each.ours_us:.0f}", f"{each.bf16_us / each.ours_us:.2f}"]
        cells.append(row)
    return cells
