"""A model that gives vectors or scores of texts: from inputs to results, all in the caller's thread.

`batcher` puts the requests of many callers together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llmctl.core.errors import BadFileError, DoesNotFitError, UsageError
from llmctl.core.progress import Progress
from llmctl.engine.pooling import forward, parts, reduce
from llmctl.engine.pooling.inputs import Input, Inputs, Item, Pair
from llmctl.loading import devices, pooled
from llmctl.loading.loader import LoadRequest
from llmctl.loading.pooled import Activation, LoadedPooled, Task

_BUDGET = {"cpu": 2048}
_BUDGET_ELSEWHERE = 16384
"""Tokens that run together."""
_ACTIVATE: dict[Activation, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "softmax": lambda logits: logits.softmax(-1),
    "none": lambda logits: logits,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """Vectors of some inputs, in their order."""

    vectors: Tensor
    """float32 [n, d] on the CPU."""
    num_tokens: int
    """Of all inputs, special ones included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What a classifier says of some inputs, in their order."""

    values: Tensor
    """float32 [n, labels] on the CPU."""
    logits: Tensor
    """The same before the classifier's activation."""
    labels: tuple[str, ...]
    num_tokens: int
    """Of all inputs, special ones included."""


def load_pooled(request: LoadRequest, progress: Progress, *, task: Task | None = None) -> "PooledModel":
    """Load and open a model for vectors or scores; raises what `loading.pooled.load` raises."""
    return PooledModel(pooled.load(request, progress, task=task))


class PooledModel:
    """One model, which it owns until `release`. One thread at a time."""

    def __init__(self, loaded: LoadedPooled, *, budget: int | None = None) -> None:
        """`budget` is tokens that run together; None: what suits the device.

        Raises `BadFileError` where the files of the vector's recipe do not fit the model.
        """
        self.loaded = loaded
        model = loaded.model
        self.inputs = Inputs(loaded)
        self._forward = forward.choose(
            model,
            max_tokens=loaded.max_tokens,
            budget=budget or _BUDGET.get(model.device.type, _BUDGET_ELSEWHERE),
            is_rounded=loaded.is_rounded,
        )
        # The last normalising is the caller's choice.
        own = loaded.recipe.parts[: -1 if loaded.recipe.normalises else None]
        self._parts = parts.build(own).to(model.device) if self.task == "embed" else None
        self.dimensions = self._num_dimensions()
        """Of a vector, before `dimensions` cuts it; of a classifier, its labels."""

    @property
    def task(self) -> Task:
        """What it does."""
        return self.loaded.task

    @property
    def way(self) -> str:
        """How texts run together, in a word: packed, padded, equal (in length) or single."""
        return self._forward.name

    @property
    def budget(self) -> int:
        """Tokens that run together."""
        return self._forward.budget

    def embed(
        self,
        inputs: Sequence[Input],
        *,
        dimensions: int | None = None,
        normalises: bool | None = None,
        prompt: str | None = None,
    ) -> Embedded:
        """Vectors of texts or of token ids; `prompt` names one of the model's texts to put before texts.

        `dimensions` keeps the first ones, for models that were trained to be cut. `normalises` None: as the
        model's files say. Raises `UsageError`, `ContextOverflowError`.
        """
        self.check_embed(dimensions)
        items = self.inputs.items(inputs, prompt=prompt)
        return self.embedded(self._run(items), items, dimensions=dimensions, normalises=normalises)

    def score(self, pairs: Sequence[Pair]) -> Scores:
        """Scores of texts, or of pairs of a question and a document. Raises as `embed` does."""
        self.check_score()
        items = self.inputs.pairs(pairs)
        return self.scored(self._run(items), items)

    def release(self) -> None:
        """Leave the model as it was."""
        self._forward.release()

    # In pieces, for whoever puts requests together

    def check_embed(self, dimensions: int | None) -> None:
        """Raise `UsageError` when the model gives no vectors, or none of that size."""
        if self.task != "embed":
            raise UsageError(
                f"{self.loaded.name} is a classifier, so it gives no vectors", hint="take an embedding model"
            )
        if dimensions is not None and not 1 <= dimensions <= self.dimensions:
            raise UsageError(
                f"dimensions is {dimensions}, the vectors of {self.loaded.name} have {self.dimensions}",
                hint=f"give 1 to {self.dimensions}, or leave it out",
            )

    def check_score(self) -> None:
        """Raise `UsageError` when the model has no classifier."""
        if self.task != "classify":
            raise UsageError(
                f"{self.loaded.name} gives vectors, and no scores of pairs",
                hint="take a reranker, or compare the vectors of both texts",
            )

    def plan(self, lengths: Sequence[int]) -> list[list[int]]:
        """Batches of items with these lengths, as lists of indices; any part of a batch is one too."""
        return self._forward.plan(lengths, self._forward.budget)

    def compute(self, items: Sequence[Item]) -> Tensor:
        """float32 [n, d] on the CPU of one batch: raw vectors or logits.

        Where memory runs out the batch is halved. Raises `DoesNotFitError` for one item alone, and
        `BadFileError` where the model gives what is no number.
        """
        try:
            rows = self._compute(items)
        except RuntimeError as error:
            reason = devices.out_of_memory(error)
            if reason is None:
                raise
            if len(items) == 1:
                raise DoesNotFitError(
                    f"memory ran out over an input of {len(items[0])} tokens: {reason}",
                    hint="shorten the input or free memory",
                ) from error
            half = len(items) // 2
            rows = torch.cat([self.compute(items[:half]), self.compute(items[half:])])
        if not bool(rows.isfinite().all()):
            raise BadFileError(
                f"{self.loaded.name} gives what is no number",
                hint="its weights are damaged, or overflow in this dtype: try --dtype float32",
            )
        return rows

    def embedded(
        self, rows: Tensor, items: Sequence[Item], *, dimensions: int | None, normalises: bool | None
    ) -> Embedded:
        """The result for items whose rows are computed."""
        vectors = rows if dimensions is None else rows[:, :dimensions]
        if self.loaded.recipe.normalises if normalises is None else normalises:
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        return Embedded(vectors=vectors, num_tokens=sum(map(len, items)))

    def scored(self, rows: Tensor, items: Sequence[Item]) -> Scores:
        """The result for items whose rows are computed."""
        return Scores(
            values=_ACTIVATE[self.loaded.activation](rows),
            logits=rows,
            labels=self.loaded.labels,
            num_tokens=sum(map(len, items)),
        )

    def _run(self, items: Sequence[Item]) -> Tensor:
        rows = torch.empty(len(items), self.dimensions)
        for batch in self.plan([len(item) for item in items]):
            rows[batch] = self.compute([items[index] for index in batch])
        return rows

    def _compute(self, items: Sequence[Item]) -> Tensor:
        with torch.no_grad():
            if self._parts is None:
                return self._forward.logits(items).float().cpu()
            found: Tensor = self._parts(self._pooled(items))
            return found.cpu()

    def _pooled(self, items: Sequence[Item]) -> Tensor:
        vectors = reduce.pool(self._forward.states(items), items, self.loaded.recipe)
        return vectors.to(self.loaded.model.device)

    def _num_dimensions(self) -> int:
        if self._parts is None:
            return len(self.loaded.labels)
        with torch.no_grad():
            vectors = self._pooled([Item(ids=(0, 1))])
            try:
                return int(self._parts(vectors).shape[1])
            except RuntimeError as error:
                raise BadFileError(
                    f"the layers behind the pooling of {self.loaded.name} do not fit the model: {error}",
                    hint="modules.json belongs to another model",
                ) from error
