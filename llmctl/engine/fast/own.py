"""Prepares a model that the engine has for itself: what follows cannot be saved or trained any more.

The code of the model is not touched; its layers, norms and gates get faster ones in their places.
"""

import logging
from typing import Any

from torch import nn

from llmctl.engine.fast import gates, norms
from llmctl.loading import devices, memory
from llmctl.quant import pack

log = logging.getLogger(__name__)

_SPARE_SHARE = 0.25
"""Of the memory that is free beside the model, for a second copy of its table of tokens."""


def quicken(model: Any) -> None:
    """Make a loaded model on the CPU as fast as it gets, in place; other devices are left alone."""
    is_module = isinstance(model, nn.Module)
    if not is_module or model.device.type != "cpu":
        return
    free = next((each.free_bytes for each in devices.available() if each.kind == "cpu"), 0)
    with memory.frugal():
        packed = pack.pack(model, spare_bytes=int(free * _SPARE_SHARE))
    num_norms, num_gates = norms.quicken(model), gates.quicken(model)
    log.info(
        "%d dense layers in the order of the CPU's kernels, %d norms and %d gates in one pass",
        packed.num_layers,
        num_norms,
        num_gates,
    )
    if packed.head:
        log.info("%s", packed.head)
