"""Reads AWQ checkpoints in the "gemm" layout (AutoAWQ, GPTQModel): 4 bits, groups along the input.

    W[n, k] = (q[k, n] - zero[k // g, n]) * scale[k // g, n]

Layouts of other kernels are refused.
"""

import logging
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from llmctl.quant.formats.base import Part, Reader, bad, need, refuse_unknown
from llmctl.quant.formats.packing import unpack_fields
from llmctl.quant.formats.settings import Rules, Settings
from llmctl.quant.weights import SYMMETRIC_ZERO, IntWeight, QuantWeight, pack4

log = logging.getLogger(__name__)

_TITLE = "AWQ"
_BITS = 4
_PER_WORD = 8
# Column c of a word lies in the field _FIELD_OF[c]: AWQ's kernels unpack the even columns first.
_FIELD_OF = (0, 4, 1, 5, 2, 6, 3, 7)
_ROLES = ("qweight", "qzeros", "scales")
# A module is quantised when one of them is there.
_SIGNS = (".qweight", ".qzeros")
_OVERRIDABLE = ("bits", "group_size", "zero_point")
_READ = {
    *("bits", "wbits", "w_bit", "group_size", "groupsize", "q_group_size", "zero_point", "sym", "version"),
    *("checkpoint_format", "format", "quant_method", "method", "pack_dtype", "modules_to_not_convert"),
    *("desc_act", "act_order", "dynamic"),
}
# How the scales were found and what kernels the publisher liked: no number depends on it.
_HARMLESS = {
    *(
        "backend",
        "damp_percent",
        "do_fuse",
        "exllama_config",
        "fuse_max_seq_len",
        "lm_head",
        "meta",
        "modules_to_fuse",
    ),
    *("model_name_or_path", "offload_to_disk", "pack_impl", "true_sequential"),
}


def reader(config: Mapping[str, Any], tensors: Collection[str], overrides: Mapping[str, Any]) -> Reader:
    """The reader for a checkpoint with this config and tensors of these names.

    Raises `BadFileError` for keys, layouts and bits that llmctl does not read, `UsageError` for overrides.
    """
    refuse_unknown(config, _READ | _HARMLESS, _TITLE)
    settings = Settings.read(_TITLE, config, overrides, _OVERRIDABLE)
    for key in ("version", "checkpoint_format"):
        if (layout := settings.text(key, "gemm")) != "gemm":
            raise settings.refusal(key, f"llmctl reads gemm, not the layout {layout}")
    if settings.text("pack_dtype", "int32").removeprefix("torch.") != "int32":
        raise settings.refusal("pack_dtype", "only words of int32 are read")
    _check_values(settings)
    rules = Rules.read(settings)
    for values in rules.values():
        refuse_unknown(values, _READ | _HARMLESS, f"{_TITLE}, dynamic")
        _check_values(settings.under(values))
    return AwqReader(settings, rules, tensors)


def _check_values(settings: Settings) -> None:
    if settings.integer("bits") != _BITS:
        raise settings.refusal("bits", "AWQ has 4")
    group_size = settings.integer("group_size")
    if group_size < 1 and group_size != -1:
        raise settings.refusal("group_size", "at least 1 is expected, or -1 for one group")
    if settings.flag("desc_act"):
        raise settings.refusal("desc_act", "AWQ has no act-order")


