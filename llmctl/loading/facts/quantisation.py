"""How a checkpoint is quantised, by its config or its tensors. Facts alone: `quant.formats` reads it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.loading import contents
from llmctl.loading.facts.shape import text_config

_OLDER_FILES: Mapping[str, str] = {"quantize_config.json": "gptq", "quant_config.json": "awq"}
"""Files of tools from before configs said it, with the method that they mean where they name none."""
GGUF = "gguf"
_GGUF_BLOCKS = ("Q", "IQ", "TQ")
_CONFIG_KEYS = ("quantization_config", "compression_config")
_METHOD_BITS = {"fp8": 8, "fbgemm_fp8": 8, "finegrained_fp8": 8, "mxfp4": 4, "bitnet": 2}
_FLOAT_METHODS = ("fp8", "fbgemm_fp8", "finegrained_fp8")
_TITLES = {"gptq": "GPTQ", "awq": "AWQ", "fp8": "FP8", "fbgemm_fp8": "FP8", "mxfp4": "MXFP4", "gguf": "GGUF"}
_PACKED_DTYPES = ("I8", "U8", "I32")
_PACKED_SHARE = 0.1
_MAX_BITS = 32
# Beside the packed weights: how to unpack them, which is no parameter of the model.
_UNPACKING = re.compile(
    r"(?:^|[._])(?:qzeros|g_idx|scales?|scale_inv|zero_points?|absmax|quant_map|quant_state\..*|SCB|"
    r"weight_format|weight_shape|input_scale|k_scale|v_scale)$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantisation:
    """How the weights of a checkpoint are packed."""

    method: str
    """As its config calls it (gptq, awq, fp8, ...), or the types of the tensors where it says nothing."""
    bits: int | None
    """Of one weight, None when the config does not say."""
    group_size: int | None = None
    """Weights that share a scale; None: a whole row or matrix, or not said."""
    kind: str | None = None
    """What else tells one such checkpoint from another: GGUF's type of most blocks."""
    is_decoded: bool = False
    """Whether llmctl makes dense weights of it while it loads: such formats only save space on disk here."""

    @property
    def title(self) -> str:
        """For the user: "GPTQ, 4 bits, groups of 128"."""
        parts = [_TITLES.get(self.method, self.method)]
        parts += [self.kind] if self.kind else []
        parts += [f"{self.bits} bits"] if self.bits else []
        parts += [f"groups of {self.group_size}"] if self.group_size else []
        return ", ".join(parts)


def quantisation_of(told: Any, bytes_by_dtype: Mapping[str, int]) -> Quantisation | None:
    """What the files tell (`settings_of`), or the tensors betray when they do not; None for dense weights."""
    if isinstance(told, Mapping):
        method = str(told.get("quant_method", "unknown"))
        return Quantisation(
            method=method, bits=_bits(told), group_size=_group_size(told), is_decoded=_is_float(method, told)
        )
    if told:
        return Quantisation(method=str(told), bits=None)
    blocks = [kind for kind in bytes_by_dtype if kind.startswith(_GGUF_BLOCKS)]
    if blocks:
        most = max(blocks, key=lambda kind: bytes_by_dtype[kind])
        return Quantisation(method=GGUF, bits=None, kind=most, is_decoded=True)
    packed = {
        kind: size
        for kind, size in bytes_by_dtype.items()
        if kind.startswith(("F8", "F4")) or kind in _PACKED_DTYPES
    }
    # Masks and position tables are integers too, but small beside the weights.
    if sum(packed.values()) > _PACKED_SHARE * sum(bytes_by_dtype.values()):
        kinds = ", ".join(sorted(packed))
        return Quantisation(method=f"{kinds}, which the config does not explain", bits=None)
    return None


QUANT_KEYS = ("quant_method", "bits", "group_size", "desc_act", "sym", "checkpoint_format", "zero_point")
"""What the numbers of a weight depend on, and the user may say."""


def settings_of(config: Mapping[str, Any], folder: Path) -> Any:
    """The quantisation's own part of a `config.json`, whatever it is, or of an older tool's file beside it.

    None without one. Raises `BadFileError` for such a file that is damaged.
    """
    parts = (config, text_config(config))
    for part in parts:
        for key in _CONFIG_KEYS:
            if part.get(key) not in (None, {}):
                return part[key]
    older = older_settings_of(folder)
    return {"quant_method": _OLDER_FILES[older[0]], **older[1]} if older is not None else None


def older_settings_of(folder: Path) -> tuple[str, Mapping[str, Any]] | None:
    """An older tool's file by name, and what it says. Raises `BadFileError` for one that is damaged."""
    files = ((name, contents.read_json(folder / name, optional=True)) for name in _OLDER_FILES)
    return next(((name, own) for name, own in files if own), None)


def is_for_unpacking(name: str) -> bool:
    """Whether the tensor of that name tells how to unpack another: scales, zero points, orders."""
    return _UNPACKING.search(name) is not None


def _bits(told: Mapping[str, Any]) -> int | None:
    """Bits of a weight, from the spellings of the formats in use."""
    for key in ("bits", "w_bit", "num_bits", "weight_bits"):
        if isinstance(told.get(key), int):
            return _sane_bits(told[key])
    for key, bits in (("load_in_4bit", 4), ("_load_in_4bit", 4), ("load_in_8bit", 8), ("_load_in_8bit", 8)):
        if told.get(key) is True:
            return bits
    named = [each["num_bits"] for each in _weight_groups(told) if isinstance(each.get("num_bits"), int)]
    return _sane_bits(named[0]) if named else _METHOD_BITS.get(str(told.get("quant_method")))


def _group_size(told: Mapping[str, Any]) -> int | None:
    sizes = [told.get(key) for key in ("group_size", "q_group_size")]
    sizes += [each.get("group_size") for each in _weight_groups(told)]
    return next((size for size in sizes if isinstance(size, int) and size > 0), None)


def _is_float(method: str, told: Mapping[str, Any]) -> bool:
    return method in _FLOAT_METHODS or any(each.get("type") == "float" for each in _weight_groups(told))


def _weight_groups(told: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What compressed-tensors says of the weights, one for each of its groups."""
    groups = told.get("config_groups")
    weights = [
        group.get("weights")
        for group in (groups.values() if isinstance(groups, Mapping) else ())
        if isinstance(group, Mapping)
    ]
    return [each for each in weights if isinstance(each, Mapping)]


def _sane_bits(bits: int) -> int | None:
    return bits if 1 <= bits <= _MAX_BITS else None
