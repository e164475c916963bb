"""The functions that users of FastChat's `model_adapter` import, over the families of this process."""

import functools
import os
from pathlib import Path
from typing import Any

from llmctl.adapters.base import ModelAdapter, adapter_of
from llmctl.adapters.registered import REGISTERED
from llmctl.adapters.registry import USER_FOLDER, Registry
from llmctl.core.errors import NotFoundError
from llmctl.core.places import Places


def register_model_adapter(cls: type[ModelAdapter]) -> None:
    """Make a class take part in matching, before all built-in families; what was matched is forgotten.

    Raises `UsageError` for a class that is no adapter.
    """
    REGISTERED.add(cls)
    _registry.cache_clear()


def get_model_adapter(model_path: str) -> ModelAdapter:
    """The adapter for a model's name or folder.

    Raises `NotFoundError` with what comes near when no family fits (FastChat guessed instead), `TieError`
    when several do equally well, `BadFileError` for a damaged folder.
    """
    found = _registry(Places.from_environ(os.environ).config / USER_FOLDER).resolve(model_path)
    if found.family is None:
        near = f"did you mean {', '.join(found.near)}? " if found.near else ""
        raise NotFoundError(
            f"no family fits {model_path!r}",
            hint=f"{near}register_model_adapter takes a class of yours",
        )
    return adapter_of(found.family)


def get_conversation_template(model_path: str) -> Any:
    """A conversation in the model's format, to append messages to.

    Raises what `get_model_adapter` raises, and `UsageError` when the template lives in the tokenizer.
    """
    return get_model_adapter(model_path).get_default_conv_template(model_path)


def get_conv_template(name: str) -> Any:
    """A conversation in the format of a template by its name. Raises `NotFoundError` with near names."""
    from llmctl.prompts.conversation import ConversationFacade
    from llmctl.prompts.library import find

    return ConversationFacade(find(name))


@functools.lru_cache(maxsize=1)
def _registry(user_folder: Path) -> Registry:
    return Registry.load(user_folder)
