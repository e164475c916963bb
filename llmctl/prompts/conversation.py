"""A conversation as a value: every operation gives another. `ConversationFacade` is for users of FastChat.

What is said is kept apart from how it is written: `prompts.render` does that, with a template.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmctl.core.errors import UsageError
from llmctl.core.types import Message, Role, TextPart
from llmctl.prompts.library import PromptTemplate
from llmctl.prompts.render import Inputs, render
from llmctl.prompts.template import by_name

_BETWEEN = "\n\n"
"""Parts a system message from the question that it is put before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A system message and turns."""

    system: str | None = None
    turns: tuple[Message, ...] = ()

    @classmethod
    def of(cls, messages: Sequence[Message]) -> "Conversation":
        """The conversation of these messages, the first of which may be the system's."""
        if messages and messages[0].role == "system":
            return cls(system=messages[0].content, turns=tuple(messages[1:]))
        return cls(turns=tuple(messages))

    @property
    def messages(self) -> tuple[Message, ...]:
        """All of it, the system message first."""
        head = () if self.system is None else (Message(role="system", content=self.system),)
        return (*head, *self.turns)

    def append(self, role: Role, content: str) -> "Conversation":
        """With one more turn."""
        return replace(self, turns=(*self.turns, Message(role=role, content=content)))

    def drop(self, count: int = 1) -> "Conversation":
        """Without the last `count` turns."""
        return replace(self, turns=self.turns[: max(len(self.turns) - count, 0)])

    def with_system(self, system: str | None) -> "Conversation":
        """With this system message, or none."""
        return replace(self, system=system)

    def merge_system(self) -> "Conversation":
        """Without a system message: what it says is put before the first question, or is the question."""
        if not self.system:
            return replace(self, system=None)
        if not self.turns or self.turns[0].role != "user":
            asked = Message(role="user", content=self.system)
            return Conversation(turns=(asked, *self.turns))
        return Conversation(turns=(_preceded(self.turns[0], self.system), *self.turns[1:]))


def _preceded(question: Message, system: str) -> Message:
    before = system + _BETWEEN
    parts = (TextPart(before), *question.parts) if question.parts else ()
    return replace(question, content=before + question.content, parts=parts)


class ConversationFacade:
    """FastChat's `Conversation`, as far as its users drive it: mutable, over one of our templates by name."""

    def __init__(self, template: PromptTemplate) -> None:
        self._template = template
        self.name = template.name
        self.roles = template.roles
        self.system_message = template.default_system
        self.offset = len(template.seed)
        """How many of `messages` the template brings."""
        self.messages: list[list[str | None]] = [
            [template.roles[place % 2], said] for place, said in enumerate(template.seed)
        ]
        """Pairs of role and text; the text None is the turn to be answered."""

    @property
    def stop_str(self) -> str | list[str] | None:
        """One string where there is one, else a list, else None."""
        stop = self._template.stop
        return stop[0] if len(stop) == 1 else list(stop) or None

    @property
    def stop_token_ids(self) -> list[int] | None:
        """None where there are none."""
        return list(self._template.stop_token_ids) or None

    def set_system_message(self, system_message: str) -> None:
        """In the place of the template's own."""
        self.system_message = system_message

    def get_system_message(self) -> str:
        """The one in force."""
        return self.system_message

    def append_message(self, role: str, message: str | None) -> None:
        """One more turn of one of `roles`; None opens the answer."""
        self.messages.append([role, message])

    def update_last_message(self, message: str | None) -> None:
        """Put this in the place of what the last turn says."""
        self.messages[-1][1] = message

    def copy(self) -> "ConversationFacade":
        """An independent one."""
        other = ConversationFacade(self._template)
        other.system_message = self.system_message
        other.messages = [list(pair) for pair in self.messages]
        return other

    def get_prompt(self) -> str:
        """The prompt text. Raises `UsageError` for a role that the template has not, or an open question."""
        turns = [self._turn(place) for place in range(len(self.messages))]
        is_open = bool(self.messages) and not self.messages[-1][1]
        if is_open and turns[-1].role != "assistant":
            raise UsageError(
                f"the last turn is {self.roles[0]!r} and says nothing, so there is nothing to answer"
            )
        conversation = Conversation(system=self.system_message, turns=tuple(turns[:-1] if is_open else turns))
        return render(
            by_name(self._template.name),
            conversation.messages,
            special_tokens={},
            add_generation_prompt=is_open,
            # The seed is among the messages, where it may have been changed.
            inputs=Inputs(variables={"seed": []}),
        )

    def to_openai_api_messages(self) -> list[dict[str, str]]:
        """As the OpenAI API takes them, without the template's own turns."""
        head = [{"role": "system", "content": self.system_message}] if self.system_message else []
        turns = [
            {"role": "assistant" if place % 2 else "user", "content": said}
            for place, (_, said) in enumerate(self.messages[self.offset :])
            if said is not None
        ]
        return head + turns

    def to_gradio_chatbot(self) -> list[list[str | None]]:
        """Pairs of question and answer, without the template's own turns."""
        said = [text for _, text in self.messages[self.offset :]]
        return [
            [question, said[place + 1 : place + 2][0] if place + 1 < len(said) else None]
            for place, question in enumerate(said)
            if place % 2 == 0
        ]

    def dict(self) -> dict[str, Any]:
        """What FastChat's REPL saves."""
        return {
            "template_name": self.name,
            "system_message": self.system_message,
            "roles": self.roles,
            "messages": [list(pair) for pair in self.messages],
            "offset": self.offset,
        }

    def _turn(self, place: int) -> Message:
        role, said = self.messages[place]
        # Some templates call both the same: then they take turns.
        is_answer = place % 2 == 1 if self.roles[0] == self.roles[1] else role == self.roles[1]
        if role not in self.roles[:2]:
            raise UsageError(f"template {self.name} has no role {role!r}", hint=f"it has {self.roles[:2]}")
        return Message(role="assistant" if is_answer else "user", content=said or "")
