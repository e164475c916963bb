"""What a checkpoint's own files recommend to whoever generates with it: end tokens, sampling, lengths."""

import logging
from collections.abc import Mapping
from typing import Any

from llmctl.core import sampling
from llmctl.core.errors import UsageError
from llmctl.core.types import SamplingParams
from llmctl.loading.checkpoint import Checkpoint
from llmctl.loading.facts.context import context_length

log = logging.getLogger(__name__)

FALLBACK_TEMPERATURE = 0.7
"""For models whose makers recommend nothing, as in FastChat."""
_NOT_FOLLOWED = {
    "num_beams": 1,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
}
"""Recommendations that change an answer and that llmctl has no way to follow, with what means "off"."""


def end_ids(checkpoint: Checkpoint, tokenizer: Any) -> frozenset[int]:
    """Tokens that end an answer, by tokenizer, generation_config.json and config.json together."""
    found = {tokenizer.eos_token_id}
    for config in (checkpoint.generation_config, checkpoint.config):
        ids = config.get("eos_token_id")
        found.update(ids if isinstance(ids, list) else [ids])
    return frozenset(token_id for token_id in found if isinstance(token_id, int) and token_id >= 0)


def recommended_sampling(generation_config: Mapping[str, Any]) -> SamplingParams:
    """What `generation_config.json` recommends; a value outside its range is left out and told."""
    is_greedy = generation_config.get("do_sample") is False
    params = SamplingParams(temperature=0.0 if is_greedy else FALLBACK_TEMPERATURE)
    drawing = () if is_greedy else ("temperature", "top_p", "top_k", "min_p")
    for key in (*drawing, "repetition_penalty"):
        try:
            params = sampling.update(params, {key: generation_config.get(key)})
        except UsageError as error:
            log.warning("generation_config.json: %s; left out", error.message)
    return params


def lengths(checkpoint: Checkpoint, tokenizer: Any) -> tuple[int, int]:
    """Context of encoder and of decoder of a pair, in tokens."""
    found = []
    for side in ("encoder", "decoder"):
        own = checkpoint.config.get(side)
        config = {**checkpoint.config, **(own if isinstance(own, Mapping) else {})}
        limit = config.get(f"max_{side}_position_embeddings")
        config = {**config, "max_position_embeddings": limit} if limit else config
        found.append(context_length(config, tokenizer_limit=tokenizer.model_max_length))
    return found[0], found[1]


def tell_not_followed(checkpoint: Checkpoint) -> None:
    """Say which recommendations change an answer elsewhere and not here."""
    # Older checkpoints have these in config.json.
    settings = {**checkpoint.config, **checkpoint.generation_config}
    given = {key: settings.get(key) for key in _NOT_FOLLOWED}
    told = [f"{key} {value}" for key, value in given.items() if value not in (None, _NOT_FOLLOWED[key])]
    if told:
        log.info("%s recommends %s, which llmctl does not do", checkpoint.name, ", ".join(told))
