"""Runs models with recurrent layers over many sequences: tier B. Their states lie in slots, one a sequence.

Prompts go through the model one by one, for a state must not leak from one sequence into the next in a row;
sequences that write one token go together, as a batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import LinearAttentionCacheLayerMixin

from llmctl.engine.attention.interface import Backend, KVLayer
from llmctl.engine.execution.drive import AttentionCall, Driven, Listener, Recorder, UndrivableError
from llmctl.engine.execution.handler import Attending, shape_of
from llmctl.engine.execution.step import GroupTables, Span, Step
from llmctl.engine.execution.storage import KVShape

_CONV, _RECURRENT = "conv_states", "recurrent_states"
_STARTED = {_CONV: "is_conv_states_initialized", _RECURRENT: "is_recurrent_states_initialized"}
Key = tuple[int, str, int]
"""Layer, which of its states, number of it."""


class StateCache(DynamicCache):  # type: ignore[misc]
    """What a model takes for its cache: recurrent states of the sequences of one call, and no keys or values.

    Models ask it how much it holds; that is what the engine's blocks and slots hold of the sequences.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config=config)
        self.num_before = 0
        """Tokens that the sequences of this call have behind them, at least."""
        self.attending: int | None = None
        """Number of the layer that stored keys last: the one that attends next."""

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Hand back the new tokens' own keys and values."""
        self.attending = layer_idx
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Whatever the layer."""
        return self.num_before

    def begin(self, num_before: int) -> None:
        """Forget all states."""
        self.num_before, self.attending = num_before, None
        for _, layer in self._recurrent():
            for number in range(layer.number_of_states):
                layer.conv_states[number] = layer.recurrent_states[number] = None
                layer.is_conv_states_initialized[number] = layer.is_recurrent_states_initialized[number] = (
                    False
                )
                layer.has_previous_state[number] = False

    def states(self) -> Iterator[tuple[Key, Tensor]]:
        """All states [B, ...] after a call."""
        for index, layer in self._recurrent():
            for name in (_CONV, _RECURRENT):
                for number, state in getattr(layer, name).items():
                    if state is not None:
                        yield (index, name, number), state

    def put(self, key: Key, state: Tensor) -> None:
        """Go on from `state` [B, ...], which the model may write into."""
        index, name, number = key
        layer = self.layers[index]
        getattr(layer, name)[number] = state
        getattr(layer, _STARTED[name])[number] = True
        layer.has_previous_state[number] = True
        layer.device, layer.dtype = state.device, state.dtype
        if name == _CONV:
            layer.conv_kernel_size[number] = state.shape[-1]

    def _recurrent(self) -> Iterator[tuple[int, Any]]:
        for index, layer in enumerate(self.layers):
            if isinstance(layer, LinearAttentionCacheLayerMixin):
                yield index, layer


class StateStore:
    """The states of all sequences, by slot."""

    def __init__(self, num_slots: int) -> None:
        self._num_slots = num_slots
        self._kept: dict[Key, Tensor] = {}

    def save(self, cache: StateCache, slots: Tensor) -> None:
        """Keep what the call left, row by row, in `slots` [B]."""
        for key, state in cache.states():
            if key not in self._kept:
                self._kept[key] = state.new_zeros(self._num_slots, *state.shape[1:])
            self._kept[key].index_copy_(0, slots, state)

    def load(self, cache: StateCache, slots: Tensor) -> None:
        """Let the rows of the next call go on from `slots` [B]."""
        for key, kept in self._kept.items():
            cache.put(key, kept.index_select(0, slots))

    def copy(self, source: int, target: int) -> None:
        """Let two slots hold the same."""
        for kept in self._kept.values():
            kept[target] = kept[source]


@dataclass(frozen=True, slots=True)
class _AttendingNext:
    """A listener that knows from the cache which layer attends: some modules serve several layers."""

    attending: Attending
    cache: StateCache

    def attend(self, call: AttentionCall) -> Tensor:
        """See `Listener.attend`."""
        if self.cache.attending is None:
            raise UndrivableError(f"{type(call.module).__name__} stores no keys before it attends")
        return self.attending.attend_as(self.cache.attending, call)


class RecurrentHandler:
    """Tier B; see `handler.StepHandler`. A span that starts at 0 forgets what its slot held."""

    def __init__(self, model: Any, backend: Backend, layers: Mapping[int, KVLayer], num_slots: int) -> None:
        """`layers` by number of the layer. Raises `UndrivableError`."""
        self._runner = _Runner(model)
        self._backend, self._layers = backend, layers
        self._store = StateStore(num_slots)

    def forward(self, step: Step) -> Tensor:
        """See `StepHandler.forward`."""
        assert step.states is not None
        rows = step.wanted.tolist()
        found: dict[int, Tensor] = {}
        for part in _parts(step):
            wanted = [row for row in rows if part.holds(row)]
            logits = self._run(part, [part.places[row] for row in wanted])
            found.update(zip(wanted, logits, strict=True))
        if not found:
            return torch.empty(0, 0, device=step.ids.device)
        return torch.stack([found[row] for row in rows])

    def copy_state(self, source: int, target: int) -> None:
        """See `StepHandler.copy_state`."""
        self._store.copy(source, target)

    def release(self) -> None:
        """See `StepHandler.release`."""
        self._runner.driven.release()

    def _run(self, part: "_Part", wanted: Sequence[int]) -> Tensor:
        cache, step = self._runner.cache, part.step
        assert step.states is not None
        cache.begin(min(span.start for span in step.spans))
        if cache.num_before:
            self._store.load(cache, step.states)
        attending = Attending(self._runner.driven, self._backend, self._layers, {}, step)
        logits = self._runner(_AttendingNext(attending, cache), step, wanted)
        self._store.save(cache, step.states)
        return logits


@dataclass(frozen=True, slots=True)
class _Part:
    """Some sequences of a step, which go through the model in one call."""

    step: Step
    places: Mapping[int, int]
    """Rows of the whole step: those of this one."""

    def holds(self, row: int) -> bool:
        """Whether a row of the whole step is here."""
        return row in self.places


def _parts(step: Step) -> Iterator[_Part]:
    """Each sequence that begins or writes several tokens by itself, then all others."""
    singles = [number for number, span in enumerate(step.spans) if span.count == 1 and span.start > 0]
    for number in range(len(step.spans)):
        if number not in singles:
            yield _part(step, [number])
    if singles:
        yield _part(step, singles)


def _part(step: Step, numbers: Sequence[int]) -> _Part:
    """The sequences `numbers` of `step`, packed in its way."""
    assert step.states is not None
    if len(numbers) == len(step.spans):
        return _Part(step, {row: row for row in range(step.ids.shape[1])})
    old = [row for n in numbers for row in range(step.spans[n].row, step.spans[n].row + step.spans[n].count)]
    spans, row = [], 0
    for number in numbers:
        spans.append(Span(row=row, count=step.spans[number].count, start=step.spans[number].start))
        row += step.spans[number].count
    device = step.ids.device
    rows, which = torch.tensor(old, device=device), torch.tensor(numbers, device=device)
    meta = step.meta[which]
    meta[:, 0] = torch.tensor([span.row for span in spans], device=device)
    picked = replace(
        step,
        ids=step.ids[:, rows],
        positions=step.positions[:, rows],
        spans=spans,
        meta=meta,
        groups=[GroupTables(tables=each.tables[which], slots=each.slots[rows]) for each in step.groups],
        states=step.states[which],
    )
    return _Part(picked, {row: place for place, row in enumerate(old)})


class _Runner:
    """The model with a cache of ours."""

    def __init__(self, model: Any) -> None:
        self.driven = Driven(model)
        if self.driven.cache_name is None:
            raise UndrivableError(f"{type(model).__name__} takes no cache")
        self.cache = StateCache(model.config)

    def __call__(self, listener: Listener, step: Step, wanted: Sequence[int]) -> Tensor:
        """Logits [m, V] of the rows `wanted`; sequences of one token are a batch, else there is but one."""
        shape = (len(step.spans), -1)
        is_batch = len(step.spans) > 1
        rows = torch.tensor(wanted, dtype=torch.long, device=step.ids.device)
        # A batch has one row in each of its sequences: the head cannot pick among them, and no rows are all.
        head = {} if is_batch or not wanted else self.driven.rows(rows)
        inputs = {"input_ids": step.ids.view(shape), **head}
        if "position_ids" in self.driven.accepted:
            inputs["position_ids"] = step.positions.view(shape)
        assert self.driven.cache_name is not None
        output = self.driven(listener, **inputs, **{self.driven.cache_name: self.cache}, use_cache=True)
        logits: Tensor = output.logits.flatten(0, 1)
        return logits if head else logits[rows]


@dataclass(frozen=True, slots=True)
class Kept:
    """What a model with recurrent layers keeps."""

    shapes: Mapping[int, KVShape]
    """Of one token, by number of the attention layer."""
    state_bytes: int
    """Of one sequence, however long."""


@dataclass(frozen=True, slots=True)
class _Noting:
    """A recorder that notes which layer calls."""

    recorder: Recorder
    cache: StateCache
    numbers: list[int]

    def attend(self, call: AttentionCall) -> Tensor:
        """See `Listener.attend`."""
        if self.cache.attending is None:
            raise UndrivableError(f"{type(call.module).__name__} stores no keys before it attends")
        self.numbers.append(self.cache.attending)
        return self.recorder.attend(call)


def kept(model: Any) -> Kept:
    """What `model` keeps, found by running one token through it. Raises `UndrivableError`."""
    runner = _Runner(model)
    noting = _Noting(Recorder(), runner.cache, [])
    one = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    try:
        step = Step(
            ids=one,
            positions=one,
            spans=[Span(row=0, count=1, start=0)],
            meta=torch.tensor([[0, 1, 0]], device=model.device),
            groups=[],
            block_size=1,
            wanted=one[0],
        )
        runner(noting, step, [0])
    finally:
        runner.driven.release()
    states = [state for _, state in runner.cache.states()]
    if not states:
        raise UndrivableError(f"{type(model).__name__} keeps its states outside of the cache")
    shapes = {
        number: shape_of(call) for number, call in zip(noting.numbers, noting.recorder.calls, strict=True)
    }
    return Kept(shapes, sum(state.numel() * state.element_size() for state in states))
