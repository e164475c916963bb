"""llmctl's own quantisation as transformers' loader sees it: each converted weight is packed as it arrives.

transformers keeps doing what it does for every model (conversion of weights, ties, buffers, device maps); the
modules of `quant.prepare` take the weights that the selection names.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.core_model_loading import ConversionOps
from transformers.pytorch_utils import Conv1D
from transformers.quantizers import HfQuantizer
from transformers.quantizers.auto import (
    AUTO_QUANTIZER_MAPPING,
    register_quantization_config,
    register_quantizer,
)
from transformers.utils.quantization_config import QuantizationConfigMixin

from llmctl.core.errors import BadFileError
from llmctl.quant import prepare
from llmctl.quant.activations import Memo
from llmctl.quant.carried import Carried
from llmctl.quant.methods import METHODS
from llmctl.quant.select import Selection

_METHOD = "llmctl"
_WIDER_TYPES = {"float16": "take --dtype bfloat16 or float32", "bfloat16": "take --dtype float32"}


class LlmctlConfig(QuantizationConfigMixin):  # type: ignore[misc]
    """Carries what to quantise, and how, through `from_pretrained`."""

    def __init__(
        self,
        select: Callable[[Any], Selection] | None = None,
        *,
        consumes: bool = False,
        is_packed: bool = False,
        **kwargs: Any,
    ) -> None:
        self.quant_method = _METHOD
        self.select = select
        """From the model on meta to what becomes of its modules."""
        self.is_packed = is_packed
        """Whether the checkpoint is quantised already."""
        self.consumes = consumes
        """Whether the tensors that are loaded are nobody else's, and may be freed when they are packed."""
        self.selection: Selection | None = None
        self.error: Exception | None = None
        """The first error of packing; transformers only counts them."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "LlmctlConfig":
        # transformers copies the config, and the caller wants to know what became of it.
        return self

    @property
    def has_transposed(self) -> bool:
        """Whether modules of the model keep their weights as [K, N]; known once the model is made."""
        places = self.selection.places.values() if self.selection is not None else ()
        return any(place.kind == "conv1d" for place in places)

    def to_dict(self) -> dict[str, Any]:
        """Nothing that could be saved."""
        return {"quant_method": self.quant_method}


class LlmctlQuantizer(HfQuantizer):  # type: ignore[misc]
    """Swaps modules before the weights come, packs each weight as it comes."""

    def __init__(self, quantization_config: LlmctlConfig, **kwargs: Any) -> None:
        # "Not yet quantised": then transformers reads weight by weight instead of far ahead.
        super().__init__(quantization_config, pre_quantized=False)
        self.dtype = torch.float32
        self.memo = Memo()
        self.names: frozenset[str] = frozenset()

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> None:
        config, self.dtype = self.quantization_config, kwargs.get("dtype") or model.dtype
        config.selection = config.select(model)
        self.names = prepare.prepare(model, config.selection)

    def param_needs_quantization(self, model: Any, param_name: str, **kwargs: Any) -> bool:
        """Whether a module of ours waits for that weight."""
        # A packed weight may belong to a module that needs a dense one: `_Fill` makes it so.
        return param_name in self.names or self.quantization_config.is_packed

    def param_element_size(self, model: Any, param_name: str, param: Tensor) -> float:
        """Bytes of one number, for whoever spreads the model over devices."""
        place = self.quantization_config.selection.places.get(param_name.rpartition(".")[0])
        method = place.method if place is not None and param_name in self.names else None
        return METHODS[method].bits_per_weight / 8 if method else float(param.element_size())

    def get_quantize_ops(self) -> ConversionOps:
        """What takes the weights that are waited for."""
        return _Fill(self)

    def is_serializable(self) -> bool:
        """Packed weights are for this machine only."""
        return False

    @property
    def is_trainable(self) -> bool:
        """Kernels have no gradient."""
        return False


class _Fill(ConversionOps):  # type: ignore[misc]
    """Hands converted weights to the modules that wait for them; nothing is left for transformers to set."""

    def __init__(self, quantizer: LlmctlQuantizer) -> None:
        self.quantizer = quantizer

    def convert(self, input_dict: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Fill what waits for these weights; returns the others."""
        left, missing = {}, kwargs.get("missing_keys") or set()
        for name, given in input_dict.items():
            tensor: Tensor = given[0] if isinstance(given, list) else given
            if name not in self.quantizer.names:
                left[name] = self._dense(kwargs["model"], name, tensor)
            else:
                missing -= self._fill(kwargs["model"], name, tensor)
        return left

    def _dense(self, model: Any, name: str, tensor: Tensor) -> Tensor:
        place, _, own = name.rpartition(".")
        module = model.get_submodule(place)
        dense = tensor
        if isinstance(tensor, Carried):
            # Packed weights are [N, K]; Conv1D has [K, N].
            dense = tensor.dense().T.contiguous() if type(module) is Conv1D else tensor.dense()
        # transformers leaves shapes to whoever quantises.
        wanted = tuple(getattr(module, own).shape)
        if tuple(dense.shape) != wanted:
            config = self.quantizer.quantization_config
            config.error = config.error or ValueError(
                f"{name} has the shape {list(dense.shape)}, the model needs {list(wanted)}"
            )
            raise config.error
        return dense

    def _fill(self, model: Any, name: str, tensor: Tensor) -> frozenset[str]:
        weight = tensor.weight if isinstance(tensor, Carried) else tensor
        own, config = self.quantizer, self.quantizer.quantization_config
        try:
            return prepare.fill(model, name, weight, dtype=own.dtype, memo=own.memo, consumes=config.consumes)
        except (ValueError, RuntimeError) as error:
            # What was read is finite: only the model's type can have made it infinite.
            is_overflow = isinstance(weight, Tensor) and bool(weight.isinf().any())
            config.error = config.error or (too_large(name, tensor.dtype) if is_overflow else error)
            raise


def too_large(name: str, dtype: torch.dtype) -> BadFileError:
    """The refusal of a weight whose finite numbers are infinite in `dtype`."""
    narrow = str(dtype).removeprefix("torch.")
    return BadFileError(
        f"{name} holds numbers that are too large for {narrow}",
        hint=_WIDER_TYPES.get(narrow, "no model computes with such numbers: the publisher's file is broken"),
    )


def register() -> None:
    """Make transformers know this quantisation; more than once does no harm."""
    if _METHOD not in AUTO_QUANTIZER_MAPPING:
        register_quantization_config(_METHOD)(LlmctlConfig)
        register_quantizer(_METHOD)(LlmctlQuantizer)


def forget(model: Any) -> None:
    """Take the traces of loading off the model, by which transformers would refuse `.to(dtype)`."""
    model.hf_quantizer.remove_quantization_config(model)
