"""What a checkpoint is, told from its configuration and the headers of its weights alone. No torch."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from llmctl.loading import contents
from llmctl.loading.checkpoint import Checkpoint, open_folder
from llmctl.loading.facts.context import context_length
from llmctl.loading.facts.licence import licence_of
from llmctl.loading.facts.quantisation import Quantisation, is_for_unpacking, quantisation_of, settings_of
from llmctl.loading.facts.shape import Shape, shape_of, text_config
from llmctl.loading.header import TensorEntry
from llmctl.loading.planning.plan import stored_dtype
from llmctl.loading.planning.request import Facts

_PACKED = re.compile(r"(?:qweight|weight_packed)$")
# Tables of tokens and positions are packed in their own way or not at all when a model is quantised.
_HEAD = re.compile(r"(?:^|\.)(?:lm_head|embed_out|output|output_layer)\.weight$")
_POSITIONS = re.compile(r"(?:^|\.)wpe\.|position|token_type|segment")
_TABLE = re.compile(r"embed|(?:^|\.)(?:wte|wpe|shared)\.weight$|(?:^|\.)token_embd\.")
_INT32_BITS, _BYTE_BITS = 32, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Facts of a model that is on this machine."""

    checkpoint: Checkpoint
    facts: Facts
    shape: Shape
    context_length: int
    """Tokens."""
    licence: str | None

    @property
    def num_parameters(self) -> int:
        """Packed weights unpacked."""
        return self.facts.num_parameters

    @property
    def quantisation(self) -> Quantisation | None:
        """How the files are quantised."""
        return self.facts.quantisation

    @property
    def architecture(self) -> str | None:
        """The first class that the config names."""
        names = self.checkpoint.config.get("architectures")
        return str(names[0]) if isinstance(names, list) and names else None


def describe(
    folder: Path, *, name: str | None = None, formats: Mapping[str, object] | None = None
) -> Description:
    """Read the facts of a model folder, which is `name` to the user; `formats` as `describe_checkpoint`.

    Raises `BadFileError` for a folder that is no whole model, as `checkpoint.open_folder` does.
    """
    checkpoint = open_folder(folder, name=name)
    tokenizer = contents.read_json(checkpoint.folder / "tokenizer_config.json", optional=True)
    limit = tokenizer.get("model_max_length")
    return Description(
        checkpoint=checkpoint,
        facts=describe_checkpoint(checkpoint, formats),
        shape=shape_of(checkpoint.config),
        context_length=context_length(
            checkpoint.config, tokenizer_limit=limit if isinstance(limit, int) else None
        ),
        licence=licence_of(checkpoint.folder),
    )


def describe_checkpoint(checkpoint: Checkpoint, formats: Mapping[str, object] | None = None) -> Facts:
    """What a plan must know of a checkpoint, from the headers of its files.

    `formats` are the user's own words on how it is quantised. Raises `BadFileError` for a damaged header.
    """
    told = settings_of(checkpoint.config, checkpoint.folder)
    if formats and checkpoint.gguf is None and isinstance(told, Mapping | None):
        told = {**(told or {}), **formats}
    quantisation = quantisation_of(told, checkpoint.bytes_by_dtype)
    if quantisation is not None and checkpoint.adapter is not None:
        # Merged numbers are not those of the files: they are decoded first.
        quantisation = replace(quantisation, is_decoded=True)
    counts: Counter[str] = Counter()
    for name, entry in checkpoint.entries():
        counts[_kind(name, entry)] += _num_parameters(name, entry, quantisation)
    if text_config(checkpoint.config).get("tie_word_embeddings") is True:
        # Some files hold both of a tied pair; memory will not.
        del counts["head"]
    shape = shape_of(checkpoint.config)
    return Facts(
        name=checkpoint.name,
        stored_dtype=_stored_dtype(checkpoint.bytes_by_dtype, quantisation),
        num_bytes=checkpoint.num_bytes,
        num_parameters=counts.total(),
        num_body_parameters=counts["body"],
        num_head_parameters=counts["head"],
        num_embedding_parameters=counts["embedding"],
        num_layers=shape.num_layers or 1,
        hidden_size=shape.hidden_size,
        is_encoder_decoder=shape.is_encoder_decoder,
        quantisation=quantisation,
    )


def _stored_dtype(bytes_by_dtype: Mapping[str, int], quantisation: Quantisation | None) -> str:
    if quantisation is None:
        return stored_dtype(bytes_by_dtype)
    # What is float32 beside packed weights is scales and norms: such a checkpoint is one of 16 bits.
    is_half = bytes_by_dtype.get("F16", 0) > bytes_by_dtype.get("BF16", 0)
    return "float16" if is_half else "bfloat16"


def _kind(name: str, entry: TensorEntry) -> str:
    """Which of the `Facts` counts a tensor."""
    if _HEAD.search(name):
        return "head"
    if _POSITIONS.search(name):
        return "rest"
    if _TABLE.search(name):
        return "embedding" if len(entry.shape) > 1 else "rest"
    # Packed weights of bitsandbytes are flat.
    is_matrix = len(entry.shape) > 1 or _PACKED.search(name) is not None
    return "body" if is_matrix else "rest"


def _num_parameters(name: str, entry: TensorEntry, quantisation: Quantisation | None) -> int:
    if quantisation is None:
        return entry.num_elements
    if is_for_unpacking(name):
        return 0
    bits = quantisation.bits
    if bits and entry.dtype == "I32" and _PACKED.search(name):
        return entry.num_elements * _INT32_BITS // bits
    # bitsandbytes and MXFP4 put two weights into a byte.
    if bits and entry.dtype == "U8":
        return entry.num_elements * _BYTE_BITS // bits
    return entry.num_elements
