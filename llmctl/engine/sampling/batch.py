"""Chooses the next token of many requests from one step's logits, each by its own parameters.

A request gets the tokens that `generate.sampler` gives it, whatever is beside it. Rows that ask for nothing
but the likeliest token cost one pass over the logits; only what a row asks for is computed for it.
Shapes: logits [m, V].
"""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from llmctl.core.errors import LlmctlError
from llmctl.core.types import SamplingParams
from llmctl.engine.generate.sampler import GREEDY_BELOW, generator, not_numbers, with_doubles
from llmctl.engine.sampling.constraints import Constraints, Word, nothing_left
from llmctl.engine.sampling.draw import Draw, draw
from llmctl.engine.sampling.edits import Edits, constrain, penalise
from llmctl.engine.sampling.seen import Seen

_CHUNK = {"cpu": 2**19}
"""Logits that are worked on at a time, in float32 and float64: on a CPU what its caches hold."""
_CHUNK_ELSEWHERE = 2**25


@dataclass(frozen=True, slots=True)
class Chosen:
    """The next token of a request."""

    token_id: int
    logprobs: list[tuple[int, float]] | None
    """When asked for: (id, log-probability under the raw logits) of it, then of the likeliest in order."""


@dataclass(slots=True, eq=False)
class RowState:
    """What the sampler remembers of a request from token to token."""

    params: SamplingParams
    edits: Edits | None
    """Where something is wanted more, less or not at all."""
    seen: Seen | None
    """Where a penalty asks for it."""
    random: torch.Generator
    said: list[int] = field(default_factory=list)

    @property
    def is_greedy(self) -> bool:
        """Whether it takes the likeliest token."""
        return self.params.temperature < GREEDY_BELOW

    @property
    def is_plain(self) -> bool:
        """Whether it takes the likeliest token by the raw logits."""
        return self.is_greedy and self.seen is None and self.edits is None

    def note(self, token_id: int) -> None:
        """Count a token as said."""
        self.said.append(token_id)
        if self.seen is not None:
            self.seen.add(token_id)


class BatchSampler:
    """The sampler of one model."""

    def __init__(self, vocabulary_size: int) -> None:
        self._size = vocabulary_size

    def row(
        self,
        params: SamplingParams,
        prompt_ids: Sequence[int],
        *,
        end_ids: Collection[int] = (),
        bad_words: Sequence[Word] = (),
    ) -> RowState:
        """The state of a new request; `end_ids`, `bad_words` and what is raised: see `Constraints`."""
        seen = None
        if params.repetition_penalty != 1.0:
            seen = Seen(prompt_ids)
        elif params.presence_penalty or params.frequency_penalty:
            seen = Seen(())
        constraints = Constraints(params, self._size, end_ids=end_ids, bad_words=bad_words)
        edits = None if constraints.is_empty else Edits(constraints)
        return RowState(params, edits, seen, generator(params.seed))

    def choose(
        self, logits: Tensor, which: Sequence[int], rows: Sequence[RowState]
    ) -> list[Chosen | LlmctlError]:
        """The next token of each of `rows`, no row twice, counted as said; `which` says where its logits are.

        In the place of a token stands `BadFileError` when the model gave that row no numbers, `UsageError`
        when bias and bans left it no token.
        """
        if not rows:
            return []
        logits = with_doubles(logits)
        if list(which) != list(range(len(logits))):
            logits = logits[torch.tensor(which, device=logits.device)]
        found = self._tokens(logits, rows)
        for row, token in zip(rows, found, strict=True):
            if isinstance(token, int):
                row.note(token)
        logprobs = _logprobs(logits, rows, found)
        return [
            Chosen(token, logprobs.get(each)) if isinstance(token, int) else token
            for each, token in enumerate(found)
        ]

    def _tokens(self, logits: Tensor, rows: Sequence[RowState]) -> list[int | LlmctlError]:
        largest, likeliest = logits.max(-1)
        bests, ids = largest.tolist(), likeliest.tolist()
        found: list[int | LlmctlError] = [
            token if math.isfinite(best) else not_numbers(best)
            for token, best in zip(ids, bests, strict=True)
        ]
        others = [each for each, row in enumerate(rows) if not row.is_plain and math.isfinite(bests[each])]
        for group in _chunks(others, logits):
            place = torch.tensor(group, device=logits.device)
            # A copy of their own in any dtype: it is changed in place.
            scores = logits[place].float()
            own = [rows[each] for each in group]
            tokens = _worked(scores, largest[place].float(), [ids[each] for each in group], own)
            for each, token in zip(group, tokens, strict=True):
                found[each] = token
        return found


