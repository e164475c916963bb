"""Reads the chunks of one answer into deltas: text, reasoning, log-probabilities, the end, the usage."""

import logging
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

from llmctl.core.reasoning import CLOSE, OPEN, ReasoningSplitter
from llmctl.core.types import (
    Candidate,
    ChatRequest,
    Delta,
    Finish,
    FinishReason,
    GenerationRequest,
    Timings,
    TokenLogprob,
    Usage,
)
from llmctl.services.upstream.faults import Faults

log = logging.getLogger(__name__)

UNKNOWN_TOKEN_ID = -1
"""Servers tell a token's text and not its id."""
_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
}
_TOOL_REASONS = ("tool_calls", "function_call", "tool_use")
_HIGH_SURROGATE = re.compile("[\ud800-\udbff]$")


class _ShapeError(ValueError):
    """A chunk has not the shape that the protocol gives it."""


class AnswerReader:
    """One answer on its way; `read` is called for each chunk, then `rest`, then `finish`."""

    def __init__(self, faults: Faults, request: GenerationRequest) -> None:
        self._faults = faults
        self._has_limit = request.sampling.max_new_tokens is not None
        is_answer = isinstance(request, ChatRequest) and not request.continues_last
        self._splitter = ReasoningSplitter() if is_answer else None
        self._start_s = time.monotonic()
        self._first_token_s: float | None = None
        self._has_pieces = False
        self._half = ""
        """The first half of a character that JSON cut in two."""
        self._has_choice = False
        self._reason: str | None = None
        self._usage: Usage | None = None

    @property
    def has_begun(self) -> bool:
        """Whether any text or reasoning came."""
        return self._has_pieces

    @property
    def is_answered(self) -> bool:
        """Whether the server has said why the answer ends; at most its usage is still to come."""
        return self._reason is not None

    def read(self, chunk: Any) -> Delta | None:
        """What a chunk brings for the reader of the answer.

        Raises `LlmctlError` for an error object, a call of a tool, and what is no chunk.
        """
        if error := _error_of(chunk):
            raise self._faults.told(error)
        try:
            return self._read(chunk)
        except _ShapeError as error:
            raise self._faults.garbage("a chunk of an answer", chunk) from error

    def rest(self) -> Delta | None:
        """What was held back because more could have come."""
        text = "\ufffd" if self._half else ""
        self._half = ""
        if self._splitter is None:
            return Delta(text=text) if text else None
        parts, rest = self._splitter.push(text), self._splitter.finish()
        return _delta(parts.text + rest.text, parts.reasoning + rest.reasoning, ())

    def finish(self, *, is_whole: bool) -> Delta:
        """The last delta, after the body's end; `is_whole`: whether that said that it is the end.

        Raises `UnreachableError` for an answer that was cut off, and `LlmctlError` for one that ended for a
        reason that is neither the model's nor a limit.
        """
        total_s = time.monotonic() - self._start_s
        reason = self._finish_reason(is_whole=is_whole)
        if reason == "length" and not self._has_limit:
            log.warning("the server ended the answer at a limit of its own, or where its context ends")
        first_token_s = total_s if self._first_token_s is None else self._first_token_s
        timings = Timings(first_token_s=first_token_s, total_s=total_s)
        return Delta(finish=Finish(reason=reason, usage=self._final_usage(), timings=timings))

    def _read(self, chunk: Any) -> Delta | None:
        if not isinstance(chunk, dict):
            raise _ShapeError
        self._usage = _usage(chunk.get("usage")) or self._usage
        choice = _choice(chunk)
        if choice is None:
            return None
        self._has_choice = True
        part = _part(choice)
        self._refuse_tools(part)
        text = _text(part.get("content")) + _text(part.get("refusal")) + _text(choice.get("text"))
        # Some servers send the same under both names.
        reasoning = _text(part.get("reasoning_content")) or _text(part.get("reasoning"))
        if reasoning and not self.has_begun and self._splitter is not None:
            # The server itself tells the two apart: what follows is text, but for the blank lines before it.
            self._splitter.push(OPEN + CLOSE)
        if text or reasoning:
            self._count()
        self._reason = _optional_text(choice.get("finish_reason")) or self._reason
        return self._delta(text, reasoning, tuple(_logprobs(choice.get("logprobs"))))

    def _delta(self, text: str, reasoning: str, logprobs: tuple[TokenLogprob, ...]) -> Delta | None:
        text, reasoning = self._whole(text), _mended(reasoning)
        if self._splitter is None or not text:
            return _delta(text, reasoning, logprobs)
        parts = self._splitter.push(text)
        return _delta(parts.text, reasoning + parts.reasoning, logprobs)

    def _count(self) -> None:
        self._has_pieces = True
        if self._first_token_s is None:
            self._first_token_s = time.monotonic() - self._start_s

    def _whole(self, text: str) -> str:
        """`text` without the first half of a character at its end, which waits for the second."""
        if not text:
            return ""
        text = self._half + text
        match = _HIGH_SURROGATE.search(text)
        self._half = match[0] if match else ""
        return _mended(text.removesuffix(self._half))

    def _refuse_tools(self, part: dict[str, Any]) -> None:
        calls = part.get("tool_calls") or part.get("function_call")
        if not calls:
            return
        call = calls[0] if isinstance(calls, list) else calls
        function = call.get("function", call) if isinstance(call, dict) else None
        raise self._faults.without_tools(function.get("name") if isinstance(function, dict) else None)

    def _finish_reason(self, *, is_whole: bool) -> FinishReason:
        told = self._reason
        if told in _REASONS:
            return _REASONS[told]
        if told in _TOOL_REASONS:
            raise self._faults.without_tools(None)
        if told is not None:
            raise self._faults.ended(told)
        if not is_whole:
            raise self._faults.cut_off()
        if not self._has_choice:
            raise self._faults.garbage("an answer", "")
        log.info("the server gave no finish_reason: taken as the answer's end")
        return "stop"

    def _final_usage(self) -> Usage | None:
        if self._usage is None:
            log.info("the server told no usage, so nobody knows how many tokens there were")
        return self._usage


