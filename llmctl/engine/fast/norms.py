"""RMS norms of a model in one pass each, where that gives what the model's own class gives.

Which of the known formulas a class has is found by trial on the module itself, whatever its source is like.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn

from llmctl.engine.fast import elementwise
from llmctl.engine.fast.elementwise import Form

_EPS_NAMES = ("variance_epsilon", "eps")
_NUM_TRIAL_ROWS = 6
_MAX_UNEQUAL = 0.005
"""Of rounded results: sums that are added up in another order may end on the other side of a half."""
_MAX_STEP = 2.0**-7
_MAX_DISTANCE = 1e-5
"""Of results in float32, which differ by what is added up in another order."""


class FastNorm(nn.Module):
    """Mixed into a class of norms with one weight."""

    form: Form
    trial_eps: float
    weight: nn.Parameter

    def forward(self, x: Tensor, *args: Any, **options: Any) -> Tensor:
        """[..., N] to the same; by the class's own code where ours cannot."""
        weight = self.weight
        if args or options or x.dtype != weight.dtype or not elementwise.takes(x):
            own: Tensor = super().forward(x, *args, **options)
            return own
        return elementwise.rms_norm(x, weight, self.trial_eps, self.form)


def quicken(model: nn.Module) -> int:
    """Let all norms that are known compute by one function, in place; returns how many."""
    if elementwise.library() is None:
        return 0
    return sum(_adopt(module) for module in list(model.modules()))


def _adopt(module: nn.Module) -> bool:
    eps = next(
        (value for name in _EPS_NAMES if isinstance(value := getattr(module, name, None), float)), None
    )
    if eps is None or isinstance(module, FastNorm) or not _has_one_weight(module):
        return False
    form = _form(module, eps)
    if form is None:
        return False
    fast: Any = module
    fast.__class__ = _fast_class(type(module))  # type: ignore[arg-type]
    fast.form, fast.trial_eps = form, eps
    return True


def _has_one_weight(module: nn.Module) -> bool:
    own = dict(module.named_parameters())
    if "rmsnorm" not in type(module).__name__.lower() or list(own) != ["weight"] or list(module.buffers()):
        return False
    weight = own["weight"]
    return weight.dim() == 1 and weight.is_contiguous() and elementwise.takes_type(weight)


def _form(module: Any, eps: float) -> Form | None:
    """The formula by which the module computes; None for any other."""
    weight = module.weight.detach()
    generator = torch.Generator().manual_seed(0)
    # The smallest rows are those whose norm the epsilon decides.
    sizes = torch.logspace(-4, 2, _NUM_TRIAL_ROWS)[:, None]
    x = (torch.randn(_NUM_TRIAL_ROWS, len(weight), generator=generator) * sizes).to(weight.dtype)
    with torch.no_grad():
        try:
            wanted = module(x)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError):
            # It takes more than one tensor, or one of another shape.
            return None
        return next((form for form in elementwise.FORMS if _agrees(x, weight, eps, form, wanted)), None)


def _agrees(x: Tensor, weight: Tensor, eps: float, form: Form, wanted: Any) -> bool:
    if not isinstance(wanted, Tensor) or wanted.shape != x.shape or wanted.dtype != x.dtype:
        return False
    got = elementwise.rms_norm(x, weight, eps, form)
    largest = wanted.float().abs().clamp_min(torch.finfo(torch.float32).tiny)
    distance = (got.float() - wanted.float()).abs() / largest
    if x.dtype == torch.float32:
        return float(distance.max()) < _MAX_DISTANCE
    return float((got != wanted).float().mean()) < _MAX_UNEQUAL and float(distance.max()) <= _MAX_STEP


@functools.cache
def _fast_class(kind: type[Any]) -> type[Any]:
    """`FastNorm` before the model's own class, whose forward is then the slow way."""
    return type(f"Fast{kind.__name__}", (FastNorm, kind), {"__module__": kind.__module__})
