"""Chat at a terminal, in its plainest form: a line in, an answer out, until Ctrl-D."""

import asyncio

from llmctl.cli.chat.answer import Answer, ask
from llmctl.cli.console import Console
from llmctl.core.backend import Backend
from llmctl.core.errors import LlmctlError
from llmctl.core.types import ChatRequest, Message, SamplingParams


class Loop:
    """One conversation at a terminal."""

    def __init__(self, backend: Backend, sampling_params: SamplingParams, *, system: str | None) -> None:
        self._backend = backend
        self._sampling = sampling_params
        self._messages: tuple[Message, ...] = (
            (Message(role="system", content=system),) if system is not None else ()
        )

    def run(self, console: Console) -> int:
        """Ask and answer until the input ends. Ctrl-C stops an answer and keeps what was said of it."""
        import readline  # noqa: F401  # line editing for input()

        console.note(f"{self._backend.info.name}: Ctrl-C stops an answer, Ctrl-D leaves.")
        with asyncio.Runner() as runner:
            while (line := _read_line(console)) is not None:
                if line.strip():
                    self._answer(runner, line, console)
        return 0

    def _answer(self, runner: asyncio.Runner, line: str, console: Console) -> None:
        self._messages = (*self._messages, Message(role="user", content=line))
        answer = Answer()
        request = ChatRequest(messages=self._messages, sampling=self._sampling)
        try:
            runner.run(ask(self._backend, request, into=answer, show=console.write))
        except KeyboardInterrupt:
            console.note("\n(stopped)")
        except LlmctlError as error:
            console.error(error)
            self._messages = self._messages[:-1]
            return
        else:
            console.line()
        self._messages = (*self._messages, Message(role="assistant", content=answer.text))


def _read_line(console: Console) -> str | None:
    try:
        return console.ask(">>> ")
    except EOFError:
        console.note("")
        return None
    except KeyboardInterrupt:
        console.note("\n(Ctrl-D leaves)")
        return ""
