"""Takes the attention of an unmodified transformers model in hand: one function in `AttentionInterface`.

Masks are never built, for the function is in no mask registry; whoever listens attends instead. What is
done with queries, keys and values is the business of `handler`, `recurrent` and `probe`.
"""

import inspect
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from llmctl.engine.attention.interface import Scoring
from llmctl.engine.generate.stepper import CACHE_NAMES

NAME = "llmctl"
"""Of the attention function, and so the `_attn_implementation` of a driven model."""
STEP_ARGUMENT = "llmctl_step"
"""The forward argument that carries the listener to the attention of classes that hand arguments on."""


class UndrivableError(Exception):
    """The class of the model does something that packed rows cannot follow; its text says what."""


@dataclass(frozen=True, slots=True)
class AttentionCall:
    """What a layer of the model wants attended: T rows, whatever their batch was."""

    module: nn.Module
    q: Tensor
    """[Hq, T, D]."""
    k: Tensor
    """[Hk, T, D]."""
    v: Tensor
    """[Hk, T, Dv]."""
    scoring: Scoring


class Listener(Protocol):
    """Attends for a model while it runs."""

    def attend(self, call: AttentionCall) -> Tensor:
        """[T, Hq, Dv]."""


_listening: ContextVar[Listener | None] = ContextVar("llmctl_listening", default=None)


class Driven:
    """A model whose attention goes to a listener, until it is released. One at a time for one model."""

    def __init__(self, model: Any) -> None:
        import transformers

        self.model = model
        self.accepted = inspect.signature(model.forward).parameters
        self.cache_name = next((name for name in CACHE_NAMES if name in self.accepted), None)
        """Of the forward argument for what the model keeps."""
        kinds = {parameter.kind for parameter in self.accepted.values()}
        self._hands_on = inspect.Parameter.VAR_KEYWORD in kinds
        transformers.AttentionInterface.register(NAME, _attention)
        self._before = [(config, config._attn_implementation) for config in _configs(model)]  # noqa: SLF001
        for config, _ in self._before:
            config._attn_implementation = NAME  # noqa: SLF001
        self.temperatures = _temperatures(model)
        """Of the attention modules that know no positions but those from 0 on."""

    def __call__(self, listener: Listener, *, model: Any = None, **inputs: Any) -> Any:
        """Run the forward with `listener` attending; `model` may be a part of the model, such as its base."""
        token = _listening.set(listener)
        carried = {STEP_ARGUMENT: listener} if self._hands_on else {}
        try:
            with torch.no_grad():
                return (model or self.model)(**inputs, **carried, return_dict=True)
        finally:
            _listening.reset(token)

    def rows(self, rows: Tensor) -> dict[str, Tensor]:
        """The argument that keeps the head to these rows, where the class has one."""
        return {"logits_to_keep": rows} if self.has_head_rows else {}

    @property
    def has_head_rows(self) -> bool:
        """Whether the class can keep the head to some rows."""
        return "logits_to_keep" in self.accepted

    def release(self) -> None:
        """Leave the model as it was."""
        for config, implementation in self._before:
            config._attn_implementation = implementation  # noqa: SLF001
        for module in self.temperatures:
            module.attn_temperature_tuning = True
        self.temperatures = {}


@dataclass(frozen=True, slots=True)
class Temperature:
    """Llama 4's layers without rotary positions: queries grow with the logarithm of their position.

    Its code counts positions from 0 in whatever row it is given, which is wrong in a packed one.
    """

    scale: float
    floor: float

    def of(self, positions: Tensor) -> Tensor:
        """Factors float32 [T, 1] for queries at `positions` [T]."""
        steps = torch.floor((positions.float() + 1.0) / self.floor)
        return (torch.log1p(steps) * self.scale + 1.0)[:, None]


@dataclass(slots=True)
class Recorder:
    """A listener that notes every call and lets nothing through."""

    calls: list[AttentionCall] = field(default_factory=list)

    def attend(self, call: AttentionCall) -> Tensor:
        """Zeros of the right shape."""
        self.calls.append(call)
        return call.q.new_zeros(call.q.shape[1], call.q.shape[0], call.v.shape[-1])


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """What transformers calls: query [B, Hq, t, D] and so on to [B, t, Hq, Dv]."""
    listener: Listener | None = options.get(STEP_ARGUMENT) or _listening.get()
    name = type(module).__name__
    if listener is None:
        raise UndrivableError(f"{name} attends outside of a step")
    if attention_mask is not None:
        raise UndrivableError(f"{name} makes an attention mask of its own")
    if options.get("is_causal") is False or getattr(module, "is_causal", True) is False:
        raise UndrivableError(f"{name} looks ahead")
    scale = options.get("scaling")
    scoring = Scoring(
        scale=query.shape[-1] ** -0.5 if scale is None else float(scale),
        softcap=options.get("softcap"),
        sinks=options.get("s_aux"),
    )
    call = AttentionCall(module, _packed(query), _packed(key), _packed(value), scoring)
    attended = listener.attend(call)
    return attended.view(query.shape[0], query.shape[2], *attended.shape[1:]), None


def _packed(heads: Tensor) -> Tensor:
    return heads.transpose(0, 1).flatten(1, 2)


def _configs(model: Any) -> list[Any]:
    """Every configuration that some module of the model reads, once."""
    found = {id(config): config for module in model.modules() for config in _configs_of(module)}
    return list(found.values())


def _configs_of(module: nn.Module) -> list[Any]:
    config = getattr(module, "config", None)
    return [config] if hasattr(config, "_attn_implementation") else []


def _temperatures(model: Any) -> Mapping[Any, Temperature]:
    """Take the temperature from the modules that count positions by themselves; the listener applies it."""
    found = {}
    for module in model.modules():
        if getattr(module, "attn_temperature_tuning", False) and not getattr(module, "use_rope", True):
            found[module] = Temperature(float(module.attn_scale), float(module.floor_scale))
            module.attn_temperature_tuning = False
    return found
