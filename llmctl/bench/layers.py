"""Times quantised kernels against torch's dense layers over one block of a model, with random weights.

The seven layers are called as a model calls them: q, k and v on one tensor, then o, then gate and up on one
tensor, then down. Needs torch; `shapes` and `timing` do not.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import cycle

import torch
from torch import Tensor
from torch.nn.functional import linear

from llmctl.bench.shapes import Shape
from llmctl.bench.timing import LAYER_SHARE, best_times
from llmctl.core.errors import DoesNotFitError
from llmctl.core.progress import Progress
from llmctl.core.sizes import shown
from llmctl.loading.planning.hardware import Device
from llmctl.quant.activations import Memo
from llmctl.quant.kernels import build
from llmctl.quant.methods import METHODS
from llmctl.quant.rounding import round_to

BLOCK = "block"
"""The seven layers together, as a layer's name."""
BASELINE = "dense"
NUM_PASSES = 3
_PACKED_COPIES = 2
"""Kernels may keep a weight in a second order for many rows."""
_WEIGHT_SCALE = 0.02
_SAME_INPUT: Mapping[str, str] = {"k": "q", "v": "q", "up": "gate"}
"""Layers that a model calls on the very tensor of another."""

Linear = Callable[[Tensor], Tensor]
"""From [rows, columns in] to [rows, columns out]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is measured, and for how long."""

    shape: Shape
    rows: tuple[int, ...]
    methods: tuple[str, ...]
    """Keys of `quant.methods.METHODS`."""
    device: Device
    seconds: float = 2.0
    """For all methods of the block at one number of rows; a single layer takes a sixth of it."""

    @property
    def dtype(self) -> torch.dtype:
        """What a 16-bit checkpoint would run in here."""
        return torch.bfloat16 if self.device.has_bf16 else torch.float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One method on one layer."""

    method: str
    layer: str
    """A key of `Shape.layers`, or `BLOCK`."""
    rows: int
    device: str
    ours_us: float
    bf16_us: float
    """Of the dense layer, in `Request.dtype`."""


def measure(request: Request, progress: Progress) -> list[Timing]:
    """Time every layer and the block at each number of rows, all methods and the dense layer taking turns.

    All of it is done several times over, so that noise that lasts for seconds spoils no figure for good.
    Raises `DoesNotFitError` before anything is made.
    """
    _check_memory(request)
    best: dict[tuple[int, str], dict[str, float]] = {}
    with torch.no_grad():
        blocks = _blocks(request, progress)
        for turn in range(NUM_PASSES):
            for num_rows in request.rows:
                progress.stage(f"measure {num_rows} rows, pass {turn + 1} of {NUM_PASSES}")
                for layer, calls in _calls(request, blocks, num_rows):
                    found, before = _times(request, layer, calls), best.get((num_rows, layer), {})
                    best[num_rows, layer] = {
                        name: min(each, before.get(name, each)) for name, each in found.items()
                    }
    return [
        Timing(
            method=method,
            layer=layer,
            rows=num_rows,
            device=request.device.kind,
            ours_us=times[method],
            bf16_us=times[BASELINE],
        )
        for (num_rows, layer), times in best.items()
        for method in request.methods
    ]


Calls = Mapping[str, Callable[[], object]]
"""What takes turns, by `BASELINE` and the methods."""


def _calls(
    request: Request, blocks: Mapping[str, Mapping[str, Linear]], num_rows: int
) -> Iterator[tuple[str, Calls]]:
    """The layers one by one, then the block."""
    inputs = _inputs(request, num_rows)
    for layer in request.shape.layers:
        yield layer, {name: _alone(block[layer], inputs[layer]) for name, block in blocks.items()}
    yield BLOCK, {name: partial(_run, block, inputs) for name, block in blocks.items()}


def _times(request: Request, layer: str, calls: Calls) -> dict[str, float]:
    seconds = request.seconds / NUM_PASSES * (1 if layer == BLOCK else LAYER_SHARE)
    wait = torch.accelerator.synchronize if request.device.kind != "cpu" else _no_wait
    return best_times(calls, seconds=seconds, wait=wait)


def _no_wait() -> None:
    """A CPU has done it when the call returns."""


def _blocks(request: Request, progress: Progress) -> dict[str, dict[str, Linear]]:
    """The layers of the dense block and of each method's, by `BASELINE` and the method, then by the layer."""
    weights = _weights(request)
    blocks: dict[str, dict[str, Linear]] = {
        BASELINE: {layer: partial(linear, weight=weight) for layer, weight in weights.items()}
    }
    for method in request.methods:
        progress.stage(f"quantise to {method}")
        memo = Memo()
        blocks[method] = {
            layer: partial(build(round_to(weight, method), dtype=request.dtype, memo=memo), bias=None)
            for layer, weight in weights.items()
        }
    return blocks


def _weights(request: Request) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        layer: (torch.randn(outputs, columns, generator=generator) * _WEIGHT_SCALE)
        .to(torch.bfloat16)
        .to(request.device.kind, request.dtype)
        for layer, (columns, outputs) in request.shape.layers.items()
    }


def _inputs(request: Request, num_rows: int) -> dict[str, Tensor]:
    """What each layer is given; one tensor where a model gives the same to several."""
    generator = torch.Generator().manual_seed(num_rows)
    shape = request.shape

    def rows_of(layer: str) -> Tensor:
        made = torch.randn(num_rows, shape.layers[layer][0], generator=generator)
        return made.to(request.device.kind, request.dtype)

    made = {layer: rows_of(layer) for layer in ("q", "o", "gate", "down")}
    return {layer: made[_SAME_INPUT.get(layer, layer)] for layer in shape.layers}


def _alone(call: Linear, given: Tensor) -> Callable[[], object]:
    """A layer called by itself: never twice on the same tensor, for a kernel remembers the last one."""
    turns = cycle((given, given.clone()))
    return lambda: call(next(turns))


def _run(block: Mapping[str, Linear], inputs: Mapping[str, Tensor]) -> None:
    for layer, call in block.items():
        call(inputs[layer])


def num_bytes(request: Request) -> int:
    """Memory that a measurement takes, about."""
    shape = request.shape
    packed = sum(METHODS[method].bits_per_weight for method in request.methods) / 8 * _PACKED_COPIES
    largest = max(columns * outputs for columns, outputs in shape.layers.values())
    widths = sum(columns + outputs for columns, outputs in shape.layers.values())
    # One layer in float32, rounded and packed; inputs twice, results, and what kernels make of them.
    temporary = largest * 12 + max(request.rows) * widths * 16
    return int(shape.num_weights * (request.dtype.itemsize + packed)) + temporary


def _check_memory(request: Request) -> None:
    needed, free = num_bytes(request), request.device.free_bytes
    if needed > free:
        raise DoesNotFitError(
            f"one block of {request.shape.source} with {max(request.rows)} rows takes about "
            f"{shown(needed)}, {request.device.kind} has {shown(free)} free",
            hint="take a smaller --shape, fewer --rows or one --method",
        )
