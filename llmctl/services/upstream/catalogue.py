"""The models that a server lists, and the choice of one by name."""

import difflib
from dataclasses import dataclass
from typing import Any

from llmctl.core.errors import NotFoundError
from llmctl.services.upstream.faults import Faults
from llmctl.services.upstream.refusal import one_line

_NUM_SHOWN = 5
# Of vLLM, then of gateways and LM Studio.
_CONTEXT_KEYS = ("max_model_len", "context_length", "context_window", "max_context_length")
# llama.cpp: what it runs with, and what the model was trained for, which is more at times.
_META_KEYS = ("n_ctx", "n_ctx_train")


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """What a server offers."""

    url: str
    context_lengths: dict[str, int | None]
    """By model, in the server's order; tokens, None where it does not tell."""
    is_open: bool = False
    """Whether the server lists nothing, so that any name may be right."""

    def choose(self, model: str | None) -> str:
        """The name under which the server knows `model`; its first for None.

        Raises `NotFoundError` for a model that it does not list, or when there is nothing to choose from.
        """
        if model is None:
            return self._first()
        # ollama lists `llama3:latest`, and means it by `llama3` too.
        listed = next((name for name in (model, f"{model}:latest") if name in self.context_lengths), None)
        if listed is not None or self.is_open:
            return listed or model
        raise NotFoundError(f"{self.url} has no model {model!r}", hint=self._suggestion(model))

    def _first(self) -> str:
        if self.is_open:
            raise NotFoundError(f"{self.url} does not list its models", hint="name one: llmctl chat MODEL")
        if not self.context_lengths:
            raise NotFoundError(f"{self.url} offers no model", hint="load one on the server")
        return next(iter(self.context_lengths))

    def _suggestion(self, model: str) -> str:
        names = list(self.context_lengths)
        if not names:
            return "it offers none: load one on the server"
        by_folded = {name.casefold(): name for name in reversed(names)}
        near = difflib.get_close_matches(model.casefold(), by_folded, n=3)
        question = f"did you mean {' or '.join(one_line(by_folded[each]) for each in near)}? " if near else ""
        more = f" and {len(names) - _NUM_SHOWN} more" if len(names) > _NUM_SHOWN else ""
        return f"{question}it has {', '.join(map(one_line, names[:_NUM_SHOWN]))}{more}"


def read(listed: Any, faults: Faults) -> Catalogue:
    """The catalogue in an answer of `/models`. Raises `LlmctlError` for what is no list of models."""
    entries = listed.get("data", ...) if isinstance(listed, dict) else listed
    # ollama without any model says null.
    entries = [] if entries is None and listed is not None else entries
    is_list = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
    if not is_list:
        raise faults.garbage("a list of models", listed)
    named = {entry["id"]: _context_length(entry) for entry in entries if _is_name(entry.get("id"))}
    if entries and not named:
        raise faults.garbage("a list of models", listed)
    return Catalogue(url=faults.url, context_lengths=named)


def _is_name(value: Any) -> bool:
    """Names are shown as they are, so none may hold control characters."""
    return isinstance(value, str) and bool(value) and value.isprintable()


def _context_length(entry: dict[str, Any]) -> int | None:
    meta = entry.get("meta")
    told = [entry.get(key) for key in _CONTEXT_KEYS]
    told += [meta.get(key) for key in _META_KEYS] if isinstance(meta, dict) else []
    return next((value for value in told if isinstance(value, int) and value > 0), None)
