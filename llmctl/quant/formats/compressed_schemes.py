"""The configuration of compressed-tensors: which scheme stores which module, and what is refused by name."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llmctl.core.errors import BadFileError
from llmctl.quant.formats.base import refuse_unknown

TITLE = "compressed-tensors"
INT_FORMATS = ("pack-quantized", "int-quantized", "naive-quantized")
FP8_FORMATS = ("float-quantized", "naive-quantized", "mxfp8-quantized")
FP4_FORMATS = ("mxfp4-pack-quantized", "nvfp4-pack-quantized")
_FORMATS = {*INT_FORMATS, *FP8_FORMATS, *FP4_FORMATS, "dense"}
_KNOWN = (
    "quant_method",
    "config_groups",
    "format",
    "ignore",
    "kv_cache_scheme",
    "quantization_status",
    "global_compression_ratio",
    "sparsity_config",
    "transform_config",
    "version",
    "run_compressed",
    "dequantize",
    "use_optimized_inference",
)
_KNOWN_GROUP = ("targets", "weights", "input_activations", "output_activations", "format")
_KNOWN_WEIGHTS = (
    "num_bits",
    "type",
    "symmetric",
    "strategy",
    "group_size",
    "block_structure",
    "dynamic",
    "actorder",
    "observer",
    "observer_kwargs",
    "scale_dtype",
    "zp_dtype",
)
_STRATEGIES = ("tensor", "channel", "group", "tensor_group", "block")
_OTHER = "take another quantisation of this model, or its 16-bit checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How one group of modules is stored."""

    format: str
    bits: int
    is_float: bool
    strategy: str
    """"tensor", "channel", "group" or "block"."""
    block: tuple[int, int] | None
    """Rows and columns that share a scale, for groups and blocks."""
    is_symmetric: bool
    are_inputs_static: bool
    """Whether the file carries scales for the inputs of the modules."""

    @property
    def gives_quantised(self) -> bool:
        """Whether these weights have a canonical form; 8-bit floats become dense."""
        return not self.is_float or self.bits == 4

    def __str__(self) -> str:
        each = (
            {"group": f"groups of {self.block[1]}", "block": "blocks of {} x {}".format(*self.block)}
            if self.block
            else {}
        )
        numbers = "floats" if self.is_float else "integers"
        return f"{self.bits}-bit {numbers} ({self.format}) in {each.get(self.strategy, f'{self.strategy}s')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schemes:
    """All groups of a config."""

    of_targets: Mapping[str, Scheme]
    """By what they name: a module, "re:" and an expression for its start, or a class."""
    ignored: tuple[str, ...]
    is_cache_quantised: bool

    def find(self, module: str) -> Scheme | None:
        """The scheme of a module that the file stores quantised; None where no group means it.

        Names go before expressions, those in alphabetical order, and classes come last, as in the package.
        """
        if any(_matches(module, each) for each in self.ignored):
            return None
        targets = sorted(self.of_targets, key=lambda target: (target.startswith("re:"), target))
        found = next((target for target in targets if _matches(module, target)), None)
        if found is None:
            # The class of a module is not known here, but quantised ones are embeddings or linear layers.
            is_embedding = any(word in module.rpartition(".")[2] for word in ("embed", "wte", "wpe"))
            found = next((t for t in ("Embedding",) if is_embedding and t in self.of_targets), None)
            found = found or next((t for t in ("Linear", "LinearBase") if t in self.of_targets), None)
        return None if found is None else self.of_targets[found]

    def title(self) -> str:
        """For the user, with what of the config is not followed."""
        kinds = list(dict.fromkeys(str(scheme) for scheme in self.of_targets.values()))
        notes = []
        if any(scheme.are_inputs_static for scheme in self.of_targets.values()):
            notes.append("its scales of activations are not used")
        if self.is_cache_quantised:
            notes.append("the cache is not quantised")
        return "; ".join([f"{TITLE}, {' and '.join(kinds)}", *notes])


