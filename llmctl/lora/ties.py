"""Which parameters of a model are one weight, and which of them an adapter gives a weight of their own."""

from collections.abc import Mapping
from typing import Any


class Ties:
    """Of the parameters by all names that the model has for them."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        firsts: dict[int, str] = {}
        self._owners = {name: firsts.setdefault(id(each), name) for name, each in parameters.items()}
        self.untied: list[str] = []
        """Parameters that shared a weight and get one of their own."""

    def owner(self, parameter: str) -> str:
        """The name of all that are one weight with it, which is its own for a weight of its own."""
        return parameter if parameter in self.untied else self._owners[parameter]

    def owners(self) -> dict[str, str]:
        """`owner` of every parameter."""
        return {name: self.owner(name) for name in self._owners}

    def others(self, parameter: str) -> list[str]:
        """Other parameters that are one weight with it in the base."""
        owner = self._owners[parameter]
        return [name for name, each in self._owners.items() if each == owner and name != parameter]

    def shared_with(self, parameter: str) -> list[str]:
        """Those of `others` that a change of it changes too."""
        return [] if parameter in self.untied else self.others(parameter)

    def untie(self, parameter: str) -> None:
        """Give it and all `others` a weight of their own."""
        together = (parameter, *self.others(parameter))
        self.untied += [name for name in together if name not in self.untied]
