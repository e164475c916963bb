"""One switch for reasoning, whatever a template calls it: which variables are set to have it on or off."""

from collections.abc import Collection, Mapping
from typing import Any

from llmctl.core.errors import UsageError
from llmctl.prompts.template import ChatTemplate

_LEAVE = object()
"""The template reasons by itself where the variable is left out."""
SWITCHES: Mapping[str, tuple[Any, Any]] = {
    "enable_thinking": (True, False),
    "thinking": (True, False),
    "enable_reasoning": (True, False),
    "reasoning": (True, False),
    "use_thinking": (True, False),
    "think": (True, False),
    "thinking_option": ("on", "off"),
    "thinking_mode": ("on", "off"),
    "thinking_budget": (_LEAVE, 0),
}
"""Variable of a template: (its value for reasoning, its value for none)."""
EFFORT = "reasoning_effort"
"""How much to reason, in words; it switches off only where the template knows the word `NO_EFFORT`."""
NO_EFFORT, MUCH_EFFORT = "none", "high"


def reasoning_variables(read: Collection[str], template: ChatTemplate, *, reasons: bool) -> dict[str, Any]:
    """The variables, among those that the template reads, that switch its reasoning on or off.

    Raises `UsageError` where it reads none, or one that cannot say it.
    """
    values = {name: on if reasons else off for name, (on, off) in SWITCHES.items() if name in read}
    if not values and EFFORT in read:
        values = _effort(template, reasons=reasons)
    if not values:
        raise UsageError(
            f"the chat template ({template.source}) has no switch for reasoning",
            hint="leave the switch out: the model reasons as it was trained to",
        )
    return {name: value for name, value in values.items() if value is not _LEAVE}


def _effort(template: ChatTemplate, *, reasons: bool) -> dict[str, Any]:
    can_be_off = any(f"{quote}{NO_EFFORT}{quote}" in template.text for quote in "'\"")
    if not reasons and not can_be_off:
        raise UsageError(
            f"the chat template ({template.source}) cannot switch reasoning off, only say how much",
            hint=f"give the variable {EFFORT} = 'low' instead",
        )
    if not reasons:
        return {EFFORT: NO_EFFORT}
    return {EFFORT: MUCH_EFFORT if can_be_off else _LEAVE}
