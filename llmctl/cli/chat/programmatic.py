"""`--style programmatic`: a JSON object a line in, a JSON object a line out, until stdin ends.

A line with `prompt` goes on with the conversation; one with `messages` or `"raw": true` stands by itself.
A line that cannot be answered gives `{"error": ...}` in its place, and the rest goes on.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from llmctl.cli.chat.answer import Answer, ask, hold_back
from llmctl.cli.chat.input import check_open, parse_messages, stdin_bytes
from llmctl.cli.chat.opening import Opener, params_for
from llmctl.cli.console import Console
from llmctl.core import sampling
from llmctl.core.backend import Backend
from llmctl.core.errors import BadFileError, LlmctlError, UsageError
from llmctl.core.settings import REASONS
from llmctl.core.types import ChatRequest, CompletionRequest, GenerationRequest, Message

_OWN_KEYS = ("prompt", "messages", "raw")


class Programmatic:
    """The loop and its conversation."""

    def __init__(self, opener: Opener, *, system: str | None, is_raw: bool = False) -> None:
        """`is_raw`: lines that do not say otherwise are continued as plain text."""
        self._opener = opener
        self._is_raw = is_raw
        self._system = (Message(role="system", content=system),) if system is not None else ()
        self._kept: tuple[Message, ...] = self._system

    def run(self, console: Console) -> int:
        """Answer every line of stdin. Returns 0, or the exit code of the first line that failed."""
        exit_code = 0
        with asyncio.Runner() as runner:
            with console.progress() as progress:
                backend = self._opener.open_now(runner, progress)
            self._sampling = params_for(backend, self._opener.opening.settings)
            for number, line in enumerate(stdin_bytes(), start=1):
                if not line.strip():
                    continue
                try:
                    console.json(self._answer(runner, backend, line, f"line {number}"), indent=None)
                except LlmctlError as error:
                    console.json({"error": error.as_dict()}, indent=None)
                    exit_code = exit_code or error.exit_code
            runner.run(backend.close())
        return exit_code

    def _answer(self, runner: asyncio.Runner, backend: Backend, line: bytes, where: str) -> dict[str, Any]:
        fields = _fields(line, where)
        request = self._request(fields, where)
        answer = Answer()
        runner.run(ask(backend, request, into=answer, show=hold_back))
        if "prompt" in fields and isinstance(request, ChatRequest):
            self._kept = (*request.messages, Message(role="assistant", content=answer.text))
        return answer.as_dict(with_reasoning=self._opener.opening.settings.reasoning != "hide")

    def _request(self, fields: Mapping[str, Any], where: str) -> GenerationRequest:
        try:
            params = sampling.update(
                self._sampling, {key: value for key, value in fields.items() if key not in _OWN_KEYS}
            )
        except UsageError as error:
            raise UsageError(f"{where}: {error.message}", hint=error.hint) from error
        if params.n > 1 or params.prompt_logprobs is not None:
            name = "n" if params.n > 1 else "prompt_logprobs"
            raise UsageError(
                f"{where}: {name} is {getattr(params, name)}, and a line has one answer",
                hint=f"leave {name} out; for several answers give the line several times",
            )
        reasons = REASONS[self._opener.opening.settings.thinking]
        is_raw = fields.get("raw", self._is_raw)
        if is_raw and "messages" in fields:
            raise UsageError(f'{where}: raw text is a "prompt", not "messages"', hint='say "raw": false')
        if "messages" in fields:
            messages = check_open(parse_messages(fields["messages"], where=where), where=where)
            has_system = any(message.role == "system" for message in messages)
            if not has_system:
                messages = (*self._system, *messages)
            return ChatRequest(messages=messages, sampling=params, reasons=reasons)
        prompt = fields["prompt"]
        if is_raw:
            return CompletionRequest(prompt=prompt, sampling=params)
        messages = (*self._kept, Message(role="user", content=prompt))
        return ChatRequest(messages=messages, sampling=params, reasons=reasons)


def _fields(line: bytes, where: str) -> dict[str, Any]:
    """The line's object, its own keys checked."""
    try:
        fields = json.loads(line)
    # ValueError: not UTF-8, not JSON, or a number of more digits than Python reads.
    except (ValueError, RecursionError) as error:
        raise BadFileError(f"{where} is not JSON: {error}") from error
    if not isinstance(fields, dict) or ("prompt" in fields) == ("messages" in fields):
        raise UsageError(f'{where} must be an object with either "prompt" or "messages"')
    if not isinstance(fields.get("prompt", ""), str):
        raise UsageError(f"{where}: prompt must be text, not {json.dumps(fields['prompt'])[:80]}")
    if not isinstance(fields.get("raw", False), bool):
        raise UsageError(f"{where}: raw must be true or false, not {json.dumps(fields['raw'])[:80]}")
    return fields