class AwqReader:
    """Weights of one AWQ checkpoint; what has packed parts is quantised, whatever the config lists."""

    gives_quantised = True

    def __init__(self, settings: Settings, rules: Rules, tensors: Collection[str]) -> None:
        group_size = settings.integer("group_size")
        each = "a scale for each row" if group_size == -1 else f"groups of {group_size}"
        self.title = f"{_TITLE}, {_BITS} bits, {each}"
        self._settings, self._rules = settings, rules
        self._modules = {name.rpartition(".")[0] for name in tensors if name.endswith(_SIGNS)}
        excluded = settings.names("modules_to_not_convert")
        for module in sorted(self._modules):
            if any(name in module for name in excluded):
                log.warning("%s is quantised, though the quantization_config says it is not", module)

    def part(self, tensor: str) -> Part | None:
        """What the tensor of that name belongs to; None for one that is dense."""
        module, _, role = tensor.rpartition(".")
        return Part(f"{module}.weight", role) if role in _ROLES and module in self._modules else None

    def decode(self, weight: str, parts: Mapping[str, Tensor], dtype: torch.dtype) -> QuantWeight:
        """The weight [N, K] from qweight [K, N / 8], qzeros [G, N / 8] and scales [G, N].

        Raises `BadFileError` for parts that do not fit together or to the config, `UsageError` where they do
        not fit to an override.
        """
        need(weight, parts, _ROLES)
        settings = self._rules.settings_of(weight, self._settings)
        _check_shapes(weight, parts, settings)
        zeros = _columns(parts["qzeros"])
        is_symmetric = _is_symmetric(weight, zeros, settings)
        return IntWeight(
            bits=_BITS,
            values=_transposed(parts["qweight"]),
            scale=parts["scales"].t().float().contiguous(),
            zero=None if is_symmetric else zeros.t().to(torch.int16).contiguous(),
        )


def _check_shapes(weight: str, parts: Mapping[str, Tensor], settings: Settings) -> None:
    qweight, qzeros, scales = (parts[role] for role in _ROLES)
    if qweight.dtype != torch.int32 or qzeros.dtype != torch.int32 or not scales.is_floating_point():
        raise bad(weight, "its parts are not of the types int32, int32 and float")
    shapes = [tuple(part.shape) for part in (qweight, qzeros, scales)]
    if any(len(shape) != 2 or 0 in shape for shape in shapes):
        raise bad(weight, f"qweight, qzeros and scales have the shapes {', '.join(map(str, shapes))}")
    (num_columns, num_words), num_groups = shapes[0], shapes[2][0]
    if shapes[1] != (num_groups, num_words):
        raise bad(weight, f"its qzeros are {shapes[1]}, ({num_groups}, {num_words}) expected")
    if shapes[2][1] != num_words * _PER_WORD:
        found = num_words * 32 / shapes[2][1]
        raise settings.disagreement(weight, "bits", f"its qweight has {found:g} bits a number")
    given = settings.integer("group_size")
    if num_columns != num_groups * (num_columns if given == -1 else given):
        found_groups = f"it has {num_groups} groups for {num_columns} inputs"
        raise settings.disagreement(weight, "group_size", found_groups)
    if num_columns % 2:
        raise bad(weight, f"it has {num_columns} inputs, an odd number")


def _is_symmetric(weight: str, zeros: Tensor, settings: Settings) -> bool:
    """Whether the config denies zero points; raises where there are some all the same."""
    key = "sym" if settings.flag("zero_point") is None else "zero_point"
    said = settings.flag(key)
    if said is None or said is (key == "zero_point"):
        return False
    if not bool((zeros == SYMMETRIC_ZERO[_BITS]).all()):
        raise settings.disagreement(weight, key, f"its zero points are not all {SYMMETRIC_ZERO[_BITS]}")
    return True


def _columns(words: Tensor) -> Tensor:
    """Words int32 [R, W] as the numbers of their columns in order: uint8 [R, 8 W]."""
    fields = unpack_fields(words, _BITS).view(*words.shape, _PER_WORD)
    return torch.stack([fields[..., field] for field in _FIELD_OF], -1).flatten(-2)


def _transposed(words: Tensor) -> Tensor:
    """Words int32 [K, N / 8] as `pack4` has the numbers of [N, K]: uint8 [N, K / 2]."""
    num_columns, num_words = words.shape
    # Two fields to a byte, [N / 8, K, 4]: each is read where it lies, nothing is unpacked as a whole.
    octets = words.t().contiguous().view(torch.uint8).view(num_words, num_columns, -1)
    packed = torch.empty(num_words, _PER_WORD, num_columns // 2, dtype=torch.uint8)
    for column, field in enumerate(_FIELD_OF):
        octet, half = divmod(field, 2)
        packed[:, column] = pack4(octets[..., octet] >> half * _BITS & 15)
    return packed.flatten(0, 1)
