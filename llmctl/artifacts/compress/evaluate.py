"""How a model does on a text, and how far another one is from it: what compression cost.

Both are loaded and run as `llmctl chat` runs them. Perplexity is over all tokens of the text but the first of
each window; logits are compared, and 64 tokens of greedy answer, from the beginning of the text.
"""

import gc
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from llmctl.artifacts.compress.windows import tokens_of, windows
from llmctl.core.errors import BadFileError, DoesNotFitError, LlmctlError, UsageError
from llmctl.core.progress import Progress
from llmctl.loading.loader import LoadedModel, LoadRequest, load
from llmctl.loading.planning.request import PlanRequest

NUM_GREEDY = 64
_WINDOW, _MAX_WINDOWS = 512, 64
_NUM_COMPARED = 64
"""Tokens whose logits are compared: those of a large vocabulary take 0.6 MB each."""
_PROMPT = 32
_MIN_TOKENS = 32


class TooShortError(BadFileError):
    """A text of too few tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What a model says before it is changed."""

    perplexity: float
    num_tokens: int
    """Of the text, as far as it was read."""
    logits: Tensor
    """float32 [T, V], on the CPU."""
    answer: Tensor
    """int64 [1, P + A]: the prompt and the greedy answer."""
    prompt_length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A changed model beside what it was."""

    perplexity_before: float
    perplexity_after: float
    num_tokens: int
    largest_logit_change: float
    divergence: float
    """Kullback-Leibler, from what the first model expects to what the second does, in nats a token."""
    greedy_agreement: int
    """Tokens of the first model's greedy answer that the second one would have said there too."""
    greedy_tokens: int
    text: str
    """Which one it was, for the card."""

    def as_dict(self) -> dict[str, Any]:
        """For `--json` and the provenance."""
        return {
            "text": self.text,
            "tokens": self.num_tokens,
            "perplexity_before": round(self.perplexity_before, 4),
            "perplexity_after": round(self.perplexity_after, 4),
            "largest_logit_change": round(self.largest_logit_change, 4),
            "kl_divergence": round(self.divergence, 5),
            "greedy_agreement": self.greedy_agreement,
            "greedy_tokens": self.greedy_tokens,
        }


class Evaluation:
    """One text, and a model before and after."""

    def __init__(self, text: str, *, name: str, progress: Progress) -> None:
        self._text, self._name, self._progress = text, name, progress
        self._reference: Reference | None = None
        self._dtype: str = "auto"
        """What the first model computed in, and so the second: their difference is that of the weights."""

    def before(self, folder: Path) -> None:
        """Run the model that is to be compressed. Raises all that loading raises, and `BadFileError`."""
        self._progress.stage("evaluate before")
        self._reference = self._in_memory(folder, self._refer)

    def after(self, folder: Path) -> Comparison:
        """Run what has become of it; `before` comes first."""
        assert self._reference is not None
        self._progress.stage("evaluate after")
        comparison: Comparison = self._in_memory(folder, self._compare)
        return comparison

    def _in_memory(self, folder: Path, use: Any) -> Any:
        loaded = load(
            LoadRequest(model=str(folder.absolute()), plan=PlanRequest(dtype=self._dtype)), self._progress
        )
        self._dtype = loaded.plan.dtype
        if loaded.generates == "encoder-decoder":
            raise UsageError(f"{loaded.name} has an encoder and a decoder, and only causal models are judged")
        try:
            with torch.inference_mode():
                return use(loaded)
        except torch.OutOfMemoryError as error:
            raise DoesNotFitError(
                f"{loaded.name} loads, but its memory does not suffice to run it"
            ) from error
        finally:
            del loaded
            gc.collect()

    def _refer(self, loaded: LoadedModel) -> Reference:
        given = self._windows(loaded)
        perplexity, num_tokens = _perplexity(loaded.model, given)
        prompt = given[0][:, :_PROMPT]
        return Reference(
            perplexity=perplexity,
            num_tokens=num_tokens,
            logits=_logits(loaded.model, given[0][:, :_NUM_COMPARED])[0].float().cpu(),
            answer=_greedy(loaded, prompt),
            prompt_length=prompt.shape[1],
        )

    def _compare(self, loaded: LoadedModel) -> Comparison:
        was = self._reference
        assert was is not None
        given = self._windows(loaded)
        perplexity, num_tokens = _perplexity(loaded.model, given)
        logits = _logits(loaded.model, given[0][:, :_NUM_COMPARED])[0].float().cpu()
        said = _logits(loaded.model, was.answer)[0, was.prompt_length - 1 : -1].argmax(-1).cpu()
        answer = was.answer[0, was.prompt_length :]
        return Comparison(
            perplexity_before=was.perplexity,
            perplexity_after=perplexity,
            num_tokens=num_tokens,
            # A token that a model never says has minus infinity in both.
            largest_logit_change=float((logits - was.logits).nan_to_num(0.0).abs().max()),
            divergence=_divergence(was.logits, logits),
            greedy_agreement=int((said == answer).sum()),
            greedy_tokens=len(answer),
            text=self._name,
        )

    def _windows(self, loaded: LoadedModel) -> list[Tensor]:
        """int64 [1, T] each."""
        ids = tokens_of(self._text, loaded.tokenizer)
        if len(ids) < _MIN_TOKENS:
            raise TooShortError(
                f"{self._name} has {len(ids)} tokens, and a model is judged on {_MIN_TOKENS} at the least",
                hint="give a longer text, or --no-eval",
            )
        # Room for the answer too, which starts in the first one.
        length = max(2, min(_WINDOW, loaded.context_length))
        return windows(ids, loaded.tokenizer, length=length, most=_MAX_WINDOWS)


def _perplexity(model: Any, given: list[Tensor]) -> tuple[float, int]:
    total, count = 0.0, 0
    for ids in given:
        if ids.shape[1] < 2:
            continue
        likelihood = _logits(model, ids)[0, :-1].float().log_softmax(-1)
        total -= float(likelihood.gather(-1, ids[0, 1:, None].to(likelihood.device)).double().sum())
        count += ids.shape[1] - 1
    if math.isnan(total):
        raise BadFileError("it gives logits that are no numbers (NaN)")
    # Beyond that the number says nothing but "broken".
    return math.exp(min(total / max(count, 1), 700.0)), count


def _divergence(one: Tensor, other: Tensor) -> float:
    expected, found = one.log_softmax(-1), other.log_softmax(-1)
    return float((expected.exp() * (expected - found)).nan_to_num(0.0).sum(-1).mean())


def _logits(model: Any, ids: Tensor) -> Tensor:
    """[1, T, V]."""
    found: Tensor = model(ids.to(model.device), use_cache=False).logits
    return found


def _greedy(loaded: LoadedModel, prompt: Tensor) -> Tensor:
    """The prompt [1, P] and what the model goes on with: as many tokens as were wanted, if they fit."""
    room = min(NUM_GREEDY, loaded.context_length - prompt.shape[1])
    if room < 1:
        return prompt
    plain = transformers.GenerationConfig(
        do_sample=False, num_beams=1, max_new_tokens=room, pad_token_id=0, eos_token_id=None, use_cache=True
    )
    model = loaded.model
    kept, model.generation_config = model.generation_config, plain
    try:
        said: Tensor = model.generate(prompt.to(model.device), attention_mask=torch.ones_like(prompt))
    finally:
        model.generation_config = kept
    return said.cpu()


def why_not(error: LlmctlError) -> str:
    """Why a model was not evaluated, as words after "because"."""
    return f"{error.message} ({error.hint})" if error.hint else error.message
