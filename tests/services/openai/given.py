"""Bodies, deltas and events for the tests of the protocol."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from llmctl.core.types import (
    Candidate,
    Delta,
    Finish,
    FinishReason,
    SamplingParams,
    Timings,
    TokenLogprob,
    Usage,
)
from llmctl.services.http.errors import ParameterError
from llmctl.services.openai import reading
from llmctl.services.openai.calls import ChatCall, CompletionCall
from llmctl.services.openai.head import Head

DEFAULT = SamplingParams(temperature=0.7)
HEAD = Head(model="demo", id="chatcmpl-1", created=1_700_000_000)
ASKED = [{"role": "user", "content": "Hi"}]


def chat(**fields: Any) -> ChatCall:
    return reading.chat_request({"model": "demo", "messages": ASKED, **fields}, DEFAULT)


def completion(**fields: Any) -> CompletionCall:
    return reading.completion_calls({"model": "demo", "prompt": "Once", **fields}, DEFAULT)


def refusal(read: Any, **fields: Any) -> ParameterError:
    """The error over a body that `read` is given."""
    with pytest.raises(ParameterError) as caught:
        read(**fields)
    return caught.value


def token(text: str, logprob: float = -0.5, *, others: Sequence[tuple[str, float]] = ()) -> TokenLogprob:
    """A token whose id is its length, and what else could stand there."""
    top = [Candidate(token_id=len(each), token=each, logprob=value) for each, value in others]
    return TokenLogprob(chosen=Candidate(token_id=len(text), token=text, logprob=logprob), top=tuple(top))


def piece(text: str, **fields: Any) -> Delta:
    """A delta of one token."""
    return Delta(text=text, token_ids=(1,), **fields)


def end(
    num_prompt: int = 3,
    num_completion: int = 2,
    *,
    reason: FinishReason = "stop",
    text: str = "",
    index: int = 0,
) -> Delta:
    """The last delta of an answer."""
    usage = Usage(prompt_tokens=num_prompt, completion_tokens=num_completion)
    finish = Finish(reason=reason, usage=usage, timings=Timings(first_token_s=0.1, total_s=0.2))
    return Delta(text=text, token_ids=(2,), finish=finish, index=index)


def events(stream: bytes) -> list[Any]:
    """What the events of a stream say; it must end in `[DONE]`, which is left out."""
    assert stream.endswith(b"\n\n")
    lines = stream.decode("ascii").removesuffix("\n\n").split("\n\n")
    assert all(line.startswith("data: ") and "\n" not in line for line in lines)
    *said, done = (line.removeprefix("data: ") for line in lines)
    assert done == "[DONE]"
    return [json.loads(each) for each in said]
