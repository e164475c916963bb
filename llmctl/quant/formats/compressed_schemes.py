"""The configuration of compressed-tensors: which scheme stores which module, and what is refused by name."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llmctl.core.errors import BadFileError
from llmctl.core.patterns import Pattern
from llmctl.quant.formats.base import refuse_unknown

TITLE = "compressed-tensors"
_OTHER = "take another quantisation of this model, or its 16-bit checkpoint"
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
# Whether columns were put into groups in the order of their activations, as weight_g_idx then tells.
_ORDERS = {
    **dict.fromkeys(("none", "false", "weight", "static"), False),
    **dict.fromkeys(("true", "group", "dynamic"), True),
}
_STRATEGIES = ("tensor", "channel", "group", "tensor_group", "block")


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
    has_order: bool
    """Whether columns belong to groups in any order."""
    notes: tuple[str, ...]
    """What of the config is not followed, for the user."""

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
    patterns: Mapping[str, Pattern]
    """The expressions among both, by what they are there."""
    is_cache_quantised: bool

    def find(self, module: str) -> Scheme:
        """The scheme of a module that the file stores quantised. Raises `BadFileError` where none means it.

        Names go before expressions, those in alphabetical order, and classes come last, as in the package.
        """
        if any(self._matches(module, each) for each in self.ignored):
            raise _refusal(TITLE, f"leaves {module} out under ignore, and the file stores it quantised")
        targets = sorted(self.of_targets, key=lambda target: (target.startswith("re:"), target))
        found = next((target for target in targets if self._matches(module, target)), None)
        if found is None:
            # The class of a module is not known here, but quantised ones are embeddings or linear layers.
            is_embedding = any(word in module.rpartition(".")[2] for word in ("embed", "wte", "wpe"))
            found = next((t for t in ("Embedding",) if is_embedding and t in self.of_targets), None)
            found = found or next((t for t in ("Linear", "LinearBase") if t in self.of_targets), None)
        if found is None:
            raise _refusal(TITLE, f"has no group that means {module}, and the file stores it quantised")
        scheme = self.of_targets[found]
        if scheme.format == "dense":
            raise _refusal(TITLE, f"says that {module} is dense, and the file has scales of it")
        return scheme

    def _matches(self, module: str, target: str) -> bool:
        pattern = self.patterns.get(target)
        return pattern.matches_start(module) if pattern is not None else module == target

    def title(self) -> str:
        """For the user, with what of the config is not followed."""
        kinds = list(dict.fromkeys(str(scheme) for scheme in self.of_targets.values()))
        notes = list(dict.fromkeys(note for scheme in self.of_targets.values() for note in scheme.notes))
        if self.is_cache_quantised:
            notes.append("the cache is not quantised")
        return "; ".join([f"{TITLE}, {' and '.join(kinds)}", *notes])


def read_schemes(config: Mapping[str, Any]) -> Schemes:
    """The groups of a `quantization_config`. Raises `BadFileError` over what cannot be honoured."""
    refuse_unknown(config, _KNOWN, TITLE)
    _refuse_parts(config)
    groups = _object(TITLE, config, "config_groups")
    if not groups:
        raise _refusal(TITLE, "has no config_groups")
    ignored = _names(TITLE, config, "ignore")
    of_targets = {
        target: scheme
        for name, group in groups.items()
        for target, scheme in _read_group(str(name), group, config.get("format"))
    }
    return Schemes(
        of_targets=of_targets,
        ignored=ignored,
        patterns=dict((*_patterns(of_targets, "targets"), *_patterns(ignored, "ignore"))),
        is_cache_quantised=bool(_object(TITLE, config, "kv_cache_scheme")),
    )


def _refuse_parts(config: Mapping[str, Any]) -> None:
    stored = _object(TITLE, config, "sparsity_config").get("format", "dense")
    if stored != "dense":
        raise _refusal(TITLE, f"says that the weights are stored sparse ({stored!r})")
    transform = _object(TITLE, config, "transform_config")
    if transform.get("config_groups", transform):
        raise _refusal(TITLE, "has a transform_config: rotations of the inputs, which llmctl does not apply")


def _read_group(name: str, group: Any, common: Any) -> Iterator[tuple[str, Scheme]]:
    """The targets of one group; `common` is the format that the config names for all of them."""
    title = f"{TITLE}, {name}"
    if not isinstance(group, Mapping):
        raise _refusal(title, "names no scheme and targets")
    targets = _names(title, group, "targets")
    refuse_unknown(group, _KNOWN_GROUP, title)
    weights = _object(title, group, "weights")
    if not weights:
        # Only activations are quantised; the weights are dense.
        return
    refuse_unknown(weights, _KNOWN_WEIGHTS, title)
    stored = str(group.get("format") or common)
    if common not in (None, "mixed-precision", stored):
        raise _refusal(title, f"says format {stored!r} here and {common!r} for the whole")
    if stored not in _FORMATS:
        known = ", ".join(sorted(_FORMATS))
        raise _refusal(title, f"says that the weights are stored as {stored!r}; llmctl reads {known}")
    scheme = _read_weights(title, weights, stored, tuple(_notes(title, group)))
    yield from ((target, scheme) for target in targets)


def _read_weights(title: str, weights: Mapping[str, Any], stored: str, notes: tuple[str, ...]) -> Scheme:
    bits, kind = weights.get("num_bits", 8), str(weights.get("type", "int")).lower()
    strategy, group_size = weights.get("strategy"), weights.get("group_size")
    if strategy is None:
        strategy = "tensor" if group_size is None else "channel" if group_size == -1 else "group"
    strategy = str(strategy).lower()
    is_float = kind == "float"
    formats = INT_FORMATS if not is_float else FP8_FORMATS if bits == 8 else FP4_FORMATS if bits == 4 else ()
    if kind not in ("int", "float") or type(bits) is not int or not 1 <= bits <= 8:
        raise _refusal(
            title, f"has weights of num_bits {bits!r} and type {kind!r}; llmctl reads 1 to 8, int or float"
        )
    if stored != "dense" and stored not in formats:
        raise _refusal(
            title, f"says {bits}-bit {kind} weights, stored as {stored!r}: these do not go together"
        )
    if strategy not in _STRATEGIES:
        known = ", ".join(_STRATEGIES)
        raise _refusal(title, f"has weights with the strategy {strategy!r}; llmctl reads {known}")
    if weights.get("dynamic"):
        raise _refusal(title, "has weights that are dynamic, which stored ones cannot be")
    return Scheme(
        format=stored,
        bits=bits,
        is_float=is_float,
        strategy="group" if strategy == "tensor_group" else strategy,
        block=_read_block(title, strategy, group_size, weights.get("block_structure")),
        is_symmetric=_is_symmetric(title, weights),
        has_order=_has_order(title, weights, is_float=is_float),
        notes=notes,
    )


def _is_symmetric(title: str, weights: Mapping[str, Any]) -> bool:
    said = weights.get("symmetric", True)
    if not isinstance(said, bool):
        raise _refusal(title, f"has weights with symmetric {said!r}; true or false is expected")
    return said


def _has_order(title: str, weights: Mapping[str, Any], *, is_float: bool) -> bool:
    said = weights.get("actorder")
    order = _ORDERS.get(str(said).lower())
    if order is None or (order and is_float):
        raise _refusal(title, f"has weights with actorder {said!r}, which llmctl does not read")
    return order


def _notes(title: str, group: Mapping[str, Any]) -> Iterator[str]:
    """What is said of activations, which stay in the numbers that the model computes in."""
    for key in ("input_activations", "output_activations"):
        said = _object(title, group, key)
        if said and not said.get("dynamic"):
            yield "its scales of activations are not used"
        bits = said.get("num_bits", 8)
        if bits != 8:
            yield f"its activations are not rounded to {bits} bits"


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
        raise _refusal(
            title,
            f"has weights in {strategy}s, with group_size {group_size!r} and block_structure {structure!r}",
        )
    return sides[0], sides[1]


def _object(title: str, config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise _refusal(title, f"has {key} {value!r}; an object is expected")
    return value or {}


def _names(title: str, config: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = config.get(key)
    if not isinstance(value, list | None) or not all(isinstance(name, str) for name in value or ()):
        raise _refusal(title, f"has {key} {value!r}; a list of names is expected")
    return tuple(value or ())


def _refusal(title: str, what: str) -> BadFileError:
    return BadFileError(
        f"the quantization_config ({title}) {what}",
        hint=_OTHER,
    )


def _patterns(names: Iterable[str], key: str) -> Iterator[tuple[str, Pattern]]:
    where = f"the quantization_config ({TITLE}) has under {key}"
    for name in names:
        if name.startswith("re:"):
            yield name, Pattern(name.removeprefix("re:"), where=where, hint=_OTHER)
