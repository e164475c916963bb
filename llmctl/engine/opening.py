"""From a loaded model to an engine that runs it: tier, memory for keys and values, blocks, handler."""

import logging
from dataclasses import dataclass
from typing import Any

import torch

from llmctl.core.errors import DoesNotFitError, UsageError
from llmctl.core.sizes import shown
from llmctl.engine import tiers
from llmctl.engine.engine import Engine
from llmctl.engine.execution import layout, storage
from llmctl.engine.execution.runner import Memory, Runner
from llmctl.engine.fast.own import quicken
from llmctl.engine.scheduling.blocks import BlockPool
from llmctl.engine.scheduling.limits import Limits
from llmctl.engine.scheduling.policy import most_blocks
from llmctl.engine.scheduling.scheduler import Scheduler
from llmctl.engine.tiers import Tier
from llmctl.loading import devices
from llmctl.loading.loader import LoadedModel

log = logging.getLogger(__name__)

_SHARE_OF_FREE = 0.8
"""Of the memory that is free beside the weights, for keys and values; the rest is for activations."""
_MAX_RUNNING = {"cpu": 32}
_MAX_RUNNING_ELSEWHERE = 128
_MAX_STEP_TOKENS = {"cpu": 512}
_MAX_STEP_TOKENS_ELSEWHERE = 2048
"""Prompts are cut in steps of so many tokens, so that those who write never wait for longer than one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What the user may choose; None: what suits the device."""

    context_length: int | None = None
    """Tokens of a sequence; None: the model's own."""
    kv_bytes: int | None = None
    """Memory for keys and values."""
    max_running: int | None = None
    """Sequences at a time."""
    max_waiting: int | None = None
    max_step_tokens: int | None = None
    block_size: int = 32
    caches_prefixes: bool = True
    quickens: bool = True
    """Whether the model may be changed for good: packed for the CPU, it cannot be saved any more."""

    def __post_init__(self) -> None:
        for name in ("context_length", "kv_bytes", "max_running", "max_step_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}", hint="give at least 1, or leave it out")


DEFAULT_OPTIONS = EngineOptions()


def open_engine(loaded: LoadedModel, options: EngineOptions = DEFAULT_OPTIONS) -> Engine:
    """The engine over `loaded`, whose model it owns until `Engine.release`.

    Raises `DoesNotFitError` where memory holds no sequence, `UsageError` for options that cannot be kept.
    """
    if options.quickens:
        quicken(loaded.model)
    model, context = loaded.model, options.context_length or loaded.context_length
    if context > loaded.context_length:
        raise UsageError(
            f"context_length is {context}, and {loaded.name} takes {loaded.context_length}", hint="give less"
        )
    tier = tiers.choose(model, context_length=context)
    limits = _limits(tier, options, context, model.device)
    memory, pool = _memory(model, tier, limits, options.kv_bytes)
    handler = layout.handler(model, tier.layout, memory.layers, limits.max_running)
    policies = [group.policy for group in tier.layout.groups]
    scheduler = Scheduler(limits, pool, policies)
    return Engine(loaded, scheduler, Runner(handler, memory, limits.max_running), tier=tier)


def _limits(tier: Tier, options: EngineOptions, context: int, device: torch.device) -> Limits:
    running = options.max_running or _MAX_RUNNING.get(device.type, _MAX_RUNNING_ELSEWHERE)
    tokens = options.max_step_tokens
    if tokens is None:
        tokens = max(running, _MAX_STEP_TOKENS.get(device.type, _MAX_STEP_TOKENS_ELSEWHERE))
    elif options.max_running is None:
        # Each of them must be able to decode.
        running = min(running, tokens)
    return Limits(
        max_length=context,
        max_step_tokens=tokens,
        max_running=min(running, tier.max_running or running),
        max_waiting=options.max_waiting,
        block_size=options.block_size,
        caches_prefixes=options.caches_prefixes and tier.has_prefixes,
        has_states=tier.letter != "A",
        whole_prefill=not tier.in_pieces,
    )


def _memory(model: Any, tier: Tier, limits: Limits, asked: int | None) -> tuple[Memory, BlockPool]:
    """Blocks for as many sequences as may run, each as long as it may be, or for as many as there is room."""
    kept, device, size = tier.layout, model.device, limits.block_size
    if not kept.groups:
        return Memory({}, 0, size, device), BlockPool([], 0)
    dtype = model.dtype
    sizes = [storage.block_bytes(group, kept.shapes, size, dtype) for group in kept.groups]
    step = limits.max_length if limits.whole_prefill else limits.max_step_tokens
    most = [
        most_blocks(group.policy, limits.max_length, step, size) * limits.max_running for group in kept.groups
    ]
    wanted = sum(count * each for count, each in zip(most, sizes, strict=True))
    budget = asked or min(wanted, _room(device, kept.state_bytes * limits.max_running))
    # On the CPU memory is taken when it is first written to, so groups may share what there is.
    is_shared = device.type == "cpu"
    counts = [
        min(count, budget // max(1, each) if is_shared else int(count * budget / max(1, wanted)))
        for count, each in zip(most, sizes, strict=True)
    ]
    if budget < sum(sizes):
        raise DoesNotFitError(
            f"{shown(budget)} for keys and values hold no {size} tokens, which take {shown(sum(sizes))}",
            hint="allow more",
        )
    log.info(
        "keys and values: up to %s for %s tokens; %d sequences at a time, %d tokens a step",
        shown(budget),
        f"{max(counts) * size:,}",
        limits.max_running,
        limits.max_step_tokens,
    )
    layers = storage.allocate(kept.groups, kept.shapes, counts, size, dtype, device)
    return Memory(layers, len(kept.groups), size, device), BlockPool(sizes, budget, counts)


def _room(device: torch.device, state_bytes: int) -> int:
    """Bytes for keys and values beside the states of all who may run."""
    name = str(device) if device.index is not None else device.type
    places = {each.place: each for each in devices.available()}
    found = places.get(name) or next(each for each in places.values() if each.kind == device.type)
    room = int(found.free_bytes * _SHARE_OF_FREE) - state_bytes
    if room <= 0:
        raise DoesNotFitError(
            f"{name} has {shown(found.free_bytes)} left, and a conversation needs some",
            hint="close other programs, or load the model in fewer bits: --load-8bit, --load-4bit",
        )
    return room
