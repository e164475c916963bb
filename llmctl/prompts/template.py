"""Which chat template a model is prompted with, and why. Never a guess: without a template it is an error."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from llmctl.core.errors import NotFoundError, UsageError
from llmctl.core.files import read_text
from llmctl.core.places import expanded
from llmctl.prompts.library import PromptTemplate, find

OF_TOKENIZER, NO_TEMPLATE = "tokenizer", "none"
"""What a row says instead of a name: the template lives in the tokenizer; the family does not chat."""
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """Jinja text and where it comes from."""

    text: str
    source: str
    """A path, "tokenizer", or the name for messages."""
    named: PromptTemplate | None = None
    """The library's, where it goes by name: its fields, roles and stop rules."""

    @property
    def stop(self) -> tuple[str, ...]:
        """The answer ends before the first of these strings."""
        return self.named.stop if self.named is not None else ()

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """Beside the model's own end tokens."""
        return self.named.stop_token_ids if self.named is not None else ()

    def needs_special_tokens(self, rendered: str, special_tokens: Mapping[str, str]) -> bool:
        """Whether the tokenizer must still add BOS and the like when it encodes the `rendered` prompt.

        Only templates by name leave them to it, and a BOS that is there already is never doubled.
        """
        return self.named is not None and not begins_with_bos(rendered, special_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTemplate:
    """What the row of a model's family says about its prompts."""

    name: str
    """A name of the library, `OF_TOKENIZER` or `NO_TEMPLATE`."""
    wins: bool = False
    """Whether it goes before the tokenizer's own."""
    family: str = ""
    """The row's id, for messages."""
    stop: tuple[str, ...] = ()
    """Beside the template's own."""
    stop_token_ids: tuple[int, ...] = ()
    note: str = ""
    """What a user of the row's template should know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A template, who brought it, and why it is this one."""

    template: ChatTemplate
    source: Literal["flag", "row", "tokenizer"]
    reason: str


def by_name(name: str) -> ChatTemplate:
    """The library's template of this name. Raises `NotFoundError`."""
    named = find(name)
    return ChatTemplate(named.text, f"template {named.name}", named)


def choose(
    explicit: ChatTemplate | None,
    row: RowTemplate | None,
    of_tokenizer: str | Mapping[str, str] | None,
    *,
    model: str,
) -> Chosen:
    """The user's, else a row's that wins, else the tokenizer's, else the row's.

    A tokenizer may carry several by name; `default` is the one for chat.
    Raises `UsageError` when there is none: a guessed prompt would answer wrongly without a word.
    """
    if explicit is not None:
        called = explicit.named.name if explicit.named is not None else explicit.source
        return Chosen(template=explicit, source="flag", reason=f"{called} (--template)")
    named = row if row is not None and row.name not in (OF_TOKENIZER, NO_TEMPLATE) else None
    if named is not None and named.wins:
        return _of_row(named, "goes before the tokenizer's own")
    if isinstance(of_tokenizer, Mapping):
        of_tokenizer = of_tokenizer.get("default")
    # An empty one says as much as none.
    if of_tokenizer:
        template = ChatTemplate(of_tokenizer, "tokenizer")
        return Chosen(template=template, source="tokenizer", reason="the tokenizer's own chat template")
    if named is not None:
        return _of_row(named, "the tokenizer has none")
    raise _no_template(row, model)


def _of_row(row: RowTemplate, why: str) -> Chosen:
    family = f"family {row.family}" if row.family else "the family's row"
    return Chosen(template=by_name(row.name), source="row", reason=f"{family}: {row.name} ({why})")


def _no_template(row: RowTemplate | None, model: str) -> UsageError:
    if row is not None and row.name == NO_TEMPLATE:
        return UsageError(
            f"{model} is no chat model (family {row.family}): it has no chat template",
            hint="continue plain text with --raw, or give a template with --template FILE.jinja or NAME",
        )
    return UsageError(
        f"the tokenizer of {model} has no chat template, so llmctl does not know how to prompt it",
        hint="give one with --template FILE.jinja or NAME, or continue plain text with --raw",
    )


def read(path: str) -> ChatTemplate:
    """A template from a Jinja file, or the library's of that name where there is no such file.

    Raises `NotFoundError`, `BadFileError`.
    """
    file = expanded(path)
    try:
        text = read_text(file, called=f"the template {path!r}", max_bytes=_MAX_BYTES, may_wait=True)
    except NotFoundError as error:
        return _by_name_or_file(path, error)
    return ChatTemplate(text, str(file))


def _by_name_or_file(path: str, missing: NotFoundError) -> ChatTemplate:
    try:
        return by_name(path)
    except NotFoundError as error:
        hint = f"--template takes a Jinja file or a template's name; {error.hint}"
        raise NotFoundError(f"no template file {path!r} and no template of that name", hint=hint) from missing


def begins_with_bos(rendered: str, special_tokens: Mapping[str, str]) -> bool:
    """Whether a prompt opens with the tokenizer's BOS, so that encoding must not add another."""
    bos = special_tokens.get("bos_token")
    return bool(bos) and rendered.startswith(str(bos))