def _error_of(chunk: Any) -> Any:
    """What is wrong, in a chunk that says so; FastChat and old vLLM make the chunk itself the error."""
    if not isinstance(chunk, dict):
        return None
    is_error = chunk.get("object") == "error" or chunk.get("error_code")
    return chunk.get("error") or (chunk if is_error else None)


def _choice(chunk: dict[str, Any]) -> dict[str, Any] | None:
    """The one choice that was asked for; a chunk of usage has none."""
    choices = chunk.get("choices") or []
    if not isinstance(choices, list) or not all(isinstance(each, dict) for each in choices):
        raise _ShapeError
    return next((each for each in choices if not each.get("index")), None)


def _part(choice: dict[str, Any]) -> dict[str, Any]:
    part = choice.get("delta") or choice.get("message") or {}
    if not isinstance(part, dict):
        raise _ShapeError
    return part


def _text(value: Any) -> str:
    """A string, null, or a list of text parts."""
    if not isinstance(value, list):
        return _optional_text(value) or ""
    if not all(isinstance(part, dict) and part.get("type") == "text" for part in value):
        raise _ShapeError
    return "".join(_text(part.get("text")) for part in value)


def _optional_text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise _ShapeError
    return value


def _mended(text: str) -> str:
    """`text` with halves of characters joined, and single ones replaced."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _delta(text: str, reasoning: str, logprobs: tuple[TokenLogprob, ...]) -> Delta | None:
    return Delta(text=text, reasoning=reasoning, logprobs=logprobs) if text or reasoning or logprobs else None


_MAX_COUNT = 2**53
"""What is more than this, or negative, is no number of tokens."""


def _usage(told: Any) -> Usage | None:
    if not isinstance(told, dict):
        return None
    counts = [told.get(key) for key in ("prompt_tokens", "completion_tokens")]
    if not all(isinstance(count, int) and 0 <= count <= _MAX_COUNT for count in counts):
        return None
    return Usage(prompt_tokens=counts[0] or 0, completion_tokens=counts[1] or 0)


def _logprobs(told: Any) -> Iterator[TokenLogprob]:
    """Both shapes: a list of objects under `content`, and the parallel lists of the legacy protocol."""
    if told is None:
        return
    try:
        if "tokens" in told:
            yield from _legacy_logprobs(told)
        else:
            for entry in told.get("content") or []:
                top = map(_candidate, entry.get("top_logprobs") or [])
                yield TokenLogprob(chosen=_candidate(entry), top=tuple(top))
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
        raise _ShapeError from error


def _legacy_logprobs(told: dict[str, Any]) -> Iterator[TokenLogprob]:
    tokens = told["tokens"]
    tops: Iterable[dict[str, float] | None] = told.get("top_logprobs") or [None] * len(tokens)
    for token, logprob, top in zip(tokens, told["token_logprobs"], tops, strict=True):
        likely = [_candidate({"token": each, "logprob": value}) for each, value in (top or {}).items()]
        likely.sort(key=lambda candidate: -candidate.logprob)
        yield TokenLogprob(chosen=_candidate({"token": token, "logprob": logprob}), top=tuple(likely))


def _candidate(entry: dict[str, Any]) -> Candidate:
    return Candidate(
        token_id=UNKNOWN_TOKEN_ID, token=_mended(str(entry["token"])), logprob=float(entry["logprob"])
    )
