"""A model that is on this machine as a row of `llmctl models list --local`."""

from collections.abc import Mapping
from typing import Any

from llmctl.adapters.match import match
from llmctl.adapters.registry import Registry
from llmctl.core.errors import AmbiguousError, BadFileError, LlmctlError
from llmctl.loading.facts.describe import Description, describe
from llmctl.loading.gguf.model import facts_of
from llmctl.loading.hub.local_models import find_here


def local_row(name: str, known: Registry, environ: Mapping[str, str]) -> dict[str, Any]:
    """Name, size, dtype, quantisation, context and family; `error` says why the rest is null."""
    row: dict[str, Any] = dict.fromkeys(
        ("bytes", "parameters", "dtype", "quantisation", "context", "family", "kind", "folder", "error")
    )
    try:
        folder = find_here(name, environ)
        if folder is None:
            raise BadFileError(f"{name} has vanished")
        # The family is known of a download that is not complete, too.
        row |= {"folder": str(folder), **_family(name, known, folder)}
        row |= _facts(describe(folder, name=name))
    except LlmctlError as error:
        row["error"] = error.message
    return {"name": name, **row}


def _facts(found: Description) -> dict[str, Any]:
    sizes = found.checkpoint.bytes_by_dtype
    return {
        "bytes": found.checkpoint.num_bytes,
        "parameters": found.num_parameters,
        "dtype": max(sizes, key=lambda kind: sizes[kind], default=None),
        "quantisation": quantisation_text(found),
        "context": found.context_length,
    }


def quantisation_text(found: Description) -> str | None:
    """The method with its bits: "gptq, 4 bits"."""
    packed = found.quantisation
    if packed is None:
        return None
    return f"{packed.method}, {packed.bits} bits" if packed.bits else packed.method


def _family(name: str, known: Registry, folder: Any) -> dict[str, str | None]:
    try:
        family = match(name, facts_of(folder), known.families).family
    except AmbiguousError:
        family = None
    return {"family": family.id if family else None, "kind": family.kind if family else None}
