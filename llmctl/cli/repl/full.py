"""The REPL's terminal in full: prompt-toolkit's line editor with history, search, Tab and a line below."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.formatted_text import AnyFormattedText
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.input import create_input
from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead
from prompt_toolkit.input.vt100_parser import Vt100Parser
from prompt_toolkit.key_binding import KeyBindings, KeyPress, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.styles import Style

from llmctl.cli.repl import terminal
from llmctl.cli.repl.complete import Choice
from llmctl.cli.repl.editor import edit_text
from llmctl.core.errors import LlmctlError

if TYPE_CHECKING:
    from llmctl.cli.repl.repl import Repl

PLACEHOLDER = "Ask anything, or /help"
STYLE = Style.from_dict(
    {
        "prompt": "bold",
        "placeholder": "ansibrightblack",
        "bottom-toolbar": "noreverse ansibrightblack",
        "auto-suggestion": "ansibrightblack",
    }
)


class FullTerminal:
    """`terminal.Terminal` over prompt-toolkit."""

    is_blocking = False

    def __init__(
        self, repl: "Repl", complete: Callable[[str], Iterable[Choice]], *, history: Path | None
    ) -> None:
        """`history` is the file that keeps what was typed."""
        console = repl.console
        self._console = console
        self._state = repl.state
        self._interrupts = repl.interrupts
        self._output = _Output.from_pty(console.stdout)
        self._input = create_input()
        self._is_editing = False
        self._hints_at_leaving = False
        self._depth = None if console.has_stdout_color else ColorDepth.DEPTH_1_BIT
        self._session: PromptSession[str] = PromptSession(
            [("class:prompt", terminal.PROMPT)],
            multiline=True,
            prompt_continuation=" " * len(terminal.PROMPT),
            history=InMemoryHistory() if history is None else _KeptHistory(history),
            auto_suggest=AutoSuggestFromHistory(),
            completer=_SlashCompleter(complete),
            complete_while_typing=False,
            search_ignore_case=True,
            enable_suspend=True,
            key_bindings=self._keys(),
            bottom_toolbar=self._toolbar,
            placeholder=self._placeholder,
            style=STYLE,
            include_default_pygments_style=False,
            color_depth=self._depth,
            input=self._input,
            output=self._output,
        )
        self._session.default_buffer.on_text_changed += self._forget_hint

    async def read(self, *, draft: str = "") -> str | None:
        """See `Terminal`."""
        self._hints_at_leaving = False
        try:
            text = await self._session.prompt_async(default=draft, handle_sigint=False)
        except EOFError:
            return None
        self._notice_interrupt()
        return terminal.unwrapped(text)

    def _notice_interrupt(self) -> None:
        """A Ctrl-C right behind Enter still came as a key; it is meant for the answer."""
        pressed = [*get_typeahead(self._input), *_keys(terminal.typed_already())]
        places = [place for place, key in enumerate(pressed) if key.key == Keys.ControlC]
        if places:
            self._interrupts.is_pending = True
        store_typeahead(self._input, pressed[places[-1] + 1 :] if places else pressed)

    async def choose(self, question: str, choices: Mapping[str, str]) -> str | None:
        """See `Terminal`; one key is enough."""
        keys = KeyBindings()
        for letter in choices:
            keys.add(letter)(lambda event, letter=letter: event.app.exit(result=letter))
        message = f"{question} {terminal.listed(choices)} "
        asked: PromptSession[str] = PromptSession(
            message, key_bindings=keys, color_depth=self._depth, input=self._input, output=self._output
        )
        # What was typed ahead is no answer to a question that nobody had seen.
        typed = [*get_typeahead(self._input), *_keys(terminal.typed_already())]
        try:
            while (
                letter := (await asked.prompt_async(handle_sigint=False)).strip().lower()[:1]
            ) not in choices:
                pass
        except (EOFError, KeyboardInterrupt):
            return None
        finally:
            store_typeahead(self._input, [*typed, *get_typeahead(self._input)])
        return letter

    async def edit(self, text: str) -> str:
        """See `Terminal`."""
        with self._interrupts.ignored():
            if not self._session.app.is_running:
                with self._input.cooked_mode():
                    return edit_text(text)
            self._is_editing = True
            try:
                return await run_in_terminal(lambda: edit_text(text), in_executor=True)
            finally:
                self._is_editing = False

    def hushed(self) -> AbstractContextManager[None]:
        """See `Terminal`; keys are hushed all the time but while a line is edited."""
        return contextlib.nullcontext()

    def whole(self) -> AbstractContextManager[None]:
        """See `Terminal`.

        Hushed from the start: a key that came between an answer and the next line would else be echoed, and a
        Ctrl-D lost.
        """
        return self._hushed_throughout()

    @contextlib.contextmanager
    def _hushed_throughout(self) -> Iterator[None]:
        with terminal.hushed_keys():
            self._take_what_was_typed()
            yield

    def _take_what_was_typed(self) -> None:
        """Before there was a prompt the terminal made a new line of Enter, which would not send."""
        store_typeahead(self._input, _keys(terminal.typed_already().replace("\n", "\r")))

    def refresh(self) -> None:
        """See `Terminal`."""
        self._session.app.invalidate()

    def above(self, show: Callable[[], None]) -> None:
        """See `Terminal`."""
        app = self._session.app
        if app.is_running and app.loop is not None:
            app.loop.call_soon_threadsafe(lambda: asyncio.ensure_future(_shown_above(show)))
        else:
            show()

    def end_read(self) -> bool:
        """See `Terminal`."""
        app = self._session.app
        if not app.is_running or app.is_done or self._is_editing or self._session.default_buffer.text:
            return False
        app.exit(exception=EOFError)
        return True

    def _placeholder(self) -> AnyFormattedText:
        app = self._session.app
        is_hidden = app.is_done or app.layout.is_searching
        return [] if is_hidden else [("class:placeholder", PLACEHOLDER)]

    def _toolbar(self) -> AnyFormattedText:
        told = terminal.LEAVE_HINT if self._hints_at_leaving else self._state()
        return [("class:bottom-toolbar", told)]

    def _forget_hint(self, _buffer: Buffer) -> None:
        self._hints_at_leaving = False

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()
        typing = has_focus(DEFAULT_BUFFER)
        keys.add("enter", filter=typing)(self._send)
        keys.add("escape", "enter", filter=typing)(_newline)
        keys.add("c-j", filter=typing)(_newline)
        keys.add("c-c", filter=typing)(self._interrupt)
        keys.add("c-g", filter=typing)(self._edit_draft)
        return keys

    def _send(self, event: KeyPressEvent) -> None:
        """Enter takes what the menu offers, goes on in an open block, and else sends."""
        buffer = event.current_buffer
        state = buffer.complete_state
        if state is not None and state.current_completion is not None:
            buffer.complete_state = None
        elif terminal.is_open_block(buffer.text):
            buffer.newline(copy_margin=False)
        elif buffer.text.strip():
            # A signal that came while the line was written was for the line; the next is for the answer.
            self._interrupts.is_pending = False
            buffer.validate_and_handle()

    def _interrupt(self, event: KeyPressEvent) -> None:
        """What stands in the line is given up, but can be had back from the history."""
        buffer = self._session.default_buffer
        if self._is_editing:
            return
        if buffer.text:
            buffer.append_to_history()
            buffer.reset()
            # Drawn anew, the line takes no more room than it needs.
            event.app.renderer.erase()
            return
        self._hints_at_leaving = True
        event.app.invalidate()

    async def _edit_draft(self, event: KeyPressEvent) -> None:
        buffer = self._session.default_buffer
        try:
            text = await self.edit(buffer.text)
        except LlmctlError as error:
            failed = error
            await run_in_terminal(lambda: self._console.error(failed))
        else:
            buffer.document = Document(text, len(text))


async def _shown_above(show: Callable[[], None]) -> None:
    await run_in_terminal(show)


def _keys(typed: str) -> list[KeyPress]:
    found: list[KeyPress] = []
    Vt100Parser(found.append).feed_and_flush(typed)
    return found


def _newline(event: KeyPressEvent) -> None:
    event.current_buffer.newline(copy_margin=False)


class _Output(Vt100_Output):
    """Never asks where the cursor is: a slow terminal would answer that into the text of the next answer."""

    @property
    def responds_to_cpr(self) -> bool:
        return False

    def erase_down(self) -> None:
        # Line by line: of a screen that is cleared at once tmux keeps a copy in its scrollback.
        below = "\x1b[B\x1b[2K" * (self.get_size().rows - 1)
        self.write_raw(f"\x1b[K\x1b7{below}\x1b8")

    def get_rows_below_cursor_position(self) -> int:
        # With one row known prompt-toolkit draws the line below the prompt, and right below it.
        return 1


class _KeptHistory(FileHistory):
    """A file that is there for the user's comfort: when it cannot be used, the talk goes on."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def load_history_strings(self) -> Iterable[str]:
        try:
            yield from super().load_history_strings()
        except OSError:
            return

    def store_string(self, string: str) -> None:
        try:
            self._path.touch(mode=0o600)
            # Bytes that are no UTF-8 come from the terminal as half characters.
            super().store_string(string.encode(errors="replace").decode())
        except OSError:
            return


class _SlashCompleter(Completer):
    def __init__(self, complete: Callable[[str], Iterable[Choice]]) -> None:
        self._complete = complete

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        for choice in self._complete(document.text_before_cursor):
            yield Completion(
                choice.text,
                start_position=-choice.replaces,
                display=choice.display or choice.text,
                display_meta=choice.meaning,
            )
