"""The conversation that the REPL holds, and its log on disk kept in step with it.

Every change goes to the log at once; a log that cannot be written is told once and the talk goes on.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from llmctl.cli.chat.answer import Answer
from llmctl.core.errors import LlmctlError, NotFoundError, UsageError
from llmctl.core.types import Message, Role
from llmctl.sessions.offer import offer
from llmctl.sessions.records import NewTurn, Session, check_name, title_of
from llmctl.sessions.records import Turn as StoredTurn
from llmctl.sessions.store import SessionLog

if TYPE_CHECKING:
    from llmctl.sessions.formats import LoadedConversation

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A message of the conversation, and where the log holds it."""

    message: Message
    kept: NewTurn
    created: float
    log_id: int | None = None

    @property
    def reasoning(self) -> str:
        """What the model said to itself before."""
        return self.kept.reasoning


class Conversation:
    """Turns of user and assistant, the system message apart."""

    def __init__(
        self, log: SessionLog | None = None, *, system: str | None = None, name: str | None = None
    ) -> None:
        """`log` None: nothing is kept. `name`: what the session is called once it begins."""
        self._log = log
        self._system = system
        self._turns: tuple[Turn, ...] = ()
        self._system_log_id: int | None = None
        self._is_failing = False
        self.session_id: int | None = None
        self.name = name
        self.endpoint: str | None = None
        """The server that answers; None for a model in this process."""
        self.resumed_model: str | None = None
        """Who answered last in a session that goes on, and where."""
        self.resumed_endpoint: str | None = None
        self.unanswered: str | None = None
        """The last question, taken out of the conversation because nothing answered it."""

    @property
    def system(self) -> str | None:
        """The system message."""
        return self._system

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Without the system message."""
        return self._turns

    @property
    def messages(self) -> tuple[Message, ...]:
        """All that a model is asked with."""
        head = () if self._system is None else (Message(role="system", content=self._system),)
        return (*head, *(turn.message for turn in self._turns))

    @property
    def log(self) -> SessionLog | None:
        """Where it is kept, None when it is not."""
        return self._log

    def last(self, role: Role) -> Turn | None:
        """The last turn, if it is of `role`."""
        return self._turns[-1] if self._turns and self._turns[-1].message.role == role else None

    def last_answer(self) -> Turn | None:
        """The last thing that the assistant said, wherever it stands."""
        said = (turn for turn in reversed(self._turns) if turn.message.role == "assistant")
        return next(said, None)

    def add_question(self, text: str, *, model: str | None) -> None:
        """The user's turn."""
        message = Message(role="user", content=text)
        self._add(message, NewTurn(role="user", content=text, model=model, endpoint=self.endpoint))

    def add_answer(self, answer: Answer, *, model: str | None) -> None:
        """The assistant's turn, whole or as far as it came."""
        finish = answer.finish
        usage = finish.usage if finish else None
        kept = NewTurn(
            role="assistant",
            content=answer.text,
            reasoning=answer.reasoning,
            model=model,
            endpoint=self.endpoint,
            finish_reason=finish.reason if finish else "cancelled",
            prompt_tokens=usage.prompt_tokens if usage else None,
            completion_tokens=usage.completion_tokens if usage else None,
            first_token_s=finish.timings.first_token_s if finish else None,
            total_s=finish.timings.total_s if finish else None,
        )
        self._add(Message(role="assistant", content=answer.text), kept)

    def settle(self, answer: Answer, *, model: str | None) -> None:
        """Keep what came of an answer; a question to which nothing came is taken back."""
        if answer.finish is not None or answer.text or answer.reasoning:
            self.add_answer(answer, model=model)
        else:
            self.drop_last()

    def forget_log(self) -> None:
        """From now on nothing is kept."""
        self.close()
        self._log = None

    def close(self) -> None:
        """Let go of the log."""
        if self._log is not None:
            offer(self._log)
            self._log.close()

    def __enter__(self) -> "Conversation":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def drop_last(self, count: int = 1) -> tuple[Turn, ...]:
        """Take back the last turns and return them."""
        self._turns, dropped = self._turns[:-count], self._turns[-count:]
        self._retract(dropped)
        return dropped

    @property
    def can_drop_oldest(self) -> bool:
        """Whether there is more than the present question."""
        return sum(turn.message.role == "user" for turn in self._turns) > 1

    def restore(self, turns: tuple[Turn, ...]) -> None:
        """Have the model see again what `drop_oldest` has left out."""
        self._turns = turns

    def drop_oldest(self) -> int:
        """Leave the oldest question and what followed it out of what the model sees; the log keeps them.

        Returns the number of turns, 0 when only the present question is left.
        """
        starts = [place for place, turn in enumerate(self._turns) if turn.message.role == "user"]
        count = starts[1] if len(starts) > 1 else 0
        self._turns = self._turns[count:]
        return count

    def set_system(self, text: str | None) -> None:
        """Another system message from now on."""
        if self._system_log_id is not None and self._log is not None:
            self._safely(lambda log: log.retract([self._take_system_id()]))
        self._system = text
        self._log_system()

    def reset(self) -> None:
        """Begin a new session; the present one stays in the log."""
        self._turns, self.session_id, self._system_log_id, self.name = (), None, None, None
        self.unanswered = None

    def resume(self, session: Session) -> None:
        """Go on with a session of the log. Raises `BadFileError` when it cannot be read."""
        assert self._log is not None
        kept_turns = self._log.turns(session.id)
        self.reset()
        self.session_id, self.name = session.id, session.name
        self._system = None
        for kept in kept_turns:
            if kept.model:
                self.resumed_model, self.resumed_endpoint = kept.model, kept.endpoint
            if kept.role == "system":
                self._system, self._system_log_id = kept.content, kept.id
            else:
                message = Message(role=kept.role, content=kept.content)
                self._turns += (Turn(message=message, kept=kept, created=kept.created, log_id=kept.id),)
        self._take_unanswered()

    def _take_unanswered(self) -> None:
        """A question that never got its answer would make the next one a second in a row."""
        self.unanswered = None
        if self.last("user") is not None:
            (turn,) = self.drop_last()
            self.unanswered = turn.message.content

    def bring_back(self, turns: tuple[Turn, ...]) -> None:
        """Undo a `drop_last`."""
        self._turns += turns
        ids = [turn.log_id for turn in turns if turn.log_id is not None]
        self._safely(lambda log: log.restore(ids))

    def take_over(self, loaded: "LoadedConversation", *, model: str | None) -> None:
        """Begin a new session with a conversation from a file."""
        self.reset()
        self._system = loaded.system
        for message, reasoning in zip(loaded.messages, loaded.reasonings, strict=True):
            kept = NewTurn(role=message.role, content=message.content, reasoning=reasoning, model=model)
            self._add(message, kept)
        self._take_unanswered()

    def as_session(self, *, model: str) -> tuple[Session, list[StoredTurn]]:
        """The conversation as the log has it; where it is not kept, in the same form."""
        if self._log is not None and self.session_id is not None:
            return self._log.find(str(self.session_id)), self._log.turns(self.session_id)
        turns = [_stored(n, turn.kept, created=turn.created) for n, turn in enumerate(self._turns, start=1)]
        times = [turn.created for turn in turns] or [time.time()]
        if self._system is not None:
            system = NewTurn(role="system", content=self._system)
            turns.insert(0, _stored(0, system, created=times[0]))
        questions = (turn.content for turn in turns if turn.role == "user")
        session = Session(
            id=0,
            name=self.name,
            title=title_of(next(questions, "")),
            model=model,
            created=times[0],
            updated=times[-1],
            num_turns=len(turns),
        )
        return session, turns

    def rename(self, name: str) -> None:
        """Call the session `name`. Raises `UsageError` when that is taken or not allowed."""
        if self._log is None:
            self.name = check_name(name)
        elif self.session_id is None:
            self.name = self._log.checked_name(name)
        else:
            self._log.rename(self.session_id, name)
            self.name = name

    def _add(self, message: Message, kept: NewTurn) -> None:
        log_id: int | None = None
        if self._log is not None:
            log_id = self._safely(lambda log: log.append(self._session(log), kept))
        self._turns += (Turn(message=message, kept=kept, created=time.time(), log_id=log_id),)

    def _session(self, log: SessionLog) -> int:
        """The session in the log, begun with its first turn: one in which nothing is said leaves no trace."""
        if self.session_id is None:
            self.session_id = self._begun(log)
            self._log_system()
        return self.session_id

    def _begun(self, log: SessionLog) -> int:
        try:
            return log.start(name=self.name)
        except UsageError:
            # Another terminal has begun the session of this name meanwhile.
            return log.find(self.name).id if self.name is not None else log.start()

    def _log_system(self) -> None:
        session_id, system = self.session_id, self._system
        if session_id is not None and system is not None:
            turn = NewTurn(role="system", content=system)
            self._system_log_id = self._safely(lambda log: log.append(session_id, turn))

    def _take_system_id(self) -> int:
        log_id, self._system_log_id = self._system_log_id, None
        assert log_id is not None
        return log_id

    def _retract(self, turns: Sequence[Turn]) -> None:
        ids = [turn.log_id for turn in turns if turn.log_id is not None]
        if ids:
            self._safely(lambda log: log.retract(ids))

    def _safely(self, work: Callable[[SessionLog], int | None]) -> int | None:
        """Write to the log; when that fails the conversation matters more than its record."""
        if self._log is None:
            return None
        try:
            result = work(self._log)
        except NotFoundError:
            logger.warning("this session was deleted elsewhere: what follows is kept as a new one")
            self.session_id, self.name = None, None
            return None
        except LlmctlError as error:
            if not self._is_failing:
                logger.warning("what is said now is not kept: %s", error.message)
            self._is_failing = True
            return None
        self._is_failing = False
        return result


def _stored(number: int, kept: NewTurn, *, created: float) -> StoredTurn:
    values = {field.name: getattr(kept, field.name) for field in fields(NewTurn)}
    return StoredTurn(**values, id=number, session_id=0, created=created, is_retracted=False)
