"""Renders messages with a chat template as transformers does, in a sandbox, without importing it."""

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llmctl.core.errors import BadFileError, UsageError
from llmctl.core.types import Message
from llmctl.prompts.template import ChatTemplate


def render(
    template: ChatTemplate,
    messages: Sequence[Message],
    *,
    special_tokens: Mapping[str, str],
    add_generation_prompt: bool = True,
    continues_last: bool = False,
) -> str:
    """The prompt text, special tokens written out, opened for the assistant's answer unless told otherwise.

    `special_tokens` are the names that a template may use (`bos_token`, `eos_token`, ...).
    With `continues_last` it ends inside the last message, the assistant's, for the model to go on with.
    Raises `UsageError` when the template refuses these messages, `BadFileError` when it is broken.
    """
    if continues_last:
        marked = replace(messages[-1], content=messages[-1].content + _GO_ON_HERE)
        text = render(
            template, (*messages[:-1], marked), special_tokens=special_tokens, add_generation_prompt=False
        )
        return _up_to_mark(text, template)
    try:
        return _compiled(template.text).render(
            messages=[{"role": message.role, "content": message.content} for message in messages],
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **special_tokens,
        )
    except _RefusedError as error:
        raise UsageError(f"the chat template refuses these messages: {error}") from error
    except (
        jinja2.TemplateError,
        AttributeError,
        MemoryError,
        SyntaxError,
        TypeError,
        ArithmeticError,
        LookupError,
        ValueError,
        RecursionError,
    ) as error:
        raise BadFileError(
            f"the chat template ({template.source}) fails: {type(error).__name__}: {error}",
            hint="give another with --template FILE.jinja",
        ) from error


_GO_ON_HERE = "\N{OBJECT REPLACEMENT CHARACTER}llmctl goes on here\N{OBJECT REPLACEMENT CHARACTER} "
"""Marks the end of the message that is continued. It ends in a space, to tell whether the template trims."""


def _up_to_mark(text: str, template: ChatTemplate) -> str:
    before, mark, after = text.rpartition(_GO_ON_HERE.rstrip())
    if not mark:
        raise UsageError(
            f"the chat template ({template.source}) rewrites the last message, so that it cannot be continued"
        )
    # A template that trims messages has taught the model that they end without white space.
    return before if after.startswith(" ") else before.rstrip()


class _RefusedError(jinja2.TemplateError):
    """A template's own `raise_exception`."""


@functools.lru_cache(maxsize=8)
def _compiled(text: str) -> jinja2.Template:
    # Long templates take 65 ms to compile, which every request would pay.
    return _environment().from_string(text)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = _strftime_now
    return environment


class _GenerationBlock(jinja2.ext.Extension):
    """`{% generation %}` marks the assistant's text for training; here its body is simply rendered."""

    tags = {"generation"}  # noqa: RUF012  # the name and type are jinja's

    def parse(self, parser: Any) -> Any:
        """Return the block's body."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(value: Any, indent: int | None = None, ensure_ascii: bool = False, **options: Any) -> str:
    # jinja's own filter escapes for HTML, which no prompt wants.
    return json.dumps(value, indent=indent, ensure_ascii=ensure_ascii, **options)


def _refuse(message: str) -> NoReturn:
    raise _RefusedError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.datetime.now().strftime(pattern)
