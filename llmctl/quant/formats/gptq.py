"""Reads GPTQ checkpoints (AutoGPTQ, Optimum, GPTQModel): 2, 3, 4 or 8 bits, act-order, rules for modules.

    W[n, k] = (q[k, n] - zero[g_idx[k], n]) * scale[g_idx[k], n]

Marlin and other layouts made for one kernel are refused.
"""

import logging
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from llmctl.quant.formats.base import Part, Reader, need, refuse_unknown
from llmctl.quant.formats.gptq_layer import Layer
from llmctl.quant.formats.settings import Rules, Settings
from llmctl.quant.weights import QuantWeight

log = logging.getLogger(__name__)

_TITLE = "GPTQ"
_BITS = (2, 3, 4, 8)
_ROLES = ("qweight", "qzeros", "scales", "g_idx")
# A module is quantised when one of them is there.
_SIGNS = (".qweight", ".qzeros")
_OVERRIDABLE = ("bits", "group_size", "desc_act", "sym", "checkpoint_format")
_READ = {
    *("bits", "wbits", "w_bit", "group_size", "groupsize", "q_group_size", "desc_act", "act_order", "sym"),
    *(
        "checkpoint_format",
        "format",
        "is_marlin_format",
        "quant_method",
        "method",
        "pack_dtype",
        "dynamic",
        "meta",
    ),
    *("lm_head", "modules_in_block_to_quantize"),
}
# How the weight was found, on which machine, and what kernels the publisher liked: no number depends on it.
_HARMLESS = {
    *(
        "act_group_aware",
        "act_sort",
        "amp",
        "autoround_version",
        "backend",
        "batch_size",
        "block_name_to_quantize",
    ),
    *("cache_block_outputs", "compression_dim", "damp_auto_increment", "damp_percent", "dataset", "device"),
    *(
        "disable_exllama",
        "enable_minmax_tuning",
        "enable_quanted_input",
        "exllama_config",
        "failsafe",
        "fallback",
    ),
    *("foem", "gptaq", "gradient_accumulate_steps", "hessian", "hyb_act", "iters", "low_gpu_mem_usage", "lr"),
    *("max_input_length", "minmax_lr", "mock_quantization", "model_file_base_name", "model_name_or_path"),
    *("model_seqlen", "module_name_preceding_first_block", "mse", "nsamples", "offload_to_disk"),
    *("offload_to_disk_path", "pack_impl", "packing_format", "pad_token_id", "parallel_packing", "quantizer"),
    *(
        "scale_dtype",
        "seqlen",
        "static_groups",
        "tokenizer",
        "true_sequential",
        "use_cuda_fp16",
        "use_exllama",
    ),
    *("v2", "v2_alpha", "v2_memory_device"),
}


def reader(config: Mapping[str, Any], tensors: Collection[str], overrides: Mapping[str, Any]) -> Reader:
    """The reader for a checkpoint with this config and tensors of these names.

    Raises `BadFileError` for keys, layouts and bits that llmctl does not read, `UsageError` for overrides.
    """
    refuse_unknown(config, _READ | _HARMLESS, _TITLE)
    settings = Settings.read(_TITLE, config, overrides, _OVERRIDABLE)
    _check_layout(settings)
    _check_values(settings)
    rules = Rules.read(settings)
    for values in rules.values():
        refuse_unknown(values, _READ | _HARMLESS, f"{_TITLE}, dynamic")
        _check_layout(settings.under(values))
        _check_values(settings.under(values))
    return GptqReader(settings, rules, tensors)


def _check_layout(settings: Settings) -> None:
    layout = settings.text("checkpoint_format", "gptq")
    if layout not in ("gptq", "gptq_v2"):
        raise settings.refusal("checkpoint_format", f"llmctl reads gptq and gptq_v2, not the layout {layout}")
    if settings.flag("is_marlin_format"):
        raise settings.refusal("is_marlin_format", "llmctl reads gptq and gptq_v2, not Marlin's layout")
    if settings.text("pack_dtype", "int32").removeprefix("torch.") != "int32":
        raise settings.refusal("pack_dtype", "only words of int32 are read")


def _check_values(settings: Settings) -> None:
    if settings.integer("bits") not in _BITS:
        raise settings.refusal("bits", f"GPTQ has {', '.join(map(str, _BITS))}")
    group_size = settings.integer("group_size")
    if group_size < 1 and group_size != -1:
        raise settings.refusal("group_size", "at least 1 is expected, or -1 for one group")
    for key in ("sym", "desc_act"):
        settings.flag(key)


class GptqReader:
    """Weights of one GPTQ checkpoint; what has packed parts is quantised, whatever the config lists."""

    gives_quantised = True

    def __init__(self, settings: Settings, rules: Rules, tensors: Collection[str]) -> None:
        self.title = _describe(settings, rules)
        self._settings, self._rules = settings, rules
        self._modules = {name.rpartition(".")[0] for name in tensors if name.endswith(_SIGNS)}
        self._has_warned = False
        _tell_of_unlisted(settings, self._modules)

    def part(self, tensor: str) -> Part | None:
        """What the tensor of that name belongs to; None for one that is dense."""
        module, _, role = tensor.rpartition(".")
        return Part(f"{module}.weight", role) if role in _ROLES and module in self._modules else None

    def decode(self, weight: str, parts: Mapping[str, Tensor], dtype: torch.dtype) -> QuantWeight | Tensor:
        """The weight [N, K] from qweight, qzeros, scales and, where it is stored, g_idx.

        Dense in `dtype` only where the groups are of several sizes. Raises `BadFileError` for parts that do
        not fit together or to the config, `UsageError` where they do not fit to an override.
        """
        need(weight, parts, _ROLES[:3])
        layer = Layer(weight, parts, self._rules.settings_of(weight, self._settings))
        layer.check_shapes()
        groups = layer.groups()
        if groups is not None:
            self._tell_of_order(layer)
        return layer.dense(groups, dtype) if layer.is_uneven else layer.quantised(groups)

    def _tell_of_order(self, layer: Layer) -> None:
        if layer.settings.flag("desc_act"):
            return
        if "desc_act" in layer.settings.chosen:
            raise layer.settings.disagreement(layer.name, "desc_act", "its g_idx is not in order")
        if not self._has_warned:
            log.warning("the config denies act-order, but %s has it: its g_idx is followed", layer.name)
            self._has_warned = True


def _describe(settings: Settings, rules: Rules) -> str:
    group_size = settings.integer("group_size")
    said = [
        "GPTQ v2" if settings.text("checkpoint_format", "gptq") == "gptq_v2" else _TITLE,
        f"{settings.integer('bits')} bits",
        "a scale for each row" if group_size == -1 else f"groups of {group_size}",
        "act-order" if settings.flag("desc_act") else "",
        "other settings for some modules" if any(rules.values()) else "",
    ]
    return ", ".join(filter(None, said))


def _tell_of_unlisted(settings: Settings, modules: Collection[str]) -> None:
    names = settings.names("modules_in_block_to_quantize")
    for module in sorted(modules):
        is_denied = settings.flag("lm_head") is False and module.endswith("lm_head")
        is_listed = not names or module.endswith("lm_head") or any(name in module for name in names)
        if is_denied or not is_listed:
            log.warning("%s is quantised, though the quantization_config says it is not", module)
