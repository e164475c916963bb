"""Which chat template a model is prompted with: the user's, else the tokenizer's own, else none and why."""

from collections.abc import Mapping
from dataclasses import dataclass

from llmctl.core.errors import BadFileError, NotFoundError, UsageError
from llmctl.core.places import expanded


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """Jinja text and where it comes from."""

    text: str
    source: str


def choose(
    explicit: ChatTemplate | None, of_tokenizer: str | Mapping[str, str] | None, *, model: str
) -> ChatTemplate:
    """The user's, else the tokenizer's.

    A tokenizer may carry several by name; `default` is the one for chat.
    Raises `UsageError` when there is none: a guessed prompt would answer wrongly without a word.
    """
    if explicit is not None:
        return explicit
    if isinstance(of_tokenizer, Mapping):
        of_tokenizer = of_tokenizer.get("default")
    if of_tokenizer is None:
        raise UsageError(
            f"the tokenizer of {model} has no chat template, so llmctl does not know how to prompt it",
            hint="give one with --template FILE.jinja, or continue plain text with --raw",
        )
    return ChatTemplate(of_tokenizer, "tokenizer")


def read(path: str) -> ChatTemplate:
    """A template from a Jinja file. Raises `NotFoundError`, `BadFileError`."""
    file = expanded(path)
    try:
        return ChatTemplate(file.read_text(encoding="utf-8"), str(file))
    except FileNotFoundError as error:
        raise NotFoundError(f"no template file {path!r}", hint="--template takes a Jinja file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadFileError(f"cannot read the template {path!r}: {error}") from error
