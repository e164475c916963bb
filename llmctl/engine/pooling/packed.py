"""Runs whole texts through a tier A model, packed in one row, over blocks that the next batch uses again.

A text that is longer than a step goes alone, in pieces. No scheduler: nothing here waits for a next token.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmctl.engine.attention import interface
from llmctl.engine.attention.interface import KVLayer
from llmctl.engine.execution import storage
from llmctl.engine.execution.drive import NAME
from llmctl.engine.execution.handler import Handler
from llmctl.engine.execution.layout import Layout
from llmctl.engine.execution.step import GroupTables, Span, Step
from llmctl.engine.pooling import batches
from llmctl.engine.pooling.inputs import Item

_BLOCK_SIZE = 32


@dataclass(frozen=True, slots=True)
class Piece:
    """New tokens of the item `number` in a step."""

    number: int
    span: Span


class PackedForward:
    """See `forward.Forward`; the model is driven until `release`."""

    plan = staticmethod(batches.packed)
    name = "packed"

    def __init__(self, model: Any, layout: Layout, budget: int) -> None:
        """`layout` is of tier A; `budget` is tokens of a step. Raises `UndrivableError`."""
        self._model, self._layout, self.budget = model, layout, budget
        self._layers: dict[int, KVLayer] = {}
        self._num_blocks = 0
        backend = interface.choose(model.device, model.dtype)
        self._handler = Handler(model, backend, self._layers, layout.sources)

    def states(self, items: Sequence[Item]) -> Tensor:
        """See `Forward.states`."""
        return torch.cat([self._handler.hidden(step) for step, _ in self._steps(items)])

    def logits(self, items: Sequence[Item]) -> Tensor:
        """See `Forward.logits`; what `GenericForSequenceClassification` of transformers gives."""
        states = self.states(items).split([len(item) for item in items])  # type: ignore[no-untyped-call]
        padding = self._model.config.get_text_config().pad_token_id
        last = [own[_last_but(padding, item)] for own, item in zip(states, items, strict=True)]
        found: Tensor = self._model.score(torch.stack(last))
        return found

    def logprobs(self, items: Sequence[Item], firsts: Sequence[int]) -> list[Tensor]:
        """float32 [L - first] for each item: how likely its tokens from `first` (1 or more) on were."""
        found: dict[int, list[Tensor]] = {number: [] for number in range(len(items))}
        for step, pieces in self._steps(items, firsts):
            logits = self._handler.forward(step)
            row = 0
            for piece in pieces:
                targets = _targets(piece.span, items[piece.number], firsts[piece.number])
                if targets:
                    scores = logits[row : row + len(targets)].float().log_softmax(-1)
                    row += len(targets)
                    chosen = torch.tensor(targets, device=scores.device)[:, None]
                    found[piece.number].append(scores.gather(1, chosen)[:, 0])
        return [torch.cat(parts) for parts in found.values()]

    def release(self) -> None:
        """See `Forward.release`."""
        self._handler.release()
        self._layers.clear()
        self._num_blocks = 0

    def _steps(
        self, items: Sequence[Item], firsts: Sequence[int] | None = None
    ) -> Iterator[tuple[Step, list[Piece]]]:
        """All tokens of a batch of `plan`; the wanted rows are those that say the tokens from `firsts` on."""
        # A model that somebody has released attends by itself: over the whole row, across all texts.
        attends_by = self._model.config._attn_implementation  # noqa: SLF001
        assert attends_by == NAME, f"the model attends by {attends_by}: it was released"
        counts = [-(-len(item) // _BLOCK_SIZE) for item in items]
        self._reserve(sum(counts))
        for pieces in self._pieces(items):
            yield self._step(items, counts, pieces, firsts), pieces

    def _pieces(self, items: Sequence[Item]) -> Iterator[list[Piece]]:
        if len(items) == 1:
            for start in range(0, len(items[0]), self.budget):
                count = min(self.budget, len(items[0]) - start)
                yield [Piece(0, Span(row=0, count=count, start=start))]
            return
        row, pieces = 0, []
        for number, item in enumerate(items):
            pieces.append(Piece(number, Span(row=row, count=len(item), start=0)))
            row += len(item)
        yield pieces

    def _step(
        self,
        items: Sequence[Item],
        counts: Sequence[int],
        pieces: Sequence[Piece],
        firsts: Sequence[int] | None,
    ) -> Step:
        device, spans = self._model.device, [piece.span for piece in pieces]
        firsts = [len(item) for item in items] if firsts is None else firsts
        ids = [
            each for piece in pieces for each in items[piece.number].ids[piece.span.start : piece.span.length]
        ]
        wanted = [
            piece.span.row + offset
            for piece in pieces
            for offset in range(piece.span.count)
            if firsts[piece.number] <= piece.span.start + offset + 1 < len(items[piece.number])
        ]
        numbers = {
            "ids": [ids],
            "positions": [[each for span in spans for each in range(span.start, span.length)]],
            "meta": [[span.row, span.count, span.start] for span in spans],
            "wanted": wanted,
        }
        return Step(
            **{name: torch.tensor(each, dtype=torch.long, device=device) for name, each in numbers.items()},
            spans=spans,
            groups=[self._tables(counts, spans)] * len(self._layout.groups),
            block_size=_BLOCK_SIZE,
        )

    def _tables(self, counts: Sequence[int], spans: Sequence[Span]) -> GroupTables:
        """Every item has its blocks side by side, the same ones in each group."""
        device, width = self._model.device, max(counts)
        tables: list[list[int]] = []
        slots: list[int] = []
        first = 0
        for count, span in zip(counts, spans, strict=True):
            tables.append([*range(first, first + count), *[-1] * (width - count)])
            slots += range(first * _BLOCK_SIZE + span.start, first * _BLOCK_SIZE + span.length)
            first += count
        return GroupTables(
            tables=torch.tensor(tables, dtype=torch.int32, device=device),
            slots=torch.tensor(slots, device=device),
        )

    def _reserve(self, num_blocks: int) -> None:
        """Room for that many blocks in each group; what lay there is of no use any more."""
        if num_blocks <= self._num_blocks:
            return
        self._layers.clear()
        groups, model = self._layout.groups, self._model
        made: Mapping[int, KVLayer] = storage.allocate(
            groups,
            self._layout.shapes,
            [num_blocks] * len(groups),
            _BLOCK_SIZE,
            model.dtype,
            model.device,
        )
        self._layers.update(made)
        self._num_blocks = num_blocks


def _targets(span: Span, item: Item, first: int) -> list[int]:
    """The tokens that the rows of `span` say, of those from `first` on."""
    return list(item.ids[max(first, span.start + 1) : span.length + 1])


def _last_but(padding: int | None, item: Item) -> int:
    """The last token that is not padding, which may be written at the end of a text too."""
    return next((index for index in range(len(item))[::-1] if item.ids[index] != padding), 0)
