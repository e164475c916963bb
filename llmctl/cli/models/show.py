"""`llmctl models show`: a checkpoint's facts, and whether it fits into this machine's memory."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from llmctl.cli import loading_flags, options
from llmctl.cli.console import Console
from llmctl.cli.loading_flags import LoadingFlags
from llmctl.cli.logs.display import harmless, write_json
from llmctl.cli.models.families import AdapterFiles, registry
from llmctl.cli.models.local import quantisation_text
from llmctl.cli.models.lookup import Found, Lookup
from llmctl.cli.models.plan_view import plan_facts, plan_rows
from llmctl.cli.models.sizes import shown, shown_count
from llmctl.cli.options import Json, console_of, settings_of
from llmctl.core.errors import BadFileError, DoesNotFitError, NotFoundError, UsageError
from llmctl.core.settings import CHOICES
from llmctl.core.sizes import parse_size
from llmctl.loading.facts.describe import Description, describe
from llmctl.loading.hub.local_models import find_here
from llmctl.loading.planning.fit import Fit, FitRequest, described, estimate, remedies
from llmctl.loading.planning.plan import plan
from llmctl.loading.planning.request import PlanRequest

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
    load_8bit: options.Load8bit = False,
    load_4bit: options.Load4bit = False,
    quantization: Annotated[
        str | None,
        typer.Option(
            "--quantization",
            "--quant",
            metavar="int8|int4|nf4|fp4|none|FORMAT",
            help="Judge as if packed so while it loads.",
            rich_help_panel="Loading",
            show_default=False,
        ),
    ] = None,
    num_gpus: options.NumGpus = None,
    gpus: options.Gpus = None,
    max_gpu_memory: options.MaxGpuMemory = None,
    cpu_offloading: options.CpuOffloading = False,
    is_plan: Annotated[
        bool, typer.Option("--plan", help="Show how it would be loaded, and why, instead.")
    ] = False,
    adapter_file: AdapterFiles = None,
    is_json: Json = False,
) -> None:
    """Show what a checkpoint is and whether it fits.

    Reads the configuration and the headers of the weights, so a model of any size takes a moment. Exits with
    6 when it does not fit, and says what would.
    """
    console = console_of(ctx)
    given = {"device": device, "dtype": dtype, "quantization": quantization}
    flags = loading_flags.read(ctx.params)
    asked = flags.request(settings_of(ctx).with_flags(given))
    _check(flags, is_plan=is_plan, context=context)
    memory_bytes = parse_size(memory, flag="--memory") if memory is not None else None
    folder = _folder(model)
    found = Lookup(registry=registry(adapter_file)).find(model)
    about = describe(folder, name=model)
    if found.family is not None:
        asked = replace(asked, row_dtype=found.family.loading.get("dtype"))
    if is_plan:
        _show_plan(console, about, asked, memory_bytes, is_json=is_json)
        return
    request = FitRequest(
        device=asked.device,
        dtype=asked.dtype,
        row_dtype=asked.row_dtype,
        quant=asked.quantization,
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


def _check(flags: LoadingFlags, *, is_plan: bool, context: int | None) -> None:
    """Refuse flags that the one view or the other would not look at."""
    for_plan = [flag for flag in flags.given if not flag.startswith("--load-")]
    if for_plan and not is_plan:
        raise UsageError(f"{for_plan[0]} is for the plan", hint="add --plan")
    if context is not None and is_plan:
        raise UsageError("--context does not go with --plan, which counts the weights", hint="drop one")


def _show_plan(
    console: Console, about: Description, asked: PlanRequest, memory_bytes: int | None, *, is_json: bool
) -> None:
    from llmctl.loading.planning.accelerators import visible

    count = max(asked.num_gpus or 1, 1 + max(asked.gpus or (0,)))
    devices = described(visible(), kind=asked.device, memory_bytes=memory_bytes, count=count)
    made = plan(asked, about.facts, devices)
    if is_json:
        write_json(console, {"name": about.checkpoint.name, "plan": plan_facts(made)})
        return
    console.line(harmless(about.checkpoint.name))
    for line in _rows(plan_rows(made)):
        console.line(harmless(line))


def _folder(model: str) -> Path:
    folder = find_here(model, os.environ)
    if folder is not None:
        return folder
    # Unlike Path, it takes a name that no file can have for an absent one.
    if os.path.isfile(os.path.expanduser(model)):  # noqa: PTH111, PTH113
        raise BadFileError(f"{model} is a file; give the folder of the model")
    raise NotFoundError(
        f"{model!r} is not on this machine",
        hint="give a folder, or download it first: llmctl models pull MODEL; "
        "llmctl models list --local shows what is here",
    )


def _judge(about: Description, request: FitRequest) -> tuple[Fit, tuple[str, ...]]:
    from llmctl.loading.planning.accelerators import visible

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
    yield from _rows((title, text) for title, text in rows.items() if text)


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
        }.items()
    )
    yield from _rows(("note", note) for note in fit.notes)


def _rows(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for title, text in rows:
        yield f"  {title:<14}{text}"


def _does_not_fit(model: str, fit: Fit, proposals: tuple[str, ...]) -> DoesNotFitError:
    quant = "" if fit.quant == "none" else f", {fit.quant}"
    return DoesNotFitError(
        f"{model} with {fit.context} tokens takes about {shown(fit.needed_bytes)} ({fit.dtype}{quant}), "
        f"{fit.device.kind} has {shown(fit.device.free_bytes)}",
        hint="; ".join(proposals) or "nothing that llmctl knows makes it fit: take a smaller model",
    )
