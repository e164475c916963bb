"""Answers one prompt and ends: the answer goes to stdout, everything else to stderr."""

import asyncio

from llmctl.cli.chat.answer import Answer, ask, hold_back, is_full, last_code_block
from llmctl.cli.chat.conversation import Conversation
from llmctl.cli.chat.flags import Output
from llmctl.cli.chat.opening import Opener, params_for
from llmctl.cli.chat.streams import TextStream, reasoning_stream, text_stream
from llmctl.cli.console import Console
from llmctl.core.backend import Backend
from llmctl.core.errors import LlmctlError
from llmctl.core.settings import REASONS
from llmctl.core.types import ChatRequest, CompletionRequest, GenerationRequest, Message


class Once:
    """One question to one backend."""

    def __init__(self, console: Console, opener: Opener, output: Output) -> None:
        self._console = console
        self._opener = opener
        self._output = output

    def answer(self, prompt: str | tuple[Message, ...], *, conversation: Conversation | None = None) -> int:
        """Open the backend and answer.

        `prompt` is the next question of `conversation`, which keeps it and its answer; without one it is a
        list of messages to answer, or text to go on with as it is.
        """
        with asyncio.Runner() as runner:
            with self._console.progress() as progress:
                backend = self._opener.open_now(runner, progress)
            try:
                answer = self._asked(runner, backend, prompt, conversation)
            finally:
                runner.run(backend.close())
        self._show_whole(answer, backend)
        return 0

    def _asked(
        self,
        runner: asyncio.Runner,
        backend: Backend,
        prompt: str | tuple[Message, ...],
        conversation: Conversation | None,
    ) -> Answer:
        request = self._request(backend, prompt, conversation)
        answer, text, reasoning = Answer(), self._text(), self._reasoning()
        show = text.feed if text is not None else hold_back
        think = reasoning.feed if reasoning is not None else hold_back
        try:
            runner.run(ask(backend, request, into=answer, show=show, show_reasoning=think))
        finally:
            # The shell's prompt, or an error, must not stand behind half an answer.
            for stream in (reasoning, text):
                if stream is not None:
                    stream.finish()
            if conversation is not None:
                conversation.settle(answer, model=self._opener.identity)
        return answer

    def _request(
        self, backend: Backend, prompt: str | tuple[Message, ...], conversation: Conversation | None
    ) -> GenerationRequest:
        settings = self._opener.opening.settings
        params, reasons = params_for(backend, settings), REASONS[settings.thinking]
        if conversation is not None:
            assert isinstance(prompt, str)
            conversation.add_question(prompt, model=self._opener.identity)
            return ChatRequest(messages=conversation.messages, sampling=params, reasons=reasons)
        if isinstance(prompt, str):
            return CompletionRequest(prompt=prompt, sampling=params)
        return ChatRequest(messages=prompt, sampling=params, reasons=reasons)

    def _text(self) -> TextStream | None:
        if self._output.is_json or self._output.extracts_code:
            return None
        return text_stream(self._console, self._output.style or "simple")

    def _reasoning(self) -> TextStream | None:
        is_wanted = self._opener.opening.settings.reasoning == "show" and self._console.is_watched
        return reasoning_stream(self._console) if is_wanted and self._text() is not None else None

    def _show_whole(self, answer: Answer, backend: Backend) -> None:
        """What is shown only when the answer is complete."""
        if self._output.is_json:
            shown = answer.as_dict(with_reasoning=self._opener.opening.settings.reasoning != "hide")
            self._console.json({"model": backend.info.name, **shown})
        elif self._output.extracts_code:
            code = last_code_block(answer.text)
            if code is None:
                self._console.note(answer.text, is_vital=True)
                raise LlmctlError(
                    "the answer has no code block", hint="it stands above; leave out -x to take it all"
                )
            self._console.write(code)
        else:
            if not answer.text:
                self._console.line()
            self._tell_cut(answer, backend)

    def _tell_cut(self, answer: Answer, backend: Backend) -> None:
        """An answer that was cut off looks whole."""
        if answer.finish is None or answer.finish.reason != "length":
            return
        limit = self._opener.opening.settings.sampling.get("max_new_tokens")
        if is_full(answer, backend.info.context_length):
            why = "the context is full"
        else:
            why = (
                f"max_new_tokens {limit}"
                if limit is not None
                else "at a limit of the model's or server's own"
            )
        self._console.note(f"(the answer is cut off: {why})")
