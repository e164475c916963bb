"""Messages of a body into those of the seam, and what else their template is told."""

import json
from collections.abc import Mapping, Sequence

from llmctl.core.types import Message
from llmctl.services.http.errors import ParameterError
from llmctl.services.openai.complaints import complaint
from llmctl.services.openai.messages import (
    AnyMessage,
    AssistantMessage,
    Content,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
)
from llmctl.services.openai.requests import ChatTemplateBody

REASONING_SWITCH = "enable_thinking"
"""The name by which nearly all templates know it, and all clients."""
_BETWEEN_PARTS = "\n"
"""Clients send files and questions as parts of their own, and trust that they do not run together."""
_OURS = ("messages", "tools", "documents", "add_generation_prompt", "continue_final_message")


def messages(given: Sequence[AnyMessage]) -> tuple[Message, ...]:
    """The conversation. Raises `ParameterError` for a message that says nothing."""
    return tuple(_message(each, f"messages[{place}]") for place, each in enumerate(given))


def continues_last(body: ChatTemplateBody, given: Sequence[AnyMessage]) -> bool:
    """Whether the last message is to be continued. Raises `ParameterError` where it cannot be."""
    opens, continues = body.add_generation_prompt, body.continue_final_message
    if continues and opens:
        raise complaint("cannot be true with continue_final_message", param="add_generation_prompt")
    if continues and given[-1].role != "assistant":
        raise complaint(
            f"asks to go on with the last message, which is not the assistant's but the {given[-1].role}'s",
            param="continue_final_message",
        )
    return continues


def template_kwargs(body: ChatTemplateBody) -> Mapping[str, object]:
    """What the template is told by its own names. Raises `ParameterError` for what has a field of its own."""
    given = body.chat_template_kwargs or {}
    for name in _OURS:
        if name in given:
            raise complaint(
                "has a field of its own in the request", param=f"chat_template_kwargs.{name}", hint="use that"
            )
    return given


def reasons(told: Mapping[str, object], effort: str | None) -> bool | None:
    """Whether the model is to reason, None where nobody says it."""
    if effort is not None:
        return effort != "none"
    switch = told.get(REASONING_SWITCH)
    return switch if isinstance(switch, bool) else None


def _message(given: AnyMessage, path: str) -> Message:
    if isinstance(given, AssistantMessage):
        return _answer(given, path)
    fields: dict[str, object] = {} if given.name is None else {"name": given.name}
    if isinstance(given, ToolMessage) and given.tool_call_id is not None:
        fields["tool_call_id"] = given.tool_call_id
    role = "system" if isinstance(given, SystemMessage) else given.role
    return Message(role=role, content=_text(given.content), fields=fields)


def _answer(given: AssistantMessage, path: str) -> Message:
    fields: dict[str, object] = {
        name: value
        for name in ("name", "reasoning_content", "reasoning", "thinking")
        if (value := getattr(given, name)) is not None
    }
    if given.tool_calls:
        fields["tool_calls"] = [
            _tool_call(each, f"{path}.tool_calls[{place}]") for place, each in enumerate(given.tool_calls)
        ]
    content = given.refusal if given.content is None else _text(given.content)
    if content is None and not fields.keys() - {"name"}:
        raise complaint("is missing", param=f"{path}.content")
    return Message(role="assistant", content=content or "", fields=fields)


def _text(content: Content) -> str:
    if isinstance(content, str):
        return content
    return _BETWEEN_PARTS.join(part.text if isinstance(part, TextPart) else part.refusal for part in content)


def _tool_call(call: ToolCall, path: str) -> dict[str, object]:
    """As templates read it: they write the arguments as JSON themselves, and take them as an object."""
    arguments = call.function.arguments
    if isinstance(arguments, str):
        arguments = _parsed(arguments, f"{path}.function.arguments")
    told: dict[str, object] = {
        "type": call.type,
        "function": {"name": call.function.name, "arguments": arguments},
    }
    return told if call.id is None else {"id": call.id, **told}


def _parsed(text: str, path: str) -> dict[str, object]:
    error: ParameterError = complaint("must be a JSON object, as text", param=path)
    try:
        found = json.loads(text)
    except ValueError:
        raise error from None
    if not isinstance(found, dict):
        raise error
    return found
