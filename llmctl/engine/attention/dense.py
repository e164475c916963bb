"""Attention by torch's own operators, one piece of a sequence after another, in memory bounded by tiles.

Right on every device; what faster backends leave over comes here too.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

from llmctl.engine.attention.chunked import Cuts, Piece
from llmctl.engine.attention.interface import KVLayer, Scoring
from llmctl.engine.execution import storage
from llmctl.engine.execution.step import Step

_MASK_ELEMENTS = 1 << 21
"""Of the mask of one tile."""
_KEPT_MASK_ELEMENTS = 1 << 23
"""Of all masks that wait for the next layer."""
_SCORE_ELEMENTS = 1 << 22
"""Of one tile where scores are written out."""
_WINDOW_ROWS = 128
"""A tile under a window has so many rows, or those of the window: each tile reads the keys before it."""


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of `Backend.attend`."""

    q: Tensor
    k: Tensor | None
    v: Tensor | None
    layer: KVLayer
    step: Step
    scoring: Scoring

    def empty(self) -> Tensor:
        """Where the result goes, [T, Hq, Dv]."""
        return self.q.new_empty(self.q.shape[1], self.q.shape[0], self.layer.values.shape[-1])


def choose(device: torch.device, dtype: torch.dtype) -> "DenseBackend":
    """For devices that no other backend is for."""
    del device, dtype
    return DenseBackend()


class DenseBackend:
    """See `Backend`."""

    name = "torch, one sequence at a time"

    def __init__(self) -> None:
        self._cuts = Cuts()
        self._masks: dict[Tile, Tensor] = {}

    def attend(
        self, q: Tensor, k: Tensor | None, v: Tensor | None, layer: KVLayer, step: Step, scoring: Scoring
    ) -> Tensor:
        """See `Backend.attend`."""
        if k is not None and v is not None:
            storage.write(layer, k, v, step.groups[layer.group].slots)
        call = Call(q, k, v, layer, step, scoring)
        out = call.empty()
        self.fill(out, call)
        return out

    def fill(self, out: Tensor, call: Call, *, min_count: int = 1) -> None:
        """Write the rows of all spans of at least `min_count` tokens into `out` [T, Hq, Dv].

        The layer already holds the keys and values of the step.
        """
        for piece in self._cuts.pieces(call.step, call.layer.policy, min_count):
            rows = slice(piece.row, piece.row + piece.count)
            keys, values = _keys_and_values(call, piece)
            for tile, attended in self._attended(call.q[:, rows], keys, values, call):
                out[piece.row + tile.first : piece.row + tile.last] = attended

    def _attended(
        self, q: Tensor, keys: Tensor, values: Tensor, call: Call
    ) -> Iterator[tuple["Tile", Tensor]]:
        """q [Hq, t, D] over keys [Hk, L, D] and values [Hk, L, Dv], the last t of which are its own.

        Gives tiles of rows [t', Hq, Dv].
        """
        scoring, window = call.scoring, call.layer.policy.window
        # On the CPU float16 is neither fast nor exact.
        dtype = torch.float32 if q.dtype == torch.float16 and not q.is_cuda else q.dtype
        is_written_out = scoring.softcap is not None or scoring.sinks is not None
        if is_written_out:
            dtype = torch.promote_types(dtype, torch.float32)
        keys, values = keys.to(dtype), values.to(dtype)
        num_elements = _SCORE_ELEMENTS // len(q) if is_written_out else _MASK_ELEMENTS
        for tile in _tiles(q.shape[1], keys.shape[1], window, num_elements, is_written_out):
            some = q[:, tile.first : tile.last].to(dtype)
            some = some.view(len(keys), -1, *some.shape[1:])
            seen = (keys[:, tile.low : tile.high], values[:, tile.low : tile.high])
            is_masked = tile.is_masked or (is_written_out and some.shape[2] > 1)
            mask = self._mask(tile, q) if is_masked else None
            if is_written_out:
                attended = _written_out(some, *seen, mask, scoring)
            else:
                attended = _by_sdpa(some, *seen, mask, scoring.scale)
            yield tile, attended.flatten(0, 1).transpose(0, 1)

    def _mask(self, tile: "Tile", q: Tensor) -> Tensor:
        """What is added to scores [rows, keys]: 0 or minus infinity, which all dtypes have."""
        tile = tile.moved()
        mask = self._masks.get(tile)
        if mask is None or mask.device != q.device:
            positions = torch.arange(tile.shift, tile.shift + tile.last, device=q.device)[:, None]
            others = torch.arange(tile.high, device=q.device)[None]
            is_hidden = others > positions
            if tile.window is not None:
                is_hidden |= others <= positions - tile.window
            mask = torch.zeros(is_hidden.shape, dtype=q.dtype, device=q.device)
            mask.masked_fill_(is_hidden, -torch.inf)
            if sum(each.numel() for each in self._masks.values()) + mask.numel() > _KEPT_MASK_ELEMENTS:
                self._masks.clear()
            self._masks[tile] = mask
        return mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """Rows of a piece, and the keys that they may see."""

    first: int
    """The first row, counted in the piece."""
    last: int
    """Behind the last row."""
    low: int
    """The first key."""
    high: int
    """Behind the last key, which is that of the last row."""
    shift: int
    """The number, counted from `low`, of the first row's own key."""
    window: int | None
    """As in `Reach`; None too where it hides no key of the tile."""

    @property
    def is_masked(self) -> bool:
        """Whether some row does not see some key, in another way than SDPA's own `is_causal`."""
        return self.window is not None or (self.last - self.first > 1 and self.shift > 0)

    def moved(self) -> "Tile":
        """One with the same mask, beginning at row and key 0."""
        last, high = self.last - self.first, self.high - self.low
        return Tile(first=0, last=last, low=0, high=high, shift=self.shift, window=self.window)


