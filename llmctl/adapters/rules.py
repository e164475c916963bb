"""How a family is recognised: literals in a name, facts of a folder, and the reasons in words.

Pure: rules know neither rows nor ranks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmctl.adapters.facts import ABSENT, Facts
from llmctl.adapters.names import occurs
from llmctl.adapters.table import Scalar

EXACT_BONUS = 1000
"""A whole name tells more than any words in it."""


@dataclass(frozen=True, slots=True)
class Hit:
    """What holds, in words, and how much it weighs: letters of a name or a number of facts."""

    weight: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OneOf:
    """A value of a configuration that equals one of these."""

    values: tuple[Scalar, ...]

    def holds(self, value: Any) -> bool:
        """Whether `value` is one of them; true is not 1, 1.0 is."""
        return any(value == own and isinstance(value, bool) == isinstance(own, bool) for own in self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """A number of a configuration that lies in these bounds, both included."""

    low: float | None = None
    high: float | None = None

    def holds(self, value: Any) -> bool:
        """Whether `value` is a number and inside."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


Condition = OneOf | Between


@dataclass(frozen=True, slots=True, kw_only=True)
class NameRule:
    """What a name must hold. Literals are normalised as `names.normalise` does."""

    names: tuple[tuple[str, ...], ...] = ()
    """Any one entry hits, an entry when all its literals occur."""
    exact: tuple[str, ...] = ()
    """Hits when the whole part is one of them."""
    model_types: tuple[str, ...] = ()
    """A known `model_type` that is not among them rules the row out; empty allows any."""

    def hit(self, part: str) -> Hit | None:
        """The weightiest entry that hits the deciding part of a name."""
        if part in self.exact:
            return Hit(len(part) + EXACT_BONUS, (f'name is "{part}"',))
        # `in` first: nearly all literals of nearly all rows are not there at all.
        found = [entry for entry in self.names if entry[0] in part and _all_occur(entry, part)]
        if not found:
            return None
        best = max(found, key=_length)
        literals = " and ".join(f'"{literal}"' for literal in best)
        return Hit(_length(best), (f"name contains {literals}",))

    def allows(self, model_type: str | None) -> bool:
        """Whether a model of this type can be of the family."""
        return not self.model_types or model_type is None or model_type in self.model_types


@dataclass(frozen=True, slots=True, kw_only=True)
class FactRule:
    """What a folder must say to be of the family by whatever name; all that is given must hold."""

    model_type: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    """All of them: added to the tokenizer or spelled in its chat template."""
    config: Mapping[str, Condition] = field(default_factory=dict)
    """By dotted key."""

    @property
    def is_given(self) -> bool:
        """Whether the rule says anything."""
        return bool(self.model_type or self.architectures or self.tokens or self.config)

    def hit(self, facts: Facts) -> Hit | None:
        """None when the rule is empty or anything of it does not hold. Its weight counts what holds."""
        if not self.is_given:
            return None
        reasons: list[str] = []
        if self.model_type:
            if facts.model_type not in self.model_type:
                return None
            reasons.append(f"config.json: model_type {facts.model_type}")
        if self.architectures:
            found = [name for name in facts.architectures if name in self.architectures]
            if not found:
                return None
            reasons.append(f"config.json: architectures {found[0]}")
        for reason in (self._of_config(facts), self._of_tokens(facts)):
            if reason is None:
                return None
            reasons += reason
        return Hit(len(reasons), tuple(reasons))

    def _of_config(self, facts: Facts) -> list[str] | None:
        values = {key: facts.value(key) for key in self.config}
        if any(value is ABSENT or not self.config[key].holds(value) for key, value in values.items()):
            return None
        return [f"config.json: {key} {value}" for key, value in values.items()]

    def _of_tokens(self, facts: Facts) -> list[str] | None:
        if not all(token in facts.tokens or token in facts.template_text for token in self.tokens):
            return None
        return [f"tokenizer has {token}" for token in self.tokens]


def _all_occur(entry: tuple[str, ...], part: str) -> bool:
    return all(occurs(literal, part) for literal in entry)


def _length(entry: tuple[str, ...]) -> int:
    return sum(map(len, entry))
