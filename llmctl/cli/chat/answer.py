"""One answer: asked of a backend, shown while it comes, kept whole for whoever needs it after."""

import re
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from typing import Any

from llmctl.core.backend import Backend
from llmctl.core.types import Finish, GenerationRequest, TokenLogprob

_FENCED = re.compile(
    r"^(?P<fence>`{3,}|~{3,})[^\n]*\n(?P<code>.*?)^(?P=fence)[ \t]*$", re.MULTILINE | re.DOTALL
)


@dataclass(slots=True)
class Answer:
    """What has come so far; `finish` is None while the stream runs and after an interruption."""

    text: str = ""
    reasoning: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: Finish | None = None

    def as_dict(self, *, with_reasoning: bool = True) -> dict[str, Any]:
        """The JSON form: text, reasoning, finish_reason, usage, timings, logprobs; what there is of them."""
        assert self.finish is not None
        usage, timings, rate = self.finish.usage, self.finish.timings, tokens_per_s(self.finish)
        shown: dict[str, Any] = {
            "text": self.text,
            **({"reasoning": self.reasoning} if self.reasoning and with_reasoning else {}),
            "finish_reason": self.finish.reason,
            "usage": usage
            and {
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "total_tokens": usage.total_tokens,
            },
            "timings": {
                "first_token_s": round(timings.first_token_s, 6),
                "total_s": round(timings.total_s, 6),
                "tokens_per_s": round(rate, 3) if rate is not None else None,
            },
        }
        if self.logprobs:
            shown["logprobs"] = [_logprob(entry) for entry in self.logprobs]
        return shown


def tokens_per_s(finish: Finish) -> float | None:
    """The rate behind the first token, None when there is nothing to measure."""
    later_s = finish.timings.total_s - finish.timings.first_token_s
    if finish.usage is None or finish.usage.completion_tokens < 2 or later_s <= 0:
        return None
    return (finish.usage.completion_tokens - 1) / later_s


def is_full(answer: Answer, context_length: int | None) -> bool:
    """Whether the answer ended because nothing more fits."""
    finish = answer.finish
    if finish is None or finish.usage is None or finish.reason != "length" or context_length is None:
        return False
    return finish.usage.total_tokens >= context_length


def hold_back(_piece: str) -> None:
    """For those who show nothing before the answer is whole."""


async def ask(
    backend: Backend,
    request: GenerationRequest,
    *,
    into: Answer,
    show: Callable[[str], None],
    show_reasoning: Callable[[str], None] = hold_back,
) -> None:
    """Stream an answer into `into`, handing each piece of text and of reasoning to be shown."""
    async with aclosing(backend.generate(request)) as deltas:
        async for delta in deltas:
            if delta.reasoning:
                into.reasoning += delta.reasoning
                show_reasoning(delta.reasoning)
            if delta.text:
                into.text += delta.text
                show(delta.text)
            into.logprobs.extend(delta.logprobs)
            into.finish = delta.finish


def last_code_block(text: str) -> str | None:
    """The inside of the last fenced block of a markdown text."""
    blocks = [match["code"] for match in _FENCED.finditer(text)]
    return blocks[-1] if blocks else None


def _logprob(entry: TokenLogprob) -> dict[str, Any]:
    return {**asdict(entry.chosen), "top": [asdict(candidate) for candidate in entry.top]}
