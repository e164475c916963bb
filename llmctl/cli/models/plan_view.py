"""A load plan as `models show --plan` tells it."""

from collections.abc import Iterator
from typing import Any

from llmctl.cli.models.sizes import shown
from llmctl.loading.planning.plan import LoadPlan
from llmctl.quant.methods import METHODS


def plan_facts(made: LoadPlan) -> dict[str, Any]:
    """The plan as JSON has it."""
    quant = made.quant
    return {
        "device": made.device.place,
        "device_name": made.device.name,
        "dtype": made.dtype,
        "quantisation": None
        if quant is None
        else {"layers": quant.body, "output": quant.head, "tokens": quant.embedding},
        "checkpoint_format": made.checkpoint_format,
        "device_map": made.device_map,
        "max_memory": None
        if made.max_memory is None
        else {str(key): size for key, size in made.max_memory.items()},
        "offload": made.offload,
        "attention": made.attention,
        "bytes_by_device": dict(made.bytes_by_device),
        "bytes": made.num_bytes,
        "reasons": list(made.reasons),
    }


def plan_rows(made: LoadPlan) -> Iterator[tuple[str, str]]:
    """The plan as people read it: titles and texts, the reasons last."""
    yield "device", f"{made.device.place} ({made.device.name})"
    yield "dtype", made.dtype
    if made.checkpoint_format is not None:
        yield "files", made.checkpoint_format
    quant = made.quant
    unpacked = f"decoded to {made.dtype}" if made.is_decoded else "as stored"
    for title, method in (
        ("layers", quant and quant.body),
        ("output layer", quant and quant.head),
        ("token table", quant and quant.embedding),
    ):
        yield title, f"{method}: {METHODS[method].title}" if method else unpacked
    if made.device_map is not None:
        yield "device map", str(made.device_map)
    for place, num_bytes in made.bytes_by_device.items():
        yield place, shown(num_bytes)
    yield "together", shown(made.num_bytes)
    yield "attention", made.attention
    for reason in made.reasons:
        yield "reason", reason
