"""What a worker serves: a model under its names, seen through what can be asked of it. No torch here."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from llmctl.core.backend import Backend, Load
from llmctl.core.errors import UsageError
from llmctl.core.types import GenerationRequest, SamplingParams
from llmctl.services.http.errors import ModelNotFoundError, ParameterError
from llmctl.services.wire import ModelState

CHAT, COMPLETIONS, EMBEDDINGS, SCORE = "chat", "completions", "embeddings", "score"
_TITLES: Mapping[str, str] = {
    CHAT: "answer messages (/v1/chat/completions)",
    COMPLETIONS: "go on from a text (/v1/completions)",
    EMBEDDINGS: "give vectors (/v1/embeddings)",
    SCORE: "score pairs of texts",
}


class Tokens(Protocol):
    """The tokenizer of a model."""

    async def encode(self, text: str, *, adds_special_tokens: bool) -> tuple[int, ...]:
        """Ids of a text, which may be empty. Raises `UsageError` for half characters."""
        ...

    async def decode(self, ids: Sequence[int]) -> str:
        """Their text, special tokens too. Raises `UsageError` for ids outside the vocabulary."""
        ...

    async def names(self, ids: Sequence[int]) -> list[str]:
        """What the tokenizer calls each; raises as `decode` does."""
        ...


class TextModel(Backend, Protocol):
    """A model that writes."""

    @property
    def load(self) -> Load:
        """How busy it is."""
        ...

    async def token_ids(self, request: GenerationRequest, *, opens_answer: bool = True) -> tuple[int, ...]:
        """The prompt as `generate` gives it to the model; raises what `generate` raises over it.

        Without `opens_answer` what a chat template writes before the answer is left out.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Vectors:
    """Of some inputs, in their order."""

    rows: list[list[float]]
    num_tokens: int
    """Of all inputs together."""


class VectorModel(Protocol):
    """A model that gives vectors."""

    @property
    def load(self) -> Load:
        """How busy it is."""
        ...

    async def embed(self, inputs: Sequence[str | Sequence[int]], *, dimensions: int | None = None) -> Vectors:
        """A vector for each text or list of token ids.

        Raises `UsageError`, `ContextOverflowError`, and `BusyError` where too many wait.
        """
        ...

    async def close(self) -> None:
        """Free the model."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosted:
    """A model that this worker serves; it writes or gives vectors."""

    name: str
    aliases: tuple[str, ...] = ()
    """Other names that it answers to."""
    context_length: int | None
    """Prompt and answer together, in tokens; of a model that gives vectors the longest input."""
    capabilities: tuple[str, ...]
    tokens: Tokens
    text: TextModel | None = None
    vectors: VectorModel | None = None
    default_sampling: SamplingParams = field(default_factory=SamplingParams)
    """What holds where a request says nothing."""
    created: int = field(default_factory=lambda: int(time.time()))
    """Seconds since 1970."""

    @property
    def names(self) -> tuple[str, ...]:
        """All that it answers to, its own first."""
        return (self.name, *self.aliases)

    @property
    def load(self) -> Load:
        """How busy it is."""
        model = self.text or self.vectors
        return model.load if model is not None else Load()

    @property
    def state(self) -> ModelState:
        """What controllers are told of it."""
        load = self.load
        return ModelState(
            name=self.name,
            aliases=self.aliases,
            context_length=self.context_length,
            capabilities=self.capabilities,
            created=self.created,
            max_running=load.max_running,
            num_running=load.num_running,
            num_waiting=load.num_waiting,
        )

    def writer(self, capability: str) -> TextModel:
        """The model, to write; raises `UsageError` naming what it can do when it cannot do that."""
        if self.text is None or capability not in self.capabilities:
            raise self._cannot(capability)
        return self.text

    def embedder(self) -> VectorModel:
        """The model, for vectors; raises as `writer` does."""
        if self.vectors is None or EMBEDDINGS not in self.capabilities:
            raise self._cannot(EMBEDDINGS)
        return self.vectors

    async def close(self) -> None:
        """Free the model."""
        for model in (self.text, self.vectors):
            if model is not None:
                await model.close()

    def _cannot(self, capability: str) -> UsageError:
        able = " and ".join(_TITLES[each] for each in self.capabilities)
        remedy = "; to chat it needs a template: serve worker --template FILE|NAME"
        is_untold = capability == CHAT and self.text is not None
        return UsageError(
            f"{self.name} cannot {_TITLES[capability]}",
            hint=f"it can {able or 'do nothing here'}{remedy if is_untold else ''}",
        )


class Models:
    """The models of a worker, by all their names."""

    def __init__(self, hosted: Iterable[Hosted] = ()) -> None:
        """Raises `UsageError` where two models have the same name."""
        self.all = tuple(hosted)
        self._by_name: dict[str, Hosted] = {}
        for each in self.all:
            for name in each.names:
                if name in self._by_name:
                    raise UsageError(
                        f"two models are called {name!r}", hint="give one another name: NAME=MODEL"
                    )
                self._by_name[name] = each

    def find(self, name: str) -> Hosted:
        """The model that answers to `name`; raises `ModelNotFoundError` listing what there is."""
        found = self._by_name.get(name)
        if found is None:
            raise ModelNotFoundError(f"no model {name!r} here", hint=f"there is {', '.join(self._by_name)}")
        return found

    def only(self, name: str | None) -> Hosted:
        """As `find`; the name may be left out where there is one model."""
        if name is not None:
            return self.find(name)
        if len(self.all) != 1:
            raise ParameterError(
                "model is missing", param="model", hint=f"there is {', '.join(self._by_name)}"
            )
        return self.all[0]

    @property
    def load(self) -> Load:
        """How busy they are together."""
        loads = [each.load for each in self.all]
        return Load(
            num_running=sum(each.num_running for each in loads),
            num_waiting=sum(each.num_waiting for each in loads),
            max_running=sum(each.max_running for each in loads) or 1,
            kv_used=max((each.kv_used for each in loads), default=0.0),
            tokens_per_s=sum(each.tokens_per_s for each in loads),
        )
