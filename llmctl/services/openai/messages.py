"""Messages of a conversation and the parts of their content, as JSON has them."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from llmctl.services.openai import refused
from llmctl.services.openai.body import BY_FIELD, Body, Text, tag

ROLES = ("system", "developer", "user", "assistant", "tool")


class TextPart(Body):
    """A piece of text."""

    refused = refused.PART
    type: Literal["text"]
    text: Text


class RefusalPart(Body):
    """What an assistant said when it would not answer."""

    type: Literal["refusal"]
    refusal: Text


def _by(field: str, wanted: str) -> Discriminator:
    """Tells the member of a union by `field`, which should be `wanted`."""

    def which(given: Any) -> str | None:
        found = given.get(field) if isinstance(given, dict) else getattr(given, field, None)
        return tag(found) if isinstance(found, str) else None

    return Discriminator(
        which,
        # A context of its own would make it unhashable, which unions must not be.
        custom_error_type=f"{BY_FIELD}{field}",
        custom_error_message=f"Input should be {wanted}",
    )


def _text_or_parts(given: Any) -> str | None:
    return tag("text") if isinstance(given, str) else tag("parts") if isinstance(given, list) else None


Part = Annotated[
    Annotated[TextPart, Tag(tag("text"))] | Annotated[RefusalPart, Tag(tag("refusal"))],
    _by("type", "'text'"),
]
Content = Annotated[
    Annotated[Text, Tag(tag("text"))]
    | Annotated[list[Part], Field(min_length=1, fail_fast=True), Tag(tag("parts"))],
    Discriminator(
        _text_or_parts,
        custom_error_type="content",
        custom_error_message="Input should be a string or a list of parts",
    ),
]


class SystemMessage(Body):
    """What the model is told about its task; `developer` is a newer name of `system`."""

    role: Literal["system", "developer"]
    content: Content
    name: str | None = None


class UserMessage(Body):
    """A question."""

    role: Literal["user"]
    content: Content
    name: str | None = None


class Function(Body):
    """The function that a tool call means."""

    name: str
    arguments: str | dict[str, Any]
    """JSON, as text or as it is."""


class ToolCall(Body):
    """A call that the assistant asked for."""

    id: str | None = None
    index: int | None = None
    type: Literal["function"] = "function"
    function: Function


class AssistantMessage(Body):
    """An answer, or with `continue_final_message` the beginning of one."""

    refused = refused.MESSAGE
    role: Literal["assistant"]
    content: Content | None = None
    name: str | None = None
    refusal: Text | None = None
    tool_calls: Annotated[list[ToolCall], Field(fail_fast=True)] | None = None
    reasoning_content: Text | None = None
    reasoning: Text | None = None
    thinking: Text | None = None


class ToolMessage(Body):
    """What a tool gave back."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str | None = None
    name: str | None = None


AnyMessage = Annotated[
    Annotated[SystemMessage, Tag(tag("system"))]
    | Annotated[SystemMessage, Tag(tag("developer"))]
    | Annotated[UserMessage, Tag(tag("user"))]
    | Annotated[AssistantMessage, Tag(tag("assistant"))]
    | Annotated[ToolMessage, Tag(tag("tool"))],
    _by("role", f"one of {', '.join(ROLES)}"),
]
Messages = Annotated[list[AnyMessage], Field(min_length=1, fail_fast=True)]
