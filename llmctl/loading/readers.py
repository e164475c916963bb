"""Who reads the weights of a quantised checkpoint: its configuration or an older tool's file says it, or the
user."""

from collections.abc import Mapping
from typing import Any

from llmctl.core.errors import BadFileError, UsageError
from llmctl.loading.checkpoint import Checkpoint
from llmctl.loading.facts.quantisation import quantisation_of, settings_of
from llmctl.loading.header import read_header
from llmctl.quant.formats.base import Reader
from llmctl.quant.formats.table import open_reader


def reader_of(checkpoint: Checkpoint, overrides: Mapping[str, Any]) -> Reader | None:
    """The reader of a quantised checkpoint; None for a dense one, and for GGUF, which transformers reads.

    `overrides` are the user's own words on how it is quantised. Raises `BadFileError` for weights that are
    packed in a way that nothing explains, and all that `open_reader` raises.
    """
    if checkpoint.gguf is not None:
        return None
    told = settings_of(checkpoint.config, checkpoint.folder)
    if told is not None and not isinstance(told, Mapping):
        raise BadFileError(f"{checkpoint.name}: the quantization_config of its config.json is not an object")
    if told is None and "quant_method" not in overrides:
        _refuse_unexplained(checkpoint)
        if overrides:
            raise UsageError(
                f"--quant-config {next(iter(overrides))}: {checkpoint.name} is not quantised",
                hint="leave it out; --load-8bit and --load-4bit quantise while loading",
            )
        return None
    names = [name for file in checkpoint.weight_files for name in read_header(file)]
    words = dict(overrides)
    method = words.pop("quant_method", None)
    return open_reader({**(told or {}), **({"quant_method": method} if method else {})}, names, words)


def _refuse_unexplained(checkpoint: Checkpoint) -> None:
    packed = quantisation_of(None, checkpoint.bytes_by_dtype)
    if packed is not None:
        raise BadFileError(
            f"{checkpoint.name} is quantised ({packed.method})",
            hint="say how, as in --quant-config quant_method=gptq --quant-config bits=4, "
            "or take the model's 16-bit checkpoint",
        )
