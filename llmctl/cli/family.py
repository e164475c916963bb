"""What a model's family asks of loading and prompting: its row among the adapters, by facts and by name."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.adapters.spec import USER_RANK
from llmctl.core import sampling
from llmctl.core.errors import BadFileError, UsageError

if TYPE_CHECKING:
    from llmctl.adapters.spec import Family
    from llmctl.loading.loader import LoadedModel, OwnLoader
    from llmctl.prompts.template import RowTemplate

logger = logging.getLogger(__name__)


def family_of(model: str, adapter_files: Sequence[str], *, folder: Path | None = None) -> "Family | None":
    """The family of a model; None when none fits, or several do, which only a missing template makes matter.

    `folder` is where its files are, for those that lie elsewhere than the name says.

    Raises `UsageError` for a model that only runs behind an API, and what a broken adapter file raises.
    """
    from llmctl.cli.models.families import registry
    from llmctl.cli.models.lookup import Lookup

    found = Lookup(registry=registry(list(adapter_files))).find(model, folder=folder)
    family = found.family
    # Damaged files are told by whoever loads them, and a model that is still to come is looked at again.
    if found.error is not None and found.folder is not None and not isinstance(found.error, BadFileError):
        logger.info("%s", found.error.message)
    if family is None:
        return None
    # A name with an organisation is a repository's, whatever a maker calls its service.
    if family.kind == "api" and found.folder is None and "/" in model:
        return None
    if family.kind == "api" and found.folder is None:
        raise UsageError(
            f"{model} ({family.title}) runs behind an API and cannot be loaded",
            hint="name its server with --url, such as https://api.openai.com/v1",
        )
    logger.info("family %s: %s", family.id, "; ".join(found.match.matched_by if found.match else ()))
    return family


def row_template(family: "Family | None") -> "RowTemplate | None":
    """What the family's row says of its prompts."""
    from llmctl.prompts.template import RowTemplate

    if family is None:
        return None
    return RowTemplate(
        name=family.template,
        wins=family.template_wins,
        family=family.id,
        stop=family.stop,
        stop_token_ids=family.stop_token_ids,
        note=family.note or "",
    )


def own_loader(family: "Family | None") -> "OwnLoader | None":
    """What a class of the user's loads by, where it has a way of its own."""
    from llmctl.adapters.base import BaseModelAdapter

    adapter = family.adapter if family is not None else None
    if adapter is None or type(adapter).load_model is BaseModelAdapter.load_model:
        return None
    return adapter.load_model


def suited(loaded: "LoadedModel", family: "Family | None") -> "LoadedModel":
    """The model with what its family's row knows better than its files."""
    if family is None:
        return loaded
    end_id, limit = family.loading.get("eos_token_id"), family.loading.get("max_context")
    # A user's row says what the user wants; ours only what the model's own files leave open.
    said = frozenset() if family.origin_rank == USER_RANK else loaded.default_sampling.given
    defaults = {key: value for key, value in family.generation.items() if key not in said}
    return replace(
        loaded,
        end_ids=loaded.end_ids | ({end_id} if isinstance(end_id, int) else frozenset()),
        context_length=min(loaded.context_length, limit) if isinstance(limit, int) else loaded.context_length,
        default_sampling=sampling.update(loaded.default_sampling, defaults),
    )