def read_schemes(config: Mapping[str, Any]) -> Schemes:
    """The groups of a `quantization_config`. Raises `BadFileError` over what cannot be honoured."""
    refuse_unknown(config, _KNOWN, TITLE)
    _refuse_parts(config)
    groups = config.get("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        raise BadFileError(f"the quantization_config ({TITLE}) has no config_groups", hint=_OTHER)
    ignored = tuple(map(str, config.get("ignore") or ()))
    of_targets = {
        target: scheme
        for name, group in groups.items()
        for target, scheme in _read_group(str(name), group, config.get("format"))
    }
    for target in (*of_targets, *ignored):
        _check_expression(target)
    return Schemes(
        of_targets=of_targets,
        ignored=ignored,
        is_cache_quantised=bool(config.get("kv_cache_scheme")),
    )


def _refuse_parts(config: Mapping[str, Any]) -> None:
    sparsity = config.get("sparsity_config") or {}
    if sparsity.get("format", "dense") != "dense":
        raise BadFileError(
            f"the weights are stored sparse ({TITLE} {sparsity['format']!r}), which llmctl does not read",
            hint=_OTHER,
        )
    transform = config.get("transform_config") or {}
    if transform.get("config_groups", transform):
        raise BadFileError(
            f"the quantization_config ({TITLE}) has a transform_config: rotations of the inputs, "
            "which llmctl does not apply",
            hint=_OTHER,
        )


def _read_group(name: str, group: Any, default_format: Any) -> Iterator[tuple[str, Scheme]]:
    title = f"{TITLE}, {name}"
    if not isinstance(group, Mapping) or not isinstance(group.get("targets"), list):
        raise BadFileError(f"the quantization_config ({title}) names no scheme and targets", hint=_OTHER)
    refuse_unknown(group, _KNOWN_GROUP, title)
    weights = group.get("weights")
    if weights is None:
        # Only activations are quantised; the weights are dense.
        return
    refuse_unknown(weights, _KNOWN_WEIGHTS, title)
    stored = group.get("format") or default_format
    if stored not in _FORMATS:
        raise BadFileError(
            f"the weights are stored as {stored!r} ({title}); llmctl reads {', '.join(sorted(_FORMATS))}",
            hint=_OTHER,
        )
    scheme = _read_weights(title, weights, str(stored), group.get("input_activations"))
    yield from ((str(target), scheme) for target in group["targets"])


def _read_weights(title: str, weights: Mapping[str, Any], stored: str, inputs: Any) -> Scheme:
    bits, kind = weights.get("num_bits", 8), str(weights.get("type", "int")).lower()
    strategy, group_size = weights.get("strategy"), weights.get("group_size")
    if strategy is None:
        strategy = "tensor" if group_size is None else "channel" if group_size == -1 else "group"
    strategy = str(strategy).lower()
    is_float = kind == "float"
    formats = INT_FORMATS if not is_float else FP8_FORMATS if bits == 8 else FP4_FORMATS if bits == 4 else ()
    if kind not in ("int", "float") or not isinstance(bits, int) or not 1 <= bits <= 8:
        raise BadFileError(
            f"the quantization_config ({title}) has weights of {bits} bits of {kind}", hint=_OTHER
        )
    if stored != "dense" and stored not in formats:
        raise BadFileError(
            f"the quantization_config ({title}) says {bits}-bit {kind} weights, stored as {stored!r}: "
            "these do not go together",
            hint=_OTHER,
        )
    if strategy not in _STRATEGIES:
        raise BadFileError(
            f"the quantization_config ({title}) has weights with the strategy {strategy!r}; "
            f"llmctl reads {', '.join(_STRATEGIES)}",
            hint=_OTHER,
        )
    return Scheme(
        format=stored,
        bits=bits,
        is_float=is_float,
        strategy="group" if strategy == "tensor_group" else strategy,
        block=_read_block(title, strategy, group_size, weights.get("block_structure")),
        is_symmetric=bool(weights.get("symmetric", True)),
        are_inputs_static=bool(inputs) and not inputs.get("dynamic"),
    )


def _read_block(title: str, strategy: str, group_size: Any, structure: Any) -> tuple[int, int] | None:
    """Rows and columns that share a scale."""
    if strategy in ("tensor", "channel"):
        return None
    sides: Any = [1, group_size]
    if strategy == "block":
        # Older files have "128x128".
        sides = (
            [int(side) for side in re.findall(r"\d+", structure)] if isinstance(structure, str) else structure
        )
    if not isinstance(sides, list) or len(sides) != 2 or not all(isinstance(n, int) and n > 0 for n in sides):
        raise BadFileError(
            f"the quantization_config ({title}) has weights in {strategy}s, with group_size {group_size} "
            f"and block_structure {structure}",
            hint=_OTHER,
        )
    return sides[0], sides[1]


def _matches(module: str, target: str) -> bool:
    if target.startswith("re:"):
        return re.match(target.removeprefix("re:"), module) is not None
    return target == module


def _check_expression(target: str) -> None:
    try:
        re.compile(target.removeprefix("re:") if target.startswith("re:") else "")
    except re.error as error:
        raise BadFileError(
            f"the quantization_config ({TITLE}) has the target {target!r}, which is no regular expression"
        ) from error
