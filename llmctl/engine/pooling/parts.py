"""What sentence-transformers puts behind pooling: dense layers, layer norms, normalising. In float32."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from llmctl.core.errors import BadFileError
from llmctl.loading import contents
from llmctl.loading.facts.pooling import Part
from llmctl.loading.reading import stored_tensors

_ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "Identity": nn.Identity,
    "Tanh": nn.Tanh,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
    "SiLU": nn.SiLU,
    "Sigmoid": nn.Sigmoid,
}


class Normalise(nn.Module):
    """Makes vectors [n, d] of length 1."""

    def forward(self, vectors: Tensor) -> Tensor:
        """[n, d] to [n, d]."""
        return nn.functional.normalize(vectors, dim=-1)


def build(parts: Sequence[Part]) -> nn.Sequential:
    """The parts in order, with their weights. Raises `BadFileError` for what is missing or unknown."""
    return nn.Sequential(*(_BUILDERS[part.kind](part) for part in parts)).eval().requires_grad_(False)


def _dense(part: Part) -> nn.Module:
    tensors = _tensors(part)
    weight, bias = _tensor(part, tensors, "linear.weight"), tensors.get("linear.bias")
    if weight.dim() != 2 or (bias is not None and bias.shape != weight.shape[:1]):
        raise BadFileError(f"the dense layer in {part.folder} has weights that do not fit together")
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.load_state_dict({"weight": weight, **({} if bias is None else {"bias": bias})})
    name = str(part.settings.get("activation_function", "Tanh")).rpartition(".")[2]
    if name not in _ACTIVATIONS:
        raise BadFileError(
            f"the dense layer in {part.folder} has the activation {name!r}; "
            f"llmctl knows {', '.join(_ACTIVATIONS)}"
        )
    return nn.Sequential(linear, _ACTIVATIONS[name]())


def _layer_norm(part: Part) -> nn.Module:
    tensors = _tensors(part)
    weight, bias = _tensor(part, tensors, "norm.weight"), _tensor(part, tensors, "norm.bias")
    norm = nn.LayerNorm(len(weight))
    norm.load_state_dict({"weight": weight, "bias": bias})
    return norm


def _normalise(part: Part) -> nn.Module:
    del part
    return Normalise()


_BUILDERS: Mapping[str, Callable[[Part], nn.Module]] = {
    "dense": _dense,
    "layer_norm": _layer_norm,
    "normalise": _normalise,
}


def _tensors(part: Part) -> dict[str, Tensor]:
    assert part.folder is not None
    file = part.folder / contents.SINGLE_FILE
    if not file.exists():
        raise BadFileError(
            f"{file} is missing",
            hint="download the model again; llmctl reads safetensors and no pickle files",
        )
    return {name: stored[...].to(torch.float32) for name, stored in stored_tensors((file,), _ignore).items()}


def _ignore(num_bytes: int) -> None:
    """Nobody waits for so few bytes."""


def _tensor(part: Part, tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise BadFileError(f"{part.folder} has no {name}")
    return tensors[name]