def _tiles(
    count: int, length: int, window: int | None, num_elements: int, is_written_out: bool
) -> Iterator[Tile]:
    """The last `count` of `length` positions in tiles of at most so many scores, but of one row at least."""
    offset, first = length - count, 0
    while first < count:
        low = 0 if window is None else max(0, offset + first - window + 1)
        is_whole = offset == 0 and (window is None or window >= length) and not is_written_out
        rows = count if is_whole else max(1, num_elements // (length - low))
        if window is not None and window < length:
            rows = min(rows, max(window, _WINDOW_ROWS))
        last = min(count, first + rows)
        # The last row's own key hides the first one only if the window is short of all of them.
        is_hidden = window is not None and window < offset + last - low
        yield Tile(
            first=first,
            last=last,
            low=low,
            high=offset + last,
            shift=offset + first - low,
            window=window if is_hidden else None,
        )
        first = last


def _keys_and_values(call: Call, piece: Piece) -> tuple[Tensor, Tensor]:
    """[Hk, L, D] and [Hk, L, Dv] from the first position that the piece's first token sees."""
    layer, step = call.layer, call.step
    window = layer.policy.window
    first = piece.origin if window is None else max(piece.origin, piece.start - window + 1)
    span = step.spans[piece.sequence]
    if first >= span.start and call.k is not None and call.v is not None:
        rows = slice(span.row + first - span.start, piece.row + piece.count)
        return call.k[:, rows], call.v[:, rows]
    return storage.gather(layer, step.groups[layer.group].tables[piece.sequence], first, piece.length)


def _by_sdpa(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """q [Hk, rep, t, D], keys [Hk, L, D], values [Hk, L, Dv], mask [t, L] to [Hk, rep, t, Dv]."""
    value_size, num_repeats = values.shape[-1], q.shape[1]
    if value_size < q.shape[-1]:
        # Only so does the CPU take the kernel that writes no scores to memory.
        values = pad(values, (0, q.shape[-1] - value_size))
    # Views: heads that share keys are the heads of one batch of SDPA.
    keys, values = (each[:, None].expand(-1, num_repeats, -1, -1) for each in (keys, values))
    is_causal = mask is None and q.shape[2] > 1
    if mask is not None:
        mask = mask.to(q.dtype)
    attended = scaled_dot_product_attention(q, keys, values, attn_mask=mask, is_causal=is_causal, scale=scale)
    return attended[..., :value_size]


def _written_out(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scoring: Scoring) -> Tensor:
    """As `_by_sdpa`, with what SDPA has not."""
    num_repeats, num_rows = q.shape[1:3]
    scores = (q.flatten(1, 2) * scoring.scale) @ keys.transpose(1, 2)
    if scoring.softcap is not None:
        scores = scores.div_(scoring.softcap).tanh_().mul_(scoring.softcap)
    scores = scores.view(len(keys), num_repeats, num_rows, -1)
    if mask is not None:
        scores += mask
    largest = scores.amax(-1, keepdim=True)
    if scoring.sinks is not None:
        sinks = scoring.sinks.to(scores.dtype).view(len(keys), num_repeats, 1, 1)
        largest = torch.maximum(largest, sinks)
    weights = scores.sub_(largest).exp_()
    total = weights.sum(-1, keepdim=True)
    if scoring.sinks is not None:
        total += (sinks - largest).exp()
    attended = weights.flatten(1, 2) @ values
    return attended.view(len(keys), num_repeats, num_rows, -1).div_(total)
