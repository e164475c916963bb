"""Attention as its definition says: dense masks, one sequence after another, float32 or better.

Slow and plain: what every other backend is compared with, never chosen to run.
"""

import torch
from torch import Tensor

from llmctl.engine.attention.interface import KVLayer, Reach, Scoring, first_seen
from llmctl.engine.execution.step import Span, Step


class ReferenceBackend:
    """See `Backend`."""

    name = "reference"

    def attend(
        self, q: Tensor, k: Tensor | None, v: Tensor | None, layer: KVLayer, step: Step, scoring: Scoring
    ) -> Tensor:
        """See `Backend.attend`."""
        tables = step.groups[layer.group]
        if k is not None and v is not None:
            for row, slot in enumerate(tables.slots.tolist()):
                block, offset = divmod(slot, step.block_size)
                layer.keys[block, :, offset] = k[:, row].to(layer.keys.dtype)
                layer.values[block, :, offset] = v[:, row].to(layer.values.dtype)
        out = q.new_empty(q.shape[1], q.shape[0], layer.values.shape[-1])
        for span, table in zip(step.spans, tables.tables.tolist(), strict=True):
            rows = slice(span.row, span.row + span.count)
            out[rows] = _attended(q[:, rows], layer, table, span, scoring)
        return out


def _attended(q: Tensor, layer: KVLayer, table: list[int], span: Span, scoring: Scoring) -> Tensor:
    """q [Hq, t, D] of one span to [t, Hq, Dv]."""
    # What nobody sees may hold anything, numbers that are none too.
    first = first_seen(layer.policy, span.start)
    seen = [divmod(position, layer.keys.shape[2]) for position in range(first, span.length)]
    keys = torch.stack([layer.keys[table[column], :, offset] for column, offset in seen], 1)
    values = torch.stack([layer.values[table[column], :, offset] for column, offset in seen], 1)
    num_repeats = q.shape[0] // keys.shape[0]
    exact = torch.promote_types(q.dtype, torch.float32)
    scores = q.to(exact) @ keys.to(exact).repeat_interleave(num_repeats, 0).transpose(1, 2) * scoring.scale
    if scoring.softcap is not None:
        scores = (scores / scoring.softcap).tanh() * scoring.softcap
    is_seen = visible(layer.policy, torch.arange(span.start, span.length), torch.arange(first, span.length))
    scores = scores.masked_fill(~is_seen.to(scores.device), -torch.inf)
    if scoring.sinks is not None:
        scores = torch.cat((scores, scoring.sinks.to(exact)[:, None, None].expand(-1, span.count, 1)), -1)
    weights = scores.softmax(-1)[..., : len(seen)]
    return (weights @ values.to(exact).repeat_interleave(num_repeats, 0)).transpose(0, 1).to(q.dtype)


def visible(policy: Reach, queries: Tensor, keys: Tensor) -> Tensor:
    """bool [queries, keys]: which of the positions `keys` those of `queries` see."""
    queries, keys = queries[:, None], keys[None, :]
    is_seen = keys <= queries
    if policy.window is not None:
        is_seen &= keys > queries - policy.window
    if policy.chunk is not None:
        is_seen &= keys // policy.chunk == queries // policy.chunk
    return is_seen
