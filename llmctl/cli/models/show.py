"""`llmctl models show`: a checkpoint's facts, and whether it fits into this machine's memory."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from llmctl.cli.logs.display import harmless, write_json
from llmctl.cli.models.families import AdapterFiles, registry
from llmctl.cli.models.local import quantisation_text
from llmctl.cli.models.lookup import Found, Lookup
from llmctl.cli.models.sizes import parse_size, shown, shown_count
from llmctl.cli.options import Json, console_of, settings_of
from llmctl.core.errors import BadFileError, DoesNotFitError, NotFoundError, UsageError
from llmctl.core.settings import CHOICES
from llmctl.loading.describe import Description, describe
from llmctl.loading.fit import QUANT_BITS, Fit, FitRequest, estimate, remedies
from llmctl.loading.local_models import find_here

_KINDS_WITHOUT_CACHE = ("embedding", "reranker")


def show(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, `demo`, or a downloaded hub id.")],
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Judge by this much memory: 16GiB, 24GB.", show_default=False),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            metavar="TOKENS",
            min=1,
            help="Tokens of prompt and answer; 4096 or the model's.",
            show_default=False,
        ),
    ] = None,
    quant: Annotated[
        str, typer.Option(metavar="|".join(QUANT_BITS), help="Judge as if so quantised.")
    ] = "none",
    device: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(CHOICES["device"]),
            help="Judge by this device; with --memory one that is not here.",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(CHOICES["dtype"]), help="Numbers that it computes in.", show_default=False
        ),
    ] = None,
    adapter_file: AdapterFiles = None,
    is_json: Json = False,
) -> None:
    """Show what a checkpoint is and whether it fits.

    Reads the configuration and the headers of the weights, so a model of any size takes a moment. Exits with
    6 when it does not fit, and says what would.
    """
    console = console_of(ctx)
    if quant not in QUANT_BITS:
        raise UsageError(f"--quant must be one of {', '.join(QUANT_BITS)}, not {quant!r}")
    settings = settings_of(ctx).with_flags({"device": device, "dtype": dtype})
    memory_bytes = parse_size(memory, flag="--memory") if memory is not None else None
    folder = _folder(model)
    found = Lookup(registry=registry(adapter_file)).find(model)
    about = describe(folder, name=model)
    request = FitRequest(
        device=settings.device,
        dtype=settings.dtype,
        quant=quant,
        context=context,
        memory_bytes=memory_bytes,
        has_cache=found.family is None or found.family.kind not in _KINDS_WITHOUT_CACHE,
    )
    fit, proposals = _judge(about, request)
    facts = {**_facts(about, found), "fit": _fit(fit, proposals)}
    if is_json:
        write_json(console, facts)
    else:
        for line in (*_fact_lines(facts), "fit", *_fit_lines(fit)):
            console.line(harmless(line))
    if not fit.fits:
        raise _does_not_fit(model, fit, proposals)


def _folder(model: str) -> Path:
    folder = find_here(model, os.environ)
    if folder is not None:
        return folder
    # Unlike Path, it takes a name that no file can have for an absent one.
    if os.path.isfile(os.path.expanduser(model)):  # noqa: PTH111, PTH113
        raise BadFileError(f"{model} is a file; give the folder of the model")
    raise NotFoundError(
        f"{model!r} is not on this machine",
        hint="give a folder, or download it first: llmctl chat MODEL -p Hello; "
        "llmctl models list --local shows what is here",
    )


def _judge(about: Description, request: FitRequest) -> tuple[Fit, tuple[str, ...]]:
    from llmctl.loading.accelerators import visible

    devices = visible()
    fit = estimate(about, request, devices)
    return fit, () if fit.fits else remedies(about, request, devices)


def _facts(about: Description, found: Found) -> dict[str, Any]:
    checkpoint, shape, family = about.checkpoint, about.shape, found.family
    return {
        "name": checkpoint.name,
        "folder": str(checkpoint.folder),
        "family": family.id if family else None,
        "kind": family.kind if family else None,
        "template": found.template_name,
        "template_source": found.template_source,
        "architecture": about.architecture,
        "model_type": found.facts.model_type if found.facts else None,
        "parameters": about.num_parameters,
        "bytes": checkpoint.num_bytes,
        "bytes_by_dtype": dict(checkpoint.bytes_by_dtype),
        "quantisation": quantisation_text(about),
        "layers": shape.num_layers,
        "hidden_size": shape.hidden_size,
        "heads": shape.num_heads,
        "kv_heads": shape.num_kv_heads,
        "head_size": shape.head_size,
        "experts": shape.num_experts,
        "active_experts": shape.num_active_experts,
        "vocabulary": shape.vocabulary_size,
        "context": about.context_length,
        "licence": about.licence,
    }


def _fit(fit: Fit, proposals: tuple[str, ...]) -> dict[str, Any]:
    return {
        "fits": fit.fits,
        "device": fit.device.kind,
        "device_name": fit.device.name,
        "free_bytes": fit.device.free_bytes,
        "dtype": fit.dtype,
        "quant": fit.quant,
        "context": fit.context,
        "weight_bytes": fit.weight_bytes,
        "cache_bytes": fit.cache_bytes,
        "cache_bytes_per_1k_tokens": fit.cache_bytes_per_1k,
        "overhead_bytes": fit.overhead_bytes,
        "needed_bytes": fit.needed_bytes,
        "max_context": fit.max_context,
        "notes": list(fit.notes),
        "remedies": list(proposals),
    }


def _fact_lines(facts: dict[str, Any]) -> Iterator[str]:
    yield facts["name"]
    types = ", ".join(f"{kind} {shown(size)}" for kind, size in facts["bytes_by_dtype"].items())
    rows = {
        "family": facts["family"] and f"{facts['family']} ({facts['kind']})",
        "template": facts["template"],
        "architecture": facts["architecture"] or facts["model_type"],
        "parameters": f"{shown_count(facts['parameters'])} ({facts['parameters']:,})",
        "weights": f"{shown(facts['bytes'])}: {types}",
        "quantised": facts["quantisation"] or "no",
        "layers": _joined("{layers} of width {hidden_size}", facts),
        "heads": _joined("{heads} of {head_size}, {kv_heads} for keys and values", facts),
        "experts": _joined("{experts}, {active_experts} at a time", facts),
        "vocabulary": _joined("{vocabulary} tokens", facts),
        "context": f"{facts['context']} tokens",
        "licence": facts["licence"] or "none named",
    }
    yield from _rows({title: text for title, text in rows.items() if text})


def _joined(form: str, facts: dict[str, Any]) -> str | None:
    """`form` filled, None when it needs a number that the config does not give."""
    text = form.format_map(facts)
    return None if "None" in text else text


def _fit_lines(fit: Fit) -> Iterator[str]:
    quant = "" if fit.quant == "none" else f", quantised to {fit.quant}"
    per_1k = f"{shown(fit.cache_bytes_per_1k)} for each 1024" if fit.cache_bytes_per_1k else "none by length"
    verdict = "fits" if fit.fits else "does not fit"
    yield from _rows(
        {
            "device": f"{fit.device.kind} ({fit.device.name}), {shown(fit.device.free_bytes)} free",
            "weights": f"{shown(fit.weight_bytes)} in {fit.dtype}{quant}",
            "cache": f"{shown(fit.cache_bytes)} for {fit.context} tokens, {per_1k}",
            "overhead": shown(fit.overhead_bytes),
            "together": f"{shown(fit.needed_bytes)} of {shown(fit.device.free_bytes)}: {verdict}",
            "longest": f"{fit.max_context} tokens",
        }
    )
    for note in fit.notes:
        yield f"  {'note':<14}{note}"


def _rows(rows: dict[str, str]) -> Iterator[str]:
    for title, text in rows.items():
        yield f"  {title:<14}{text}"


def _does_not_fit(model: str, fit: Fit, proposals: tuple[str, ...]) -> DoesNotFitError:
    quant = "" if fit.quant == "none" else f", {fit.quant}"
    return DoesNotFitError(
        f"{model} with {fit.context} tokens takes about {shown(fit.needed_bytes)} ({fit.dtype}{quant}), "
        f"{fit.device.kind} has {shown(fit.device.free_bytes)}",
        hint="; ".join(proposals) or "nothing that llmctl knows makes it fit: take a smaller model",
    )
