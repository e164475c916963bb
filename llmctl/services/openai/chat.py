"""Answers of `/v1/chat/completions`: deltas into one object, or into the events of a stream."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from llmctl.core.types import Delta, Finish, TokenLogprob
from llmctl.services.openai.calls import ChatCall
from llmctl.services.openai.head import FINISH_REASONS, Head, Tally, encoded, quoted
from llmctl.services.openai.logprobs import chat_entries, prompt_entries
from llmctl.services.openai.streaming import Choice, ChunkStream, Shape

PREFIX = "chatcmpl"
"""Of the ids of answers."""
_SHAPE = Shape(
    kind="chat.completion.chunk",
    before_text='"delta":{"content":',
    after_text="}",
    without_text='"delta":{}',
)
_ROLE = '"delta":{"role":"assistant","content":""}'


@dataclass(slots=True)
class _Said:
    """A choice, as far as it has come."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: Finish | None = None


class ChatAnswer:
    """`push` for each delta, then `whole`."""

    def __init__(self, call: ChatCall, head: Head) -> None:
        self._head = head
        self._sampling = call.request.sampling
        self._said = [_Said() for _ in range(self._sampling.n)]
        self._prompt_logprobs: list[TokenLogprob] = []

    def push(self, delta: Delta) -> None:
        """Take note of a piece."""
        said = self._said[delta.index]
        said.text.append(delta.text)
        said.reasoning.append(delta.reasoning)
        said.logprobs += delta.logprobs
        self._prompt_logprobs += delta.prompt_logprobs
        said.finish = delta.finish or said.finish

    def whole(self) -> dict[str, Any]:
        """The answer, once each choice has ended."""
        tally = Tally()
        choices = [self._choice(index, said, tally) for index, said in enumerate(self._said)]
        answer = self._head.as_dict("chat.completion") | {"choices": choices, "usage": tally.as_dict()}
        if (count := self._sampling.prompt_logprobs) is not None:
            answer["prompt_logprobs"] = prompt_entries(self._prompt_logprobs, count)
        return answer

    def _choice(self, index: int, said: _Said, tally: Tally) -> dict[str, Any]:
        assert said.finish is not None, "a backend's last delta has a finish"
        tally.add(said.finish.usage, prompt=0)
        message = {"role": "assistant", "content": "".join(said.text), "refusal": None}
        if reasoning := "".join(said.reasoning):
            message["reasoning_content"] = reasoning
        wanted = self._sampling.logprobs is not None
        return {
            "index": index,
            "message": message,
            "logprobs": {"content": chat_entries(said.logprobs), "refusal": None} if wanted else None,
            "finish_reason": FINISH_REASONS[said.finish.reason],
        }


class ChatStream(ChunkStream):
    """See `ChunkStream`."""

    def __init__(self, call: ChatCall, head: Head) -> None:
        super().__init__(head, _SHAPE, call.delivery, num_choices=call.request.sampling.n)

    def _opening(self, choice: Choice, delta: Delta) -> Iterator[str]:
        yield self._chunk(choice, _ROLE)

    def _piece(self, choice: Choice, delta: Delta) -> Iterator[str]:
        logprobs = "null"
        if delta.logprobs:
            logprobs = encoded({"content": chat_entries(delta.logprobs), "refusal": None})
        if delta.reasoning:
            yield self._chunk(
                choice, f'"delta":{{"reasoning_content":{quoted(delta.reasoning)}}}', logprobs=logprobs
            )
            logprobs = "null"
        if delta.text or logprobs != "null":
            yield self._chunk(choice, self._text(delta.text), logprobs=logprobs)
