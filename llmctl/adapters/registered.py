"""Adapter classes that are registered while the program runs, each as a row that ranks above ours."""

import contextlib
import re
from collections.abc import Iterator
from contextvars import ContextVar

from llmctl.adapters.base import ModelAdapter
from llmctl.adapters.foreign import named
from llmctl.adapters.spec import OF_TOKENIZER, USER_RANK, Family
from llmctl.core.errors import UsageError

ORIGIN = "registered"
_METHODS = ("match", "load_model", "get_default_conv_template")
_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class RegisteredFamilies:
    """The classes of this process, and those of a file while it runs. A class of the same name replaces."""

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}
        self._collecting: ContextVar[dict[str, Family] | None] = ContextVar("collecting", default=None)
        self._origin: ContextVar[str] = ContextVar("origin", default=ORIGIN)

    def add(self, cls: type[ModelAdapter]) -> None:
        """Register a class, in `collecting` for the caller of that alone. Raises what `family_of` raises."""
        family = family_of(cls, origin=self._origin.get())
        collected = self._collecting.get()
        into = self._families if collected is None else collected
        into[family.id] = family

    def families(self) -> tuple[Family, ...]:
        """The classes that are registered for the whole process."""
        return tuple(self._families.values())

    @contextlib.contextmanager
    def collecting(self, origin: str) -> Iterator[dict[str, Family]]:
        """Gather what is registered inside, by id, instead of keeping it."""
        found: dict[str, Family] = {}
        tokens = self._collecting.set(found), self._origin.set(origin)
        try:
            yield found
        finally:
            self._collecting.reset(tokens[0])
            self._origin.reset(tokens[1])


def family_of(cls: type[ModelAdapter], *, origin: str, origin_rank: int = USER_RANK) -> Family:
    """A class as a family. Raises `UsageError` for what is no adapter, `BadFileError` when making it fails.

    The row's id is the class's name without "Adapter", in small letters, behind "class.": no row's own id.
    """
    missing = [method for method in _METHODS if not callable(getattr(cls, method, None))]
    if not isinstance(cls, type) or missing:
        raise UsageError(
            f"{cls!r} is not an adapter class: it lacks {', '.join(missing) or 'a class of its own'}",
            hint="derive it from llmctl.adapters.BaseModelAdapter",
        )
    with named(f"{cls.__name__} ({origin})"):
        adapter = cls()
    stem = cls.__name__.removesuffix("Adapter") or cls.__name__
    return Family(
        id="class." + _HUMPS.sub("-", stem).replace("_", "-").lower(),
        title=cls.__name__,
        template=OF_TOKENIZER,
        adapter=adapter,
        origin=origin,
        origin_rank=origin_rank,
    )


REGISTERED = RegisteredFamilies()
"""Those of this process: FastChat's interface has one list for all."""
