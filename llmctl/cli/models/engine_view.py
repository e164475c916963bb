"""How the engine would run a checkpoint, as `models show --engine` tells it; no weight is read."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmctl.loading.checkpoint import Checkpoint
    from llmctl.loading.facts.describe import Description
    from llmctl.loading.planning.request import PlanRequest


def engine_rows(
    about: "Description", asked: "PlanRequest", *, context: int | None, trust_remote_code: bool
) -> list[tuple[str, str]]:
    """Rows of (what, value).

    Raises `UsageError` for a device that is not here and for code that nobody trusts, `BadFileError` for a
    model that does not generate.
    """
    import torch

    from llmctl.core import log
    from llmctl.engine import tiers
    from llmctl.engine.attention import interface
    from llmctl.loading import architecture, devices
    from llmctl.loading.planning.plan import choose_device, choose_dtype

    log.tame_libraries()
    architecture.check(
        about.checkpoint.config, name=about.checkpoint.name, trust_remote_code=trust_remote_code
    )
    device = choose_device(asked.device, devices.available())[0]
    dtype, _ = choose_dtype(asked.dtype, about.facts.stored_dtype, device, row=asked.row_dtype)
    config = _config(about.checkpoint, trust_remote_code=trust_remote_code)
    own = getattr(config, "auto_map", None) or {}
    has_own_code = trust_remote_code and any(name.startswith("AutoModel") for name in own)
    rows = tiers.describe(config, context_length=context, has_own_code=has_own_code)
    if is_packed(rows) and "attention" not in dict(rows):
        backend = interface.choose(torch.device(device.place), getattr(torch, dtype))
        rows.append(("attention", backend.name))
    elif not is_packed(rows):
        rows.append(("attention", "the model's own"))
    return rows


def is_packed(rows: list[tuple[str, str]]) -> bool:
    """Whether the engine itself attends: not where sequences go one by one."""
    return not dict(rows)["tier"].startswith("C")


def engine_facts(rows: list[tuple[str, str]]) -> Mapping[str, Any]:
    """The rows as JSON has them, the tier as its letter."""
    facts: dict[str, Any] = {title.replace(" ", "_"): text for title, text in rows}
    letter, _, title = facts["tier"].partition(", ")
    return {**facts, "tier": letter, "title": title}


def _config(checkpoint: "Checkpoint", *, trust_remote_code: bool) -> Any:
    from llmctl.loading.loader import (
        LoadRequest,
        forget_quantisation,
        quiet_transformers,
        read_config,
    )

    request = LoadRequest(model=checkpoint.name, trust_remote_code=trust_remote_code)
    with quiet_transformers():
        config = read_config(checkpoint, request)
    forget_quantisation(config)
    return config
