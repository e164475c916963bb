"""The conversation that `models match --render` shows as a prompt: a short one, or a JSON file's."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from llmctl.adapters.facts import Facts
from llmctl.cli.models.lookup import Found, of_tokenizer, special_tokens
from llmctl.core.errors import BadFileError, LlmctlError, UsageError
from llmctl.core.types import ROLES, ImagePart, Message, Part, TextPart
from llmctl.prompts.render import NOTHING_ELSE, Inputs, render
from llmctl.prompts.system import fit_system
from llmctl.prompts.template import ChatTemplate

STDIN = "-"
_KEYS = ("messages", "tools", "documents", "continue_final_message", "add_generation_prompt", "reasoning")
_TOOL_USE = "tool_use"
"""Of a tokenizer's several templates the one for conversations with tools, as transformers chooses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRequest:
    """What a template is given."""

    messages: tuple[Message, ...]
    inputs: Inputs = NOTHING_ELSE
    """Tools, documents and the switch for reasoning."""
    continues_last: bool = False
    """Whether the prompt ends inside the last message, the assistant's."""
    opens_answer: bool = True


SHORT = PromptRequest(
    messages=(
        Message(role="user", content="Hello!"),
        Message(role="assistant", content="Hi there! How can I help you today?"),
        Message(role="user", content="What's the weather?"),
    )
)


def with_prompt(found: Found, talk: PromptRequest) -> tuple[Found, str | None]:
    """The prompt of a model, None where its template is not at hand.

    What is to be said of it, or why its template refuses the conversation, is added to `found`.
    """
    if found.template is None:
        return found, None
    template, tokens = _for_tools(found.template, found.facts, talk), special_tokens(found.facts)
    fitted = fit_system(template, talk.messages, special_tokens=tokens)
    found = replace(found, notes=(*found.notes, *fitted.notes))
    try:
        prompt = render(
            template,
            fitted.messages,
            special_tokens=tokens,
            add_generation_prompt=talk.opens_answer,
            continues_last=talk.continues_last,
            inputs=talk.inputs,
        )
    except LlmctlError as error:
        return replace(found, error=found.error or error), None
    return found, prompt


def _for_tools(template: ChatTemplate, facts: Facts | None, talk: PromptRequest) -> ChatTemplate:
    several = of_tokenizer(facts)
    if talk.inputs.tools and isinstance(several, Mapping) and several.get("default") == template.text:
        return ChatTemplate(several.get(_TOOL_USE, template.text), template.source)
    return template


def read_conversation(path: str) -> PromptRequest:
    """A JSON list of messages, or an object with them and `tools`, `documents`, `continue_final_message`, ….

    `-` is stdin. Raises `NotFoundError`, `BadFileError` for what is not JSON, `UsageError` for the rest.
    """
    where = f"--render {path}"
    try:
        value = json.loads(_text(path))
    # ValueError: not JSON, or a number of more digits than Python reads.
    except (ValueError, RecursionError) as error:
        raise BadFileError(f"{where} is not JSON: {error}") from error
    if isinstance(value, list):
        value = {"messages": value}
    if not isinstance(value, dict):
        raise UsageError(f"{where} must hold a list of messages or an object, not {_shown(value)}")
    for key in value.keys() - set(_KEYS):
        raise UsageError(f"{where}: {key!r} is not known", hint=f"known: {', '.join(_KEYS)}")
    talk = PromptRequest(
        messages=_messages(value.get("messages"), where),
        inputs=Inputs(
            tools=_objects(value, "tools", where),
            documents=_objects(value, "documents", where),
            reasoning=_flag(value, "reasoning", where),
        ),
        continues_last=_flag(value, "continue_final_message", where) or False,
        opens_answer=_flag(value, "add_generation_prompt", where) is not False,
    )
    if talk.continues_last and talk.messages[-1].role != "assistant":
        raise UsageError(
            f"{where}: continue_final_message needs an assistant's message at the end, "
            f"not one of the role {talk.messages[-1].role!r}"
        )
    return talk


def _text(path: str) -> str:
    from llmctl.cli.chat.input import read_input

    return read_input(path)


def _messages(value: Any, where: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise UsageError(f"{where}: messages must be a list of at least one message")
    return tuple(_message(item, f"{where}: message {index}") for index, item in enumerate(value))


def _message(item: Any, where: str) -> Message:
    if not isinstance(item, dict) or item.get("role") not in ROLES:
        raise UsageError(f"{where} must be an object with a role of {', '.join(ROLES)}, not {_shown(item)}")
    content = item.get("content")
    rest = {key: value for key, value in item.items() if key not in ("role", "content")}
    if isinstance(content, list):
        parts = tuple(_part(part, where) for part in content)
        text = "".join(part.text for part in parts if isinstance(part, TextPart))
        return Message(role=item["role"], content=text, parts=parts, fields=rest)
    if not isinstance(content, str) and not (content is None and rest):
        raise UsageError(f"{where}: content must be text or a list of parts, not {_shown(content)}")
    return Message(role=item["role"], content=content or "", fields=rest)


def _part(part: Any, where: str) -> Part:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return TextPart(part["text"])
    if kind in ("image", "image_url"):
        told = next((part[key] for key in ("image", "url", "path", "image_url") if key in part), "")
        source = told.get("url") if isinstance(told, dict) else told
        if isinstance(source, str):
            return ImagePart(source)
    raise UsageError(f'{where}: a part must be {{"type": "text"}} or {{"type": "image"}}, not {_shown(part)}')


def _objects(value: dict[str, Any], key: str, where: str) -> list[Mapping[str, Any]] | None:
    items = value.get(key)
    if items is None:
        return None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UsageError(f"{where}: {key} must be a list of objects, not {_shown(items)}")
    return items


def _flag(value: dict[str, Any], key: str, where: str) -> bool | None:
    told = value.get(key)
    if not isinstance(told, bool | None):
        raise UsageError(f"{where}: {key} must be true or false, not {_shown(told)}")
    return told


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:80]
