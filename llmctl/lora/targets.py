"""Which modules an adapter's configuration targets, by PEFT's rules, and their ranks and factors."""

import math
from collections.abc import Iterable

from llmctl.core.patterns import Pattern
from llmctl.lora.config import AdapterConfig

ALL_LINEAR = "all-linear"
# PEFT takes the first number in a name, which is the layer's and not an expert's.
_LAYER = r"(?P<idx>\d+)\."


class Targets:
    """Answers for the names of modules as PEFT knows them, without "base_model.model."."""

    def __init__(self, config: AdapterConfig) -> None:
        """Raises `BadFileError` for expressions that are none."""
        self._config = config
        self._ranks = _compiled(config.ranks, "rank_pattern")
        self._alphas = _compiled(config.alphas, "alpha_pattern")
        self._expression = _expression(config.modules, "target_modules")
        self._excluded = _expression(config.excluded, "exclude_modules")
        self._lists = [
            _pattern(each, key="layers_pattern", form=rf"(?:^|.*?\.)(?:{{}})\.{_LAYER}")
            for each in config.layer_lists
        ] or [_pattern("[^.]*", key="layers_pattern", form=rf".*?\.{{}}\.{_LAYER}")]
        self._reserved = [
            _pattern(each, key="modules_to_save", form=r"(?:.*\.)?(?:{})(?:\..*)?") for each in config.saved
        ]

    def rank(self, name: str) -> int:
        """The rank of a module, or of a targeted parameter by its full name."""
        return int(_first(self._ranks, name, self._config.rank))

    def factor(self, name: str) -> float:
        """What the product of its matrices is multiplied by."""
        rank, alpha = self.rank(name), _first(self._alphas, name, self._config.alpha)
        return alpha / (math.sqrt(rank) if self._config.is_rank_stabilised else rank)

    def has_module(self, module: str) -> bool:
        """Whether the configuration targets that module; true where it does not say which it does."""
        wanted = self._config.modules
        if self._is_excluded(module):
            return False
        if wanted is None or wanted == ALL_LINEAR:
            return wanted == ALL_LINEAR or not self._config.parameters
        if self._expression is not None:
            return self._expression.matches(module)
        return module in wanted or (_ends(module, wanted) and self._has_layer(module))

    def has_parameter(self, parameter: str) -> bool:
        """Whether `target_parameters` names it."""
        return parameter in self._config.parameters or _ends(parameter, self._config.parameters)

    def saves(self, module: str) -> bool:
        """Whether `modules_to_save` names the module, or one that it is part of."""
        steps = module.split(".")
        above = [".".join(steps[:count]) for count in range(1, len(steps) + 1)]
        return any(name.endswith(end) for name in above for end in self._config.saved)

    def _is_excluded(self, module: str) -> bool:
        if any(pattern.matches(module) for pattern in self._reserved):
            return True
        if self._excluded is not None:
            return self._excluded.matches(module)
        return module in self._config.excluded or _ends(module, self._config.excluded)

    def _has_layer(self, module: str) -> bool:
        if not self._config.layers:
            return True
        numbers = (pattern.number(module) for pattern in self._lists)
        return next((number for number in numbers if number is not None), None) in self._config.layers


def _compiled(pairs: Iterable[tuple[str, float]], key: str) -> list[tuple[Pattern, float]]:
    return [(_pattern(name, key=key, form=r"(?:.*\.)?(?:{})"), value) for name, value in pairs]


def _first(pairs: list[tuple[Pattern, float]], name: str, otherwise: float) -> float:
    return next((value for pattern, value in pairs if pattern.matches(name)), otherwise)


def _expression(value: tuple[str, ...] | str | None, key: str) -> Pattern | None:
    return _pattern(value, key=key) if isinstance(value, str) and value != ALL_LINEAR else None


def _pattern(text: str, *, key: str, form: str = "{}") -> Pattern:
    where = f"adapter_config.json has under {key}"
    return Pattern(text, where=where, hint="name the modules one by one", form=form)


def _ends(name: str, ends: Iterable[str]) -> bool:
    return any(name.endswith(f".{end}") for end in ends)
