"""Answers of `/v1/completions`: deltas into one object, or into the events of a stream."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from llmctl.core.types import Delta, TokenLogprob
from llmctl.services.openai.calls import CompletionCall, Echo
from llmctl.services.openai.head import FINISH_REASONS, Head, Tally, encoded
from llmctl.services.openai.logprobs import Legacy, prompt_entries
from llmctl.services.openai.streaming import Choice, ChunkStream, Shape

PREFIX = "cmpl"
"""Of the ids of answers."""
KIND = "text_completion"
_SHAPE = Shape(kind=KIND, before_text='"text":', after_text="", without_text='"text":""')


class CompletionAnswer:
    """`push` for each delta, then `whole`. Choices are in the order of the prompts, `n` for each."""

    def __init__(self, call: CompletionCall, head: Head, *, echoes: Sequence[Echo] = ()) -> None:
        """`echoes`: of each prompt, when the call asks for them."""
        self._call, self._head, self._echoes = call, head, echoes
        self._pieces: list[list[Delta]] = [[] for _ in range(len(call.requests) * call.n)]
        self._prompt_logprobs: list[list[TokenLogprob]] = [[] for _ in call.requests]

    def push(self, delta: Delta, *, prompt: int = 0) -> None:
        """Take note of a piece of an answer to the prompt of this number."""
        self._prompt_logprobs[prompt] += delta.prompt_logprobs
        self._pieces[prompt * self._call.n + delta.index].append(_wanted(self._call, delta))

    def whole(self) -> dict[str, Any]:
        """The answer, once each choice has ended."""
        tally = Tally()
        choices = [self._choice(index, pieces, tally) for index, pieces in enumerate(self._pieces)]
        return self._head.as_dict(KIND) | {"choices": choices, "usage": tally.as_dict()}

    def _choice(self, index: int, pieces: list[Delta], tally: Tally) -> dict[str, Any]:
        call, prompt = self._call, index // self._call.n
        finish = pieces[-1].finish if pieces else None
        assert finish is not None, "a backend's last delta has a finish"
        tally.add(finish.usage, prompt=prompt)
        echo = self._echoes[prompt].text if call.echoes else ""
        choice = {
            "index": index,
            "text": echo + "".join(delta.text for delta in pieces),
            "logprobs": None if call.logprobs is None else self._legacy(prompt, pieces, call.logprobs),
            "finish_reason": FINISH_REASONS[finish.reason],
        }
        if call.prompt_logprobs is not None:
            choice["prompt_logprobs"] = prompt_entries(self._prompt_logprobs[prompt], call.prompt_logprobs)
        return choice

    def _legacy(self, prompt: int, pieces: list[Delta], count: int) -> dict[str, Any]:
        legacy, start = Legacy(), 0
        if self._call.echoes:
            start = legacy.add_prompt(self._echoes[prompt], self._prompt_logprobs[prompt], count)
        for delta in pieces:
            start = legacy.add(delta, start, count)
        return legacy.as_dict()


class CompletionStream(ChunkStream):
    """See `ChunkStream`; choices are in the order of the prompts, `n` for each."""

    def __init__(self, call: CompletionCall, head: Head, *, echoes: Sequence[Echo] = ()) -> None:
        """`echoes`: of each prompt, when the call asks for them."""
        super().__init__(
            head,
            _SHAPE,
            call.delivery,
            num_choices=call.n,
            num_prompts=len(call.requests),
            # Log-probabilities tell where in the text they are, and a token that nobody wants is dropped.
            is_plain=call.logprobs is None and not call.is_prompt_only,
        )
        self._call, self._echoes = call, echoes
        self._prompt_logprobs: dict[int, tuple[TokenLogprob, ...]] = {}

    def _opening(self, choice: Choice, delta: Delta) -> Iterator[str]:
        call, prompt = self._call, choice.prompt
        if delta.prompt_logprobs:
            self._prompt_logprobs[prompt] = delta.prompt_logprobs
        if not call.echoes:
            return
        echo, logprobs = self._echoes[prompt], "null"
        if call.logprobs is not None:
            legacy = Legacy()
            choice.num_characters = legacy.add_prompt(
                echo, self._prompt_logprobs.get(prompt, ()), call.logprobs
            )
            logprobs = encoded(legacy.as_dict())
        if echo.text or logprobs != "null":
            yield self._chunk(choice, self._text(echo.text), logprobs=logprobs)

    def _piece(self, choice: Choice, delta: Delta) -> Iterator[str]:
        logprobs = "null"
        if self._call.logprobs is not None and delta.logprobs:
            legacy = Legacy()
            choice.num_characters = legacy.add(delta, choice.num_characters, self._call.logprobs)
            logprobs = encoded(legacy.as_dict())
        if delta.text or logprobs != "null":
            yield self._chunk(choice, self._text(delta.text), logprobs=logprobs)

    def _heard(self, delta: Delta) -> Delta:
        return _wanted(self._call, delta)


def _wanted(call: CompletionCall, delta: Delta) -> Delta:
    """`delta` without the token that no one asked for, and with what a reasoning model says as text."""
    if delta.reasoning:
        delta = replace(delta, text=delta.reasoning + delta.text, reasoning="")
    if not call.is_prompt_only:
        return delta
    finish = delta.finish
    if finish is not None:
        usage = finish.usage and replace(finish.usage, completion_tokens=0)
        finish = replace(finish, reason="length", usage=usage)
    return replace(delta, text="", token_ids=(), logprobs=(), finish=finish)
