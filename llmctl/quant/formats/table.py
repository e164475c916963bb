"""Which reader belongs to a checkpoint, by the method that its configuration names."""

import importlib
import logging
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import BadFileError

if TYPE_CHECKING:
    from llmctl.quant.formats.base import Reader

log = logging.getLogger(__name__)

READERS: Mapping[str, str] = {
    "gptq": "llmctl.quant.formats.gptq",
    "awq": "llmctl.quant.formats.awq",
    "fp8": "llmctl.quant.formats.fp8",
    "fbgemm_fp8": "llmctl.quant.formats.fp8",
    "bitsandbytes": "llmctl.quant.formats.bnb",
    "compressed-tensors": "llmctl.quant.formats.compressed_tensors",
    "mxfp4": "llmctl.quant.formats.mxfp4",
}
"""Method to module; each has `reader(config, tensors, overrides) -> Reader`."""


def open_reader(
    config: Mapping[str, Any], tensors: Collection[str], overrides: Mapping[str, Any] | None = None
) -> "Reader":
    """The reader for a checkpoint with this `quantization_config` and tensors of these names.

    `overrides` are the user's own words on keys of the config. Raises `BadFileError` for a method or a key
    that llmctl does not read, `UsageError` for an override that contradicts what the tensors are.
    """
    module = READERS[method_of(config)]
    reader: Reader = importlib.import_module(module).reader(config, tensors, overrides or {})
    log.info("the weights are read as %s", reader.title)
    return reader


def method_of(config: Mapping[str, Any]) -> str:
    """The key of `READERS` that a `quantization_config` means.

    Raises `BadFileError` for a method that llmctl does not read.
    """
    method = str(config.get("quant_method", "unknown")).replace("compressed_tensors", "compressed-tensors")
    if method not in READERS:
        known = ", ".join(sorted(READERS))
        raise BadFileError(
            f"the weights are quantised by {method!r}, which llmctl does not read (it reads {known})",
            hint="take another quantisation of this model, or its 16-bit checkpoint",
        )
    return method
