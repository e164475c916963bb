"""From a chosen template and messages to what is encoded: text, how to encode it, where the answer ends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmctl.core.types import Message
from llmctl.prompts.render import NOTHING_ELSE, Inputs, render
from llmctl.prompts.system import fit_system
from llmctl.prompts.template import Chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a model is prompted with."""

    text: str
    needs_special_tokens: bool
    """Whether the tokenizer adds BOS and the like when it encodes `text`."""
    stop: tuple[str, ...] = ()
    """The template's: the answer ends before the first of these strings."""
    stop_token_ids: tuple[int, ...] = ()
    """The template's, beside the model's own end tokens."""
    notes: tuple[str, ...] = ()
    """What was changed to suit the template, for the user."""


def compose(
    chosen: Chosen,
    messages: Sequence[Message],
    *,
    special_tokens: Mapping[str, str],
    continues_last: bool = False,
    opens_answer: bool = True,
    inputs: Inputs = NOTHING_ELSE,
) -> Prompt:
    """The prompt for these messages, opened for the answer or, with `continues_last`, inside the last one.

    A system message that the template has no place for goes before the first question, with a note.
    Raises what `render` raises.
    """
    template = chosen.template
    fitted = fit_system(template, messages, special_tokens=special_tokens)
    text = render(
        template,
        fitted.messages,
        special_tokens=special_tokens,
        continues_last=continues_last,
        add_generation_prompt=opens_answer,
        inputs=inputs,
    )
    return Prompt(
        text=text,
        needs_special_tokens=template.needs_special_tokens(text, special_tokens),
        stop=template.stop,
        # A template that somebody names for any model has another vocabulary's ids: they would end anything.
        stop_token_ids=template.stop_token_ids if chosen.source == "row" else (),
        notes=fitted.notes,
    )
