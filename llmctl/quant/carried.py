"""A quantised weight in the clothes of a tensor, so that transformers' weight conversion carries it.

Conversion renames weights, stacks those of experts and lays them side by side; a `Carried` goes through all
that without being dequantised. Any other operation gets the dense weight.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from llmctl.quant.weights import QuantWeight, join

log = logging.getLogger(__name__)


class Carried(Tensor):
    """A meta tensor of the weight's shape that holds the weight itself."""

    weight: QuantWeight

    @staticmethod
    def of(weight: QuantWeight, dtype: torch.dtype) -> "Carried":
        """`weight` as a tensor that claims to be of `dtype`."""
        carried: Carried = torch.empty(weight.shape, dtype=dtype, device="meta").as_subclass(Carried)
        carried.weight = weight
        return carried

    def dense(self) -> Tensor:
        """The weight dequantised."""
        return self.weight.dequantize(self.dtype)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Carry the weight through what conversion does to it, dequantise it for anything else."""
        kwargs = dict(kwargs or {})
        if getattr(func, "__name__", "") in _FACTS:
            return super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]
        handler = _HANDLERS.get(func)
        handled = handler(*args, **kwargs) if handler is not None else None
        if handled is not None:
            return handled
        log.warning("a quantised weight is made dense: nothing quantised goes through %s", func.__name__)
        return func(*_dense(args), **{key: _dense(value) for key, value in kwargs.items()})


# Looking at shape, type and place is no computation.
_FACTS = frozenset(
    {"__get__", "dim", "size", "numel", "is_floating_point", "is_complex", "__len__", "as_subclass"}
)


def _dense(value: Any) -> Any:
    if isinstance(value, Carried):
        return value.dense()
    if isinstance(value, list | tuple):
        return type(value)(_dense(each) for each in value)
    return value


def _to(carried: Carried, *args: Any, **kwargs: Any) -> Carried:
    device = kwargs.get("device") or next(
        (each for each in args if isinstance(each, str | int | torch.device)), None
    )
    if device is None or torch.device(device).type == "meta":
        return carried
    return Carried.of(carried.weight.to(torch.device(device)), carried.dtype)


def _same(carried: Carried, *args: Any, **kwargs: Any) -> Carried:
    return carried


def _join(tensors: Sequence[Tensor], dim: int = 0, *, is_new: bool) -> Carried | None:
    carried = [each for each in tensors if isinstance(each, Carried)]
    if len(carried) < len(tensors):
        return None
    joined = join([each.weight for each in carried], dim, is_new=is_new)
    return None if joined is None else Carried.of(joined, carried[0].dtype)


def _stack(tensors: Sequence[Tensor], dim: int = 0) -> Carried | None:
    return _join(tensors, dim, is_new=True)


def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Carried | None:
    return _join(tensors, dim, is_new=False)


_HANDLERS: Mapping[Any, Callable[..., Carried | None]] = {
    torch.Tensor.to: _to,
    torch.Tensor.contiguous: _same,
    torch.Tensor.detach: _same,
    torch.stack: _stack,
    torch.cat: _cat,
}
