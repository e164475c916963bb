"""What a checkpoint is, told from its configuration and the headers of its weights alone. No torch."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.loading import contents
from llmctl.loading.checkpoint import Checkpoint, open_folder
from llmctl.loading.context import context_length
from llmctl.loading.header import TensorEntry, read_header
from llmctl.loading.licence import licence_of
from llmctl.loading.shape import Shape, shape_of, text_config

# Beside the packed weights: how to unpack them, which is no parameter of the model.
_UNPACKING = re.compile(
    r"(?:^|[._])(?:qzeros|g_idx|scales?|scale_inv|zero_points?|absmax|quant_map|quant_state\..*|SCB|"
    r"weight_format|weight_shape|input_scale|k_scale|v_scale)$"
)
_PACKED = re.compile(r"(?:qweight|weight_packed)$")
# Tables of tokens and positions stay as they are when a model is quantised, the output layer too.
_TABLES = re.compile(r"embed|lm_head|(?:^|\.)(?:wte|wpe|shared|output|embed_out)\.weight$|word_embeddings")
_PACKED_DTYPES = ("I8", "U8", "I32")
_PACKED_SHARE = 0.1
_INT32_BITS, _BYTE_BITS = 32, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantisation:
    """How the weights of a checkpoint are packed."""

    method: str
    """As its config calls it (gptq, awq, fp8, ...), or the types of the tensors where it says nothing."""
    bits: int | None
    """Of one weight, None when the config does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Facts of a model that is on this machine."""

    checkpoint: Checkpoint
    shape: Shape
    context_length: int
    """Tokens."""
    num_parameters: int
    """Packed weights unpacked."""
    num_matrix_parameters: int
    """Those among them that quantisation packs: matrices, not the tables of tokens."""
    quantisation: Quantisation | None
    licence: str | None

    @property
    def architecture(self) -> str | None:
        """The first class that the config names."""
        names = self.checkpoint.config.get("architectures")
        return str(names[0]) if isinstance(names, list) and names else None


def describe(folder: Path, *, name: str | None = None) -> Description:
    """Read the facts of a model folder, which is `name` to the user.

    Raises `BadFileError` for a folder that is no whole model, as `checkpoint.open_folder` does.
    """
    checkpoint = open_folder(folder, name=name)
    quantisation = _quantisation(checkpoint)
    counts = [
        (each, _num_parameters(each, entry, quantisation), len(entry.shape) > 1)
        for each, entry in _entries(checkpoint)
    ]
    tokenizer = contents.read_json(folder / "tokenizer_config.json", optional=True)
    limit = tokenizer.get("model_max_length")
    return Description(
        checkpoint=checkpoint,
        shape=shape_of(checkpoint.config),
        context_length=context_length(
            checkpoint.config, tokenizer_limit=limit if isinstance(limit, int) else None
        ),
        num_parameters=sum(count for _, count, _ in counts),
        num_matrix_parameters=sum(
            count for each, count, is_matrix in counts if is_matrix and not _TABLES.search(each)
        ),
        quantisation=quantisation,
        licence=licence_of(folder),
    )


def _entries(checkpoint: Checkpoint) -> Iterator[tuple[str, TensorEntry]]:
    for file in checkpoint.weight_files:
        yield from read_header(file).items()


def _num_parameters(name: str, entry: TensorEntry, quantisation: Quantisation | None) -> int:
    if quantisation is None:
        return entry.num_elements
    if _UNPACKING.search(name):
        return 0
    bits = quantisation.bits
    if bits and entry.dtype == "I32" and _PACKED.search(name):
        return entry.num_elements * _INT32_BITS // bits
    # bitsandbytes and MXFP4 put two weights into a byte.
    if bits and entry.dtype == "U8":
        return entry.num_elements * _BYTE_BITS // bits
    return entry.num_elements


def _quantisation(checkpoint: Checkpoint) -> Quantisation | None:
    """What the config says, or what the tensors betray when it says nothing."""
    config = checkpoint.config
    told = next(
        (part[key] for part in (config, text_config(config)) for key in _CONFIG_KEYS if part.get(key)), None
    )
    if isinstance(told, Mapping):
        return Quantisation(method=str(told.get("quant_method", "unknown")), bits=_bits(told))
    if told:
        return Quantisation(method=str(told), bits=None)
    packed = {
        kind: size
        for kind, size in checkpoint.bytes_by_dtype.items()
        if kind.startswith(("F8", "F4")) or kind in _PACKED_DTYPES
    }
    # Masks and position tables are integers too, but small beside the weights.
    if sum(packed.values()) > _PACKED_SHARE * checkpoint.num_bytes:
        return Quantisation(
            method=f"{', '.join(sorted(packed))}, which the config does not explain", bits=None
        )
    return None


_CONFIG_KEYS = ("quantization_config", "compression_config")
_METHOD_BITS = {"fp8": 8, "fbgemm_fp8": 8, "finegrained_fp8": 8, "mxfp4": 4, "bitnet": 2}


def _bits(told: Mapping[str, Any]) -> int | None:
    """Bits of a weight, from the spellings of the formats in use."""
    for key in ("bits", "w_bit", "num_bits", "weight_bits"):
        if isinstance(told.get(key), int):
            return _sane_bits(told[key])
    for key, bits in (("load_in_4bit", 4), ("_load_in_4bit", 4), ("load_in_8bit", 8), ("_load_in_8bit", 8)):
        if told.get(key) is True:
            return bits
    groups = told.get("config_groups")
    weights = [
        group.get("weights")
        for group in (groups.values() if isinstance(groups, dict) else ())
        if isinstance(group, dict)
    ]
    named = [
        each["num_bits"]
        for each in weights
        if isinstance(each, dict) and isinstance(each.get("num_bits"), int)
    ]
    return _sane_bits(named[0]) if named else _METHOD_BITS.get(str(told.get("quant_method")))


def _sane_bits(bits: int) -> int | None:
    return bits if 1 <= bits <= _INT32_BITS else None
