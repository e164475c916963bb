"""FastChat's way to generate with a loaded model, over llmctl's own: `get_generate_stream_function`."""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llmctl.core import sampling
from llmctl.core.errors import ContextOverflowError, UsageError
from llmctl.core.types import Delta, SamplingParams
from llmctl.engine.generate.choose import stream_function
from llmctl.engine.generate.job import Job

log = logging.getLogger(__name__)

Frames = Iterator[dict[str, Any]]
_JACOBI_NAME = "consistency-llm"
_DEFAULT_NEW_TOKENS = 256
_GREEDY_BELOW = 1e-5
_SAMPLING = ("temperature", "top_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed")


def get_generate_stream_function(model: Any, model_path: str) -> Callable[..., Frames]:
    """The function that answers for `model`: `stream(model, tokenizer, params, device, context_len)`.

    Its frames are dicts of the whole text so far ("text", after the prompt unless `echo` is False), "usage",
    "finish_reason" (None, then "stop" or "length") and "logprobs" (None). Of `params` it takes prompt, echo,
    stop, stop_token_ids, max_new_tokens and the sampling settings. The device is the model's own.
    """
    if getattr(model.config, "is_encoder_decoder", False):
        way = "encoder-decoder"
    else:
        way = "jacobi" if _JACOBI_NAME in model_path.lower() else "causal"
    generate = stream_function(way)

    def stream(
        model: Any,
        tokenizer: Any,
        params: Mapping[str, Any],
        device: Any,
        context_len: int,
        stream_interval: int = 2,
        judge_sent_end: bool = False,
    ) -> Frames:
        if judge_sent_end or params.get("logprobs") is not None:
            name = "judge_sent_end" if judge_sent_end else "logprobs"
            raise UsageError(f"generate_stream does not take {name}", hint="the API server gives logprobs")
        job = _job(model, tokenizer, params, context_len, is_pair=way == "encoder-decoder")
        deltas = generate(model, tokenizer, job)
        is_echoed = params.get("echo", True) and way != "encoder-decoder"
        yield from _frames(
            deltas, job, before=params["prompt"] if is_echoed else "", interval=max(1, stream_interval)
        )

    return stream


def _job(model: Any, tokenizer: Any, params: Mapping[str, Any], context_len: int, *, is_pair: bool) -> Job:
    chosen = _sampling(params)
    count = chosen.max_new_tokens or _DEFAULT_NEW_TOKENS
    ids = tokenizer.encode(params["prompt"])
    room = context_len if is_pair else context_len - count - 1
    if room < 1:
        raise ContextOverflowError(
            f"max_new_tokens {count} leave no room for a prompt in a context of {context_len} tokens",
            hint="give less",
        )
    if len(ids) > room:
        log.warning("the prompt has %d tokens, and only its last %d are read", len(ids), room)
    return Job(
        prompt_ids=tuple(ids[-room:]),
        sampling=chosen,
        end_ids=frozenset(_end_ids(model, tokenizer)) | frozenset(chosen.stop_token_ids),
        max_new_tokens=count,
        is_continuation=True,
    )


def _sampling(params: Mapping[str, Any]) -> SamplingParams:
    values = {key: params[key] for key in _SAMPLING if params.get(key) is not None}
    if values.get("top_p", 1.0) < _GREEDY_BELOW:
        values |= {"temperature": 0.0, "top_p": 1.0}
    if values.get("temperature", 1.0) < _GREEDY_BELOW:
        values["temperature"] = 0.0
    # -1 is all in FastChat.
    values["top_k"] = max(0, params.get("top_k") or 0)
    values["max_new_tokens"] = params.get("max_new_tokens") or _DEFAULT_NEW_TOKENS
    values["stop"] = params.get("stop") or None
    values["stop_token_ids"] = params.get("stop_token_ids") or None
    return sampling.update(SamplingParams(), values)


def _end_ids(model: Any, tokenizer: Any) -> Iterator[int]:
    for source in (tokenizer, getattr(model, "generation_config", None), model.config):
        ids = getattr(source, "eos_token_id", None)
        yield from (each for each in (ids if isinstance(ids, list) else [ids]) if isinstance(each, int))


def _frames(deltas: Iterator[Delta], job: Job, *, before: str, interval: int) -> Frames:
    text = before
    for count, delta in enumerate(deltas, start=1):
        text += delta.text
        if delta.finish is None and count % interval:
            continue
        num_prompt = len(job.prompt_ids)
        yield {
            "text": text,
            "logprobs": None,
            "usage": {
                "prompt_tokens": num_prompt,
                "completion_tokens": count,
                "total_tokens": num_prompt + count,
            },
            "finish_reason": delta.finish.reason if delta.finish is not None else None,
        }
