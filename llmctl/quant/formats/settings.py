"""What a `quantization_config` says, in proper types, with the user's own words laid over it."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from llmctl.core.errors import BadFileError, LlmctlError, UsageError
from llmctl.core.patterns import Pattern

_SYNONYMS: Mapping[str, str] = {
    "wbits": "bits",
    "w_bit": "bits",
    "groupsize": "group_size",
    "q_group_size": "group_size",
    "act_order": "desc_act",
    "format": "checkpoint_format",
}
_OTHER = "take another quantisation of this model, or its 16-bit checkpoint"
_WORDS: Mapping[str, bool] = {"true": True, "false": False, "1": True, "0": False}


@dataclass(frozen=True, slots=True)
class Settings:
    """The keys of one config, those without a value left out, each by the newest of its names."""

    title: str
    """The format, for messages: "GPTQ"."""
    values: Mapping[str, Any]
    chosen: frozenset[str]
    """The keys that the user gave."""
    open: frozenset[str]
    """The keys whose values the user may give."""

    @classmethod
    def read(
        cls, title: str, config: Mapping[str, Any], overrides: Mapping[str, Any], allowed: Collection[str]
    ) -> "Settings":
        """`config` under `overrides`, of which only keys in `allowed` may be given, else `UsageError`."""
        own = newest_names(overrides)
        for key, value in own.items():
            if key not in allowed:
                raise UsageError(
                    f"{key}={value} says nothing about a {title} checkpoint",
                    hint=f"what can be said of one: {', '.join(sorted(allowed))}",
                )
        return cls(title, {**newest_names(config), **own}, frozenset(own), frozenset(allowed))

    def under(self, more: Mapping[str, Any]) -> "Settings":
        """These with the values of a rule for some modules, which the user's words do not reach."""
        newer = newest_names(more)
        return replace(
            self,
            values={**self.values, **newer},
            chosen=self.chosen - newer.keys(),
            open=self.open - newer.keys(),
        )

    def integer(self, key: str) -> int:
        """A whole number that must be there."""
        value = self.values.get(key)
        if value is None:
            raise BadFileError(
                f"the quantization_config ({self.title}) does not say {key}",
                hint=f"say it: --quant-config {key}=...",
            )
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if not is_number and not (isinstance(value, str) and re.fullmatch(r"-?\d+", value)):
            raise self.refusal(key, "a whole number is expected")
        return int(value)

    def flag(self, key: str) -> bool | None:
        """True, false, or None where nothing is said."""
        value = self.values.get(key)
        found = _WORDS.get(str(value).lower())
        if value is not None and found is None:
            raise self.refusal(key, "true or false is expected")
        return found

    def text(self, key: str, default: str) -> str:
        """A word in lower case; an empty one is the default."""
        return str(self.values.get(key) or default).lower()

    def names(self, key: str) -> list[str]:
        """Those of a list, or of the lists in it; none where nothing is said."""
        value = self.values.get(key) or []
        given = value if isinstance(value, list) else [value]
        found = [name for each in given for name in (each if isinstance(each, list) else [each])]
        if not isinstance(value, list) or not all(isinstance(name, str) for name in found):
            raise self.refusal(key, "a list of names is expected")
        return found

    def refusal(self, key: str, why: str) -> LlmctlError:
        """The error over the value of one key: the user's, or the file's."""
        value = self.values.get(key)
        if key in self.chosen:
            return UsageError(f"{key}={value} does not do for this {self.title} checkpoint: {why}")
        return BadFileError(
            f"the quantization_config ({self.title}) says {key}={value}: {why}",
            hint=_OTHER,
        )

    def disagreement(self, weight: str, key: str, what: str) -> LlmctlError:
        """The error over a value that the parts of `weight` contradict."""
        value = self.values.get(key)
        if key in self.chosen:
            return UsageError(
                f"{key}={value} does not fit the quantised weight {weight}: {what}",
                hint="leave it out, then the checkpoint's own config is followed",
            )
        return BadFileError(
            f"the quantised weight {weight} does not fit its quantization_config: {key} is {value}, "
            f"but {what}",
            hint=f"if the config is wrong, say what is right: --quant-config {key}=..."
            if key in self.open
            else _OTHER,
        )


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: Pattern
    values: Mapping[str, Any] | None
    """None: the module stays dense."""


@dataclass(frozen=True, slots=True)
class Rules:
    """GPTQModel's `dynamic`: what holds for modules whose name a regular expression matches at its start."""

    rules: tuple[_Rule, ...]

    @classmethod
    def read(cls, settings: Settings) -> "Rules":
        """Those of a config: {"+:regex": {"bits": 8}, "-:regex": {}}, where "+:" may be left out."""
        given = settings.values.get("dynamic") or {}
        if not isinstance(given, Mapping) or not all(
            isinstance(each or {}, Mapping) for each in given.values()
        ):
            raise settings.refusal("dynamic", "an object of objects is expected")
        rules = []
        for key, values in given.items():
            where = f"the quantization_config ({settings.title}) has under dynamic"
            pattern = Pattern(re.sub(r"^[+-]:", "", key), where=where, hint=_OTHER)
            rules.append(_Rule(pattern, None if key.startswith("-:") else dict(values or {})))
        return cls(tuple(rules))

    def values(self) -> list[Mapping[str, Any]]:
        """The settings of each rule that has some."""
        return [rule.values for rule in self.rules if rule.values]

    def settings_of(self, weight: str, settings: Settings) -> Settings:
        """What holds for one quantised weight; raises where a rule says that it is dense."""
        module = weight.removesuffix(".weight")
        # The first rule that matches holds, as in GPTQModel and vLLM.
        rule = next((rule for rule in self.rules if rule.pattern.matches_start(module)), None)
        if rule is None:
            return settings
        if rule.values is None:
            raise settings.disagreement(weight, "dynamic", f"{rule.pattern.text!r} says it is dense")
        return settings.under(rule.values)


def newest_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that have a value, each by the newest of its names."""
    return {_SYNONYMS.get(key, key): value for key, value in config.items() if value is not None}
