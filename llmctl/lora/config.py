"""Reads `adapter_config.json`: a field of PEFT's LoRA is honoured, has no say after training, or is refused.

What the fields say of modules is the business of `targets`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.core.errors import BadFileError

FILE = "adapter_config.json"
SAFETENSORS = "adapter_model.safetensors"
WEIGHTS = (SAFETENSORS, "adapter_model.bin", "adapter_model.pt")
"""The files that may hold an adapter's numbers: the first that is there, of pickles only the tensors."""
_MAX_BYTES = 64 * 1024 * 1024
_MAX_NUMBER = 1e30
_AGAIN = "download or copy the adapter again"
_OTHER_KIND = "use it unmerged, with peft"

_HONOURED = frozenset(
    (
        *("peft_type", "base_model_name_or_path", "revision", "r", "lora_alpha", "use_rslora", "use_dora"),
        *("rank_pattern", "alpha_pattern", "target_modules", "exclude_modules", "target_parameters"),
        *("layers_to_transform", "layers_pattern", "modules_to_save", "trainable_token_indices"),
        *("bias", "lora_bias", "fan_in_fan_out", "init_lora_weights", "ensure_weight_tying"),
    )
)
_OF_TRAINING = frozenset(
    (
        *("task_type", "auto_mapping", "peft_version", "inference_mode", "lora_dropout", "runtime_config"),
        *("megatron_core", "qalora_group_size", "velora_config"),
        # How the first numbers were found; where that changed the base too, `init_lora_weights` says so.
        *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
    )
)
_REFUSED: Mapping[str, str] = {
    "megatron_config": "its layers are Megatron's",
    "alora_invocation_tokens": "it is active only behind those tokens, so no set of weights stands for it",
    "use_qalora": "it pools the inputs of quantised layers, which no weight can",
    "monteclora_config": "it draws its weights at random",
    "arrow_config": "it chooses among adapters for each token, so no set of weights stands for it",
    "kasa_config": "it takes parts away from the base's weights",
    "use_bdlora": "its factors are kept as blocks",
    "layer_replication": "the model would have more layers than its base",
}
_HARMLESS_STARTS = ("gaussian", "eva", "orthogonal")
_BIASES = ("none", "all", "lora_only")
_Pairs = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterConfig:
    """What `adapter_config.json` says, its types checked."""

    folder: Path
    base: str | None
    """Name or path of the model that it belongs to."""
    base_revision: str | None
    rank: int
    alpha: float
    ranks: _Pairs = ()
    """`rank_pattern`: expression and rank, in order."""
    alphas: _Pairs = ()
    is_rank_stabilised: bool = False
    """Whether the factor is alpha / sqrt(rank)."""
    has_magnitudes: bool = False
    """DoRA."""
    modules: tuple[str, ...] | str | None = None
    """`target_modules`: ends of names, or an expression; None: not said."""
    excluded: tuple[str, ...] | str = ()
    parameters: tuple[str, ...] = ()
    """`target_parameters`: ends of names."""
    layers: tuple[int, ...] = ()
    """`layers_to_transform`; empty: all."""
    layer_lists: tuple[str, ...] = ()
    """`layers_pattern`: what the lists of layers are called; empty: anything."""
    saved: tuple[str, ...] = ()
    """`modules_to_save`."""
    tokens: Mapping[str, tuple[int, ...]] | None = None
    """`trainable_token_indices` by end of a module's name; "" stands for the table of input tokens."""
    bias: str = "none"
    has_lora_bias: bool = False
    is_transposed: bool = False
    """`fan_in_fan_out`, which only matters where the base does not tell."""
    keeps_tied: bool = False
    """`ensure_weight_tying`."""


def read_config(folder: Path) -> AdapterConfig:
    """The configuration of the adapter in `folder`.

    Raises `BadFileError` naming the field that is missing, wrong, unknown or cannot be honoured.
    """
    fields = _Fields(folder / FILE, _json(folder / FILE))
    _refuse(fields)
    return AdapterConfig(
        folder=folder,
        base=fields.text("base_model_name_or_path"),
        base_revision=fields.text("revision"),
        rank=fields.rank("r"),
        alpha=fields.number("lora_alpha"),
        ranks=fields.pattern("rank_pattern", is_rank=True),
        alphas=fields.pattern("alpha_pattern", is_rank=False),
        is_rank_stabilised=fields.truth("use_rslora"),
        has_magnitudes=fields.truth("use_dora"),
        modules=fields.names_or_expression("target_modules"),
        excluded=fields.names_or_expression("exclude_modules") or (),
        parameters=fields.names("target_parameters"),
        layers=fields.layers("layers_to_transform"),
        layer_lists=fields.names("layers_pattern", may_be_one=True),
        saved=fields.names("modules_to_save"),
        tokens=fields.tokens("trainable_token_indices"),
        bias=fields.text("bias") or "none",
        has_lora_bias=fields.truth("lora_bias"),
        is_transposed=fields.truth("fan_in_fan_out"),
        keeps_tied=fields.truth("ensure_weight_tying"),
    )


