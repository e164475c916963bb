"""Renders messages with a chat template as transformers does, in a sandbox, without importing it."""

import contextlib
import datetime
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import jinja2
from jinja2.meta import find_undeclared_variables

from llmctl.core.errors import BadFileError, UsageError
from llmctl.core.types import Message, Part, TextPart
from llmctl.prompts.budget import Budget, TooCostlyError
from llmctl.prompts.sandbox import MAX_TEMPLATE, Sandbox
from llmctl.prompts.switches import reasoning_variables
from llmctl.prompts.template import ChatTemplate


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a template is given beside the messages; plain JSON data."""

    tools: Sequence[Mapping[str, Any]] | None = None
    """JSON schemas of functions, as the OpenAI API takes them."""
    documents: Sequence[Mapping[str, Any]] | None = None
    """Each with `title` and `text`, for templates that ground answers."""
    reasoning: bool | None = None
    """Whether the model should reason first; None leaves it to the template."""
    variables: Mapping[str, Any] = field(default_factory=dict)
    """Any other, by the template's own names; they win over all else."""


NOTHING_ELSE = Inputs()


def render(
    template: ChatTemplate,
    messages: Sequence[Message],
    *,
    special_tokens: Mapping[str, str],
    add_generation_prompt: bool = True,
    continues_last: bool = False,
    inputs: Inputs = NOTHING_ELSE,
) -> str:
    """The prompt text, special tokens written out, opened for the assistant's answer unless told otherwise.

    `special_tokens` are the names that a template may use (`bos_token`, `eos_token`, ...).
    With `continues_last` it ends inside the last message, the assistant's, for the model to go on with.
    Raises `UsageError` when the template refuses these messages or knows no such switch, `BadFileError` when
    it is broken, or asks for more time or memory than a prompt needs.
    """
    if continues_last:
        marked = (*messages[:-1], _marked(messages[-1]))
        text = render(
            template, marked, special_tokens=special_tokens, add_generation_prompt=False, inputs=inputs
        )
        return _up_to_mark(text, template)
    variables = {
        **(template.named.variables() if template.named is not None else {}),
        **special_tokens,
        **_switched(template, inputs.reasoning),
        **inputs.variables,
        "tools": inputs.tools,
        "documents": inputs.documents,
        "add_generation_prompt": add_generation_prompt,
        "messages": [
            # Nearly all are of this kind, and a call for each would be felt.
            {"role": message.role, "content": message.content}
            if not message.parts and not message.fields
            else _plain(message)
            for message in messages
        ],
    }
    with _boundary(template):
        given = tuple(variables[name] or () for name in ("messages", "tools", "documents"))
        # Before compiling, which the time is for as well.
        budget = Budget(given)
        return _sandbox().run(_compiled(template.text), variables, budget)


_BROKEN = (
    jinja2.TemplateError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    NameError,
    RuntimeError,
    SyntaxError,
    TooCostlyError,
    TypeError,
    ValueError,
)
"""Whatever the code of a template may raise."""
_MAX_TOLD = 300
"""Characters of a template's own words in an error."""


@contextlib.contextmanager
def _boundary(template: ChatTemplate) -> Iterator[None]:
    """Turn what the template's code raises into our errors."""
    try:
        yield
    except _RefusedError as error:
        raise UsageError(f"the chat template refuses these messages: {_told(error)}") from error
    except _BROKEN as error:
        raise BadFileError(
            f"the chat template ({template.source}) fails: {_kind(error)}: {_told(error)}",
            hint="give another with --template FILE.jinja",
        ) from error


def _kind(error: Exception) -> str:
    return "too costly" if isinstance(error, TooCostlyError) else type(error).__name__


def _told(error: Exception) -> str:
    told = str(error)
    return told if len(told) <= _MAX_TOLD else told[:_MAX_TOLD] + " …"


def _plain(message: Message) -> dict[str, Any]:
    """As transformers has it: a dict, content with images being a list of parts."""
    content = [_plain_part(part) for part in message.parts] if message.parts else message.content
    if not message.fields:
        return {"role": message.role, "content": content}
    fields = {name: value for name, value in message.fields.items() if value is not None}
    told = next((fields[name] for name in _REASONING_FIELDS if name in fields), None)
    # Templates differ in what they call it, and callers do.
    reasoning = {} if told is None else {"thinking": told, **fields, "reasoning_content": told}
    return {"role": message.role, "content": content, **fields, **reasoning}


_REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")


def _plain_part(part: Part) -> dict[str, str]:
    return {"type": "text", "text": part.text} if isinstance(part, TextPart) else {"type": "image"}


_GO_ON_HERE = "\N{OBJECT REPLACEMENT CHARACTER}llmctl goes on here\N{OBJECT REPLACEMENT CHARACTER} "
"""Marks the end of the message that is continued. It ends in a space, to tell whether the template trims."""


def _marked(message: Message) -> Message:
    parts = list(message.parts)
    for place in reversed(range(len(parts))):
        part = parts[place]
        if isinstance(part, TextPart):
            parts[place] = TextPart(part.text + _GO_ON_HERE)
            break
    return replace(message, content=message.content + _GO_ON_HERE, parts=tuple(parts))


def _up_to_mark(text: str, template: ChatTemplate) -> str:
    before, mark, after = text.rpartition(_GO_ON_HERE.rstrip())
    if not mark:
        raise UsageError(
            f"the chat template ({template.source}) rewrites the last message, so that it cannot be continued"
        )
    # A template that trims messages has taught the model that they end without white space.
    return before if after.startswith(" ") else before.rstrip()


def _switched(template: ChatTemplate, reasoning: bool | None) -> dict[str, Any]:
    if reasoning is None:
        return {}
    with _boundary(template):
        read = variables_of(template.text)
    return reasoning_variables(read, template, reasons=reasoning)


class _RefusedError(jinja2.TemplateError):
    """A template's own `raise_exception`."""


@functools.lru_cache(maxsize=8)
def _compiled(text: str) -> jinja2.Template:
    # Long templates take 65 ms to compile, which every request would pay.
    if len(text) > MAX_TEMPLATE:
        raise TooCostlyError(f"it has {len(text):,} characters, the limit is {MAX_TEMPLATE:,}")
    return _sandbox().from_string(text)


@functools.lru_cache(maxsize=8)
def variables_of(text: str) -> frozenset[str]:
    """The variables that a template reads and does not set before. Raises jinja's errors."""
    return frozenset(find_undeclared_variables(_sandbox().parse(text)))


@functools.lru_cache(maxsize=1)
def _sandbox() -> Sandbox:
    sandbox = Sandbox(extensions=[_GenerationBlock])
    sandbox.add_filter("tojson", _to_json)
    sandbox.globals["raise_exception"] = _refuse
    sandbox.globals["strftime_now"] = _strftime_now
    return sandbox


class _GenerationBlock(jinja2.ext.Extension):
    """`{% generation %}` marks the assistant's text for training; here its body is simply rendered."""

    tags = {"generation"}  # noqa: RUF012  # the name and type are jinja's

    def parse(self, parser: Any) -> Any:
        """Return the block's body."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja's own filter escapes for HTML, which no prompt wants. The parameters' order is transformers'.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: str) -> NoReturn:
    raise _RefusedError(message)


_MAX_PATTERN = 200
"""Characters of a date's pattern."""


def _strftime_now(pattern: str) -> str:
    if len(pattern) > _MAX_PATTERN:
        raise TooCostlyError(f"a date's pattern has {len(pattern):,} characters, the limit is {_MAX_PATTERN}")
    return datetime.datetime.now().strftime(pattern)
