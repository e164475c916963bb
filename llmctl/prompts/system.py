"""System messages for templates that have no place for one: merged into the first question, and said so."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmctl.core.errors import BadFileError, LlmctlError, UsageError
from llmctl.core.types import Message
from llmctl.prompts.conversation import Conversation
from llmctl.prompts.render import render
from llmctl.prompts.template import ChatTemplate

_MARK = "llmctl looks where this goes"
_QUESTION = Message(role="user", content="a question")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Messages that a template can write, and what was changed to have them so."""

    messages: tuple[Message, ...]
    notes: tuple[str, ...] = ()
    """Sentences for the user; empty: nothing was changed."""


def fit_system(
    template: ChatTemplate, messages: Sequence[Message], *, special_tokens: Mapping[str, str]
) -> Fitted:
    """The messages with the system message where the template has a place for it.

    Raises nothing: a template that fails over these messages will say so when they are rendered.
    """
    conversation = Conversation.of(messages)
    if conversation.system is None or takes_system(template, special_tokens):
        return Fitted(messages=tuple(messages))
    merged = conversation.merge_system().messages
    if not conversation.system:
        return Fitted(messages=merged)
    note = (
        f"the chat template ({template.source}) has no system message: it was put before the first question"
    )
    return Fitted(messages=merged, notes=(note,))


def takes_system(template: ChatTemplate, special_tokens: Mapping[str, str]) -> bool:
    """Whether what a system message says reaches the prompt; True also for a template that is broken."""
    return _takes_system(template, tuple((name, str(token)) for name, token in special_tokens.items()))


@functools.lru_cache(maxsize=32)
def _takes_system(template: ChatTemplate, special_tokens: tuple[tuple[str, str], ...]) -> bool:
    tokens = dict(special_tokens)
    try:
        return _MARK in render(
            template, (Message(role="system", content=_MARK), _QUESTION), special_tokens=tokens
        )
    except UsageError:
        return not _renders(template, tokens)
    except BadFileError:
        return True


def _renders(template: ChatTemplate, special_tokens: Mapping[str, str]) -> bool:
    try:
        render(template, (_QUESTION,), special_tokens=special_tokens)
    except LlmctlError:
        return False
    return True
