"""A load plan as `models show --plan` tells it."""

from collections.abc import Iterator
from typing import Any

from llmctl.core.sizes import shown
from llmctl.loading.planning.plan import LoadPlan
from llmctl.quant.methods import Scheme


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
        "weight_bytes": made.weight_bytes,
        "overhead_bytes": made.num_bytes - made.weight_bytes,
        "bytes": made.num_bytes,
        "free_bytes": made.free_bytes,
        "reasons": list(made.reasons),
    }


def plan_rows(made: LoadPlan) -> Iterator[tuple[str, str]]:
    """The plan as people read it: titles and texts. The reasons are not among them."""
    places = list(made.bytes_by_device)
    yield "device", f"{', '.join(places)} ({made.device.name})"
    yield "numbers", made.dtype
    if made.checkpoint_format is not None:
        yield "files", f"{made.checkpoint_format}, {'decoded' if made.is_decoded else 'kept packed'}"
    if made.quant is not None:
        yield "packed", ", ".join(_packed(made.quant))
    yield "weights", shown(made.weight_bytes)
    overhead = shown(made.num_bytes - made.weight_bytes)
    yield "overhead", f"{overhead} for activations, a short context and the libraries"
    yield "together", f"{made.size}; a long conversation's cache comes on top"
    if len(places) > 1:
        yield from ((place, shown(num_bytes)) for place, num_bytes in made.bytes_by_device.items())
    if made.device_map is not None:
        yield "device map", str(made.device_map)
    yield "attention", made.attention


def _packed(quant: Scheme) -> Iterator[str]:
    parts = (("layers", quant.body), ("output layer", quant.head), ("token table", quant.embedding))
    return (f"{title} {method or 'dense'}" for title, method in parts)
