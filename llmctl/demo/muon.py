"""Muon: momentum whose steps are made orthogonal, for the weight matrices of a small model, in float32."""

from __future__ import annotations

from collections.abc import Iterable

import torch

_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonal(steps: torch.Tensor, rounds: int = 5) -> torch.Tensor:
    """The nearest semi-orthogonal matrices to a stack of matrices (Newton-Schulz iteration)."""
    tall = steps.size(-2) > steps.size(-1)
    x: torch.Tensor = steps.mT if tall else steps
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.mT if tall else x


class Muon:
    """The optimiser; parameters of one shape are stacked so that they take one set of products."""

    def __init__(
        self, params: Iterable[torch.nn.Parameter], momentum: float = 0.95, decay: float = 0.02
    ) -> None:
        """Group the matrices by shape."""
        shapes: dict[torch.Size, list[torch.nn.Parameter]] = {}
        for param in params:
            shapes.setdefault(param.shape, []).append(param)
        self._groups = [(group, torch.zeros(len(group), *shape)) for shape, group in shapes.items()]
        self._momentum, self._decay = momentum, decay

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move every matrix by one orthogonal step and forget its gradient."""
        for group, buffer in self._groups:
            grads = torch.stack([param.grad for param in group if param.grad is not None])
            buffer.lerp_(grads, 1 - self._momentum)
            steps = orthogonal(grads.lerp(buffer, self._momentum))
            scale = max(1.0, steps.size(-2) / steps.size(-1)) ** 0.5
            for param, step in zip(group, steps, strict=True):
                param.mul_(1 - rate * self._decay).add_(step, alpha=-rate * scale)
                param.grad = None
