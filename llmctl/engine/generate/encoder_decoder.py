"""Generation with models that read with an encoder and write with a decoder: T5, BART and their kin.

The encoder runs once; the decoder starts from its start token and steps as `single` does. Penalties look at
what the decoder has written, as in transformers: repeating words of the prompt is what such models are for.
"""

import itertools
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from llmctl.core.errors import BadFileError
from llmctl.core.types import Delta
from llmctl.engine.detokenize import Vocabulary
from llmctl.engine.generate import answer
from llmctl.engine.generate.answer import NewToken, token_logprob
from llmctl.engine.generate.job import Job
from llmctl.engine.generate.sampler import Sampler
from llmctl.engine.generate.stepper import Stepper, is_of_transformers
from llmctl.loading.architecture import repeats_prompt


def generate(model: Any, vocabulary: Vocabulary, job: Job) -> Generator[Delta, None, None]:
    """As `single.generate`; the prompt of `job` is what the encoder reads, and what usage counts.

    Raises `BadFileError` when the model does not say which token its decoder starts from.
    """
    # Only a decoder that has read the prompt too goes on from its text.
    job = replace(job, is_continuation=repeats_prompt(model.config))
    return answer.stream(vocabulary, job, _tokens(model, vocabulary, job))


def _tokens(model: Any, vocabulary: Vocabulary, job: Job) -> Iterator[NewToken]:
    start_ids = torch.tensor(_start_ids(model, job.prompt_ids), device=model.device)
    step = Stepper(
        model, ids_name="decoder_input_ids", given=_encoded(model, job.prompt_ids), cache=_cache(model)
    )
    logits = step(start_ids)
    rules = _rules(model)
    sampling = job.sampling
    if rules.last_ids:
        # The end that comes at full length is nobody's choice.
        sampling = replace(sampling, min_tokens=min(sampling.min_tokens, job.max_new_tokens - 1))
    sampler = Sampler(sampling, start_ids, len(logits), end_ids=job.end_ids, bad_words=job.bad_words)
    for count in itertools.count(1):
        is_last = count == job.max_new_tokens and bool(rules.last_ids)
        # A decoder that was given more than its start token has its beginning already.
        is_first = count == 1 and len(start_ids) == 1
        token_id = sampler.sample(rules.ruled(logits, is_first=is_first, is_last=is_last))
        yield NewToken(
            token_id=token_id,
            logprob=token_logprob(vocabulary, logits, token_id, job.sampling.logprobs),
            is_forced_end=is_last,
        )
        logits = step(start_ids.new_tensor([token_id]))


def _encoded(model: Any, prompt_ids: tuple[int, ...]) -> dict[str, Any]:
    """What the decoder looks at in every step."""
    ids = torch.tensor([prompt_ids], device=model.device)
    mask = torch.ones_like(ids)
    with torch.no_grad():
        states = model.get_encoder()(input_ids=ids, attention_mask=mask, return_dict=True)
    return {"encoder_outputs": states, "attention_mask": mask}


def _cache(model: Any) -> EncoderDecoderCache | None:
    # That of ProphetNet's own making has too few layers where the decoder is deeper than the encoder.
    return EncoderDecoderCache(DynamicCache(), DynamicCache()) if is_of_transformers(model) else None


def _start_ids(model: Any, prompt_ids: tuple[int, ...]) -> tuple[int, ...]:
    start_id = _setting(model, "decoder_start_token_id")
    if start_id is None:
        start_id = _setting(model, "bos_token_id")
    if start_id is None:
        raise BadFileError(
            f"the model ({type(model).__name__}) does not say which token its decoder starts from",
            hint="put decoder_start_token_id into its generation_config.json",
        )
    if not repeats_prompt(model.config):
        return (start_id,)
    return prompt_ids if prompt_ids[0] == start_id else (start_id, *prompt_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rules:
    """What a model's configuration says of tokens that must and must not come."""

    first_ids: tuple[int, ...]
    """One of these comes first, such as the mark of the language; empty: any."""
    last_ids: tuple[int, ...]
    """One of these fills the last place of an answer that has its full length; empty: any."""
    never_ids: tuple[int, ...]

    def ruled(self, logits: Tensor, *, is_first: bool, is_last: bool) -> Tensor:
        """`logits` [V] with what may not come at minus infinity."""
        forced_ids = self.first_ids if is_first else self.last_ids if is_last else ()
        if forced_ids:
            forced = torch.full_like(logits, -torch.inf)
            forced[list(forced_ids)] = 0.0
            return forced
        if not self.never_ids:
            return logits
        return logits.index_fill(0, torch.tensor(self.never_ids, device=logits.device), -torch.inf)


def _rules(model: Any) -> _Rules:
    # Longer runs of bad words depend on what stands before; a single one, such as the padding, never comes.
    bad = [ids[0] for ids in _setting(model, "bad_words_ids") or () if len(ids) == 1]
    return _Rules(
        first_ids=_ids(_setting(model, "forced_bos_token_id")),
        last_ids=_ids(_setting(model, "forced_eos_token_id")),
        never_ids=(*bad, *(_setting(model, "suppress_tokens") or ())),
    )


def _setting(model: Any, name: str) -> Any:
    # Code of a model's repository may have no settings apart from the configuration.
    return getattr(getattr(model, "generation_config", None) or model.config, name, None)


def _ids(value: int | list[int] | None) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (value,)