def _worked(
    scores: Tensor, best: Tensor, likeliest: list[int], rows: Sequence[RowState]
) -> list[int | LlmctlError]:
    """Tokens of rows that ask for more than the likeliest of `scores` [c, V], which are changed.

    `best` [c] are the largest scores, and `likeliest` where they are.
    """
    found: list[int | LlmctlError] = list(likeliest)
    penalised = [(each, row.params, row.seen) for each, row in enumerate(rows) if row.seen is not None]
    if penalised:
        penalise(scores, penalised)
        best = _largest(scores, found, not_numbers)
    constrained = [(each, row.edits, row.said) for each, row in enumerate(rows) if row.edits is not None]
    if constrained:
        constrain(scores, constrained)
        best = _largest(scores, found, lambda _: nothing_left())
    drawing = [each for each, row in enumerate(rows) if not row.is_greedy and isinstance(found[each], int)]
    if drawing:
        draws = [Draw(rows[each].params, _random(rows[each])) for each in drawing]
        tokens = draw(_stretched(scores, best, drawing, draws), draws)
        for each, token in zip(drawing, tokens, strict=True):
            found[each] = token
    return found


def _largest(scores: Tensor, found: list[int | LlmctlError], error: Callable[[float], LlmctlError]) -> Tensor:
    """[c]: the largest of `scores` [c, V]; where each is goes to `found`, or `error` of one not finite."""
    best, likeliest = scores.max(-1)
    for each, (value, token) in enumerate(zip(best.tolist(), likeliest.tolist(), strict=True)):
        if isinstance(found[each], int):
            found[each] = token if math.isfinite(value) else error(value)
    return best


def _random(row: RowState) -> float:
    return float(torch.rand((), generator=row.random, dtype=torch.float64))


def _stretched(scores: Tensor, best: Tensor, group: list[int], draws: Sequence[Draw]) -> Tensor:
    """[r, V]: at their temperature, counted from the largest, so that none overflows."""
    temperature = torch.tensor([each.params.temperature for each in draws], device=scores.device)
    if len(group) < len(scores):
        place = torch.tensor(group, device=scores.device)
        scores, best = scores[place], best[place]
    return scores.sub_(best[:, None]).div_(temperature[:, None])


def _logprobs(
    logits: Tensor, rows: Sequence[RowState], found: Sequence[int | LlmctlError]
) -> dict[int, list[tuple[int, float]]]:
    """By row, where asked for: what `sampler.likeliest` says."""
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for each, row in enumerate(rows):
        if row.params.logprobs is not None and isinstance(found[each], int):
            groups[row.params.logprobs].append(each)
    said: dict[int, list[tuple[int, float]]] = {}
    # By number: of tokens that are equally likely a longer list may begin with others.
    for count, asking in groups.items():
        for group in _chunks(asking, logits):
            logprobs = logits[torch.tensor(group, device=logits.device)].float().log_softmax(-1)
            tokens = [token for each in group if isinstance(token := found[each], int)]
            own = logprobs.gather(1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].tolist()
            values, ids = (each.tolist() for each in logprobs.topk(min(count, logprobs.shape[-1])))
            for place, each in enumerate(group):
                top = zip(ids[place], values[place], strict=True)
                said[each] = [(tokens[place], own[place]), *top]
    return said


def _chunks(group: list[int], logits: Tensor) -> Iterator[list[int]]:
    size = max(1, _CHUNK.get(logits.device.type, _CHUNK_ELSEWHERE) // logits.shape[-1])
    return (group[start : start + size] for start in range(0, len(group), size))