def _refuse(fields: "_Fields") -> None:
    """Raise `BadFileError` for what cannot be honoured."""
    given = fields.values
    kind = given.get("peft_type")
    if kind != "LORA":
        raise fields.bad(
            "peft_type", f"llmctl reads adapters of the kind LORA, not {kind!r}", hint=_OTHER_KIND
        )
    for key, why in _REFUSED.items():
        if _is_used(key, given.get(key)):
            raise fields.bad(key, f"llmctl cannot merge such an adapter: {why}", hint=_OTHER_KIND)
    unknown = sorted(key for key in given if key not in _HONOURED | _OF_TRAINING | _REFUSED.keys())
    for key in unknown:
        if _is_used(key, given[key]):
            raise fields.bad(
                key, "llmctl does not know this field, and would not do what it says", hint=_OTHER_KIND
            )
    start = given.get("init_lora_weights")
    if isinstance(start, str) and start.lower() not in _HARMLESS_STARTS:
        raise fields.bad(
            "init_lora_weights",
            f"{start!r} changes the base's weights before training, and the adapter only fits those",
            hint="save it with path_initial_model_for_weight_conversion, which makes a plain LoRA of it; or "
            "use it unmerged, with peft",
        )
    if given.get("bias", "none") not in (*_BIASES, None):
        raise fields.bad("bias", f"it must be one of {', '.join(_BIASES)}, not {given['bias']!r}")
    if given.get("use_dora") and given.get("lora_bias"):
        raise fields.bad("lora_bias", "PEFT has no DoRA with biases of its own")


@dataclass(frozen=True, slots=True)
class _Fields:
    """The fields as they stand in the file, and their types."""

    path: Path
    values: Mapping[str, Any]

    def bad(self, key: str, why: str, *, hint: str = _AGAIN) -> BadFileError:
        """The refusal of one field."""
        return BadFileError(f"{self.path}: {key}={_short(self.values.get(key))}: {why}", hint=hint)

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        if value is None or isinstance(value, str):
            return value.strip() or None if value else None
        raise self.bad(key, "it must be text")

    def truth(self, key: str) -> bool:
        value = self.values.get(key)
        if value is None or isinstance(value, bool):
            return bool(value)
        raise self.bad(key, "it must be true or false")

    def rank(self, key: str) -> int:
        value = self.values.get(key)
        if not _is_rank(value):
            raise self.bad(key, "a rank is a whole number above 0")
        assert isinstance(value, int)
        return value

    def number(self, key: str) -> float:
        value = self.values.get(key)
        if not _is_number(value):
            raise self.bad(key, f"it must be a number below {_MAX_NUMBER:g}")
        assert isinstance(value, int | float)
        return float(value)

    def pattern(self, key: str, *, is_rank: bool) -> _Pairs:
        value = self.values.get(key) or {}
        is_right = _is_rank if is_rank else _is_number
        if not isinstance(value, Mapping) or not all(is_right(each) for each in value.values()):
            raise self.bad(key, f"it must be an object of {'ranks above 0' if is_rank else 'numbers'}")
        return tuple((str(name), each) for name, each in value.items())

    def names(self, key: str, *, may_be_one: bool = False) -> tuple[str, ...]:
        value = self.values.get(key) or []
        if may_be_one and isinstance(value, str):
            return (value,)
        if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
            raise self.bad(key, "it must be a list of names")
        return tuple(value)

    def names_or_expression(self, key: str) -> tuple[str, ...] | str | None:
        value = self.values.get(key)
        if value is None or (isinstance(value, str) and value):
            return value
        return self.names(key)

    def layers(self, key: str) -> tuple[int, ...]:
        value = self.values.get(key)
        listed = [value] if isinstance(value, int) else value or []
        if not isinstance(listed, list) or not all(_is_index(each) for each in listed):
            raise self.bad(key, "it must be the number of a layer, or a list of such")
        return tuple(listed)

    def tokens(self, key: str) -> Mapping[str, tuple[int, ...]] | None:
        value = self.values.get(key)
        if value is None:
            return None
        tables = value if isinstance(value, Mapping) else {"": value}
        for listed in tables.values():
            if not isinstance(listed, list) or not listed or not all(_is_index(each) for each in listed):
                raise self.bad(key, "it must be a list of tokens, or several by name of a table")
        return {str(name): tuple(listed) for name, listed in tables.items()}


def _is_used(key: str, value: Any) -> bool:
    """Whether a field says anything: what a newer PEFT writes for "not used" changes nothing."""
    if key.endswith(("_config", "_tokens")) or key.startswith("use_"):
        # An empty object there stands for the defaults: PEFT only asks whether there is one.
        return value is not None and value is not False
    return value not in (None, False, "", [], {})


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MAX_NUMBER


def _is_number(value: Any) -> bool:
    # NaN is not below it either.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MAX_NUMBER


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _json(path: Path) -> Mapping[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise BadFileError(f"{path} has more than {_MAX_BYTES} bytes", hint=_AGAIN)
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadFileError(f"cannot read {path}: {error.strerror}", hint=_AGAIN) from error
    except (ValueError, RecursionError) as error:
        raise BadFileError(f"{path} is not valid JSON: {error}", hint=_AGAIN) from error
    if not isinstance(value, dict):
        raise BadFileError(f"{path} must hold a JSON object, not {type(value).__name__}", hint=_AGAIN)
    return value
