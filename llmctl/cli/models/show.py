"""`llmctl models show`: a checkpoint's facts, and whether it fits into this machine's memory."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from llmctl.cli import loading_flags, options
from llmctl.cli.console import Console
from llmctl.cli.logs.display import harmless, write_json
from llmctl.cli.models.engine_view import engine_facts, engine_rows
from llmctl.cli.models.families import AdapterFiles, registry
from llmctl.cli.models.local import quantisation_text
from llmctl.cli.models.lookup import Found, Lookup
from llmctl.cli.models.plan_view import plan_facts, plan_rows
from llmctl.cli.options import Json, console_of, flags_of, settings_of
from llmctl.core.errors import BadFileError, DoesNotFitError, LlmctlError, NotFoundError, UsageError
from llmctl.core.settings import CHOICES
from llmctl.core.sizes import parse_size, shown, shown_count
from llmctl.demo import MODELS as EMBEDDED
from llmctl.loading.checkpoint import Checkpoint
from llmctl.loading.facts.describe import Description, describe
from llmctl.loading.gguf.names import find_tagged
from llmctl.loading.hub.local_models import find_here, is_path
from llmctl.loading.planning.fit import Fit, FitRequest, described, estimate, remedies
from llmctl.loading.planning.plan import plan
from llmctl.loading.planning.request import PlanRequest
from llmctl.loading.readers import reader_of
from llmctl.lora.config import read_config

_KINDS_WITHOUT_CACHE = ("embedding", "reranker")
_NOT_FOR_ENGINE = (
    *("is_plan", "memory", "load_8bit", "load_4bit", "quantization"),
    *("num_gpus", "gpus", "max_gpu_memory", "cpu_offloading"),
)


def show(
    ctx: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A folder, a GGUF file, `demo`, or a downloaded hub id; NAME:Q4_K_M of several GGUF files.",
        ),
    ],
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
            help="Judge as if packed so while it loads; none: as it is stored.",
            rich_help_panel="Loading",
            show_default=False,
        ),
    ] = None,
    num_gpus: options.NumGpus = None,
    gpus: options.Gpus = None,
    max_gpu_memory: options.MaxGpuMemory = None,
    cpu_offloading: options.CpuOffloading = False,
    quant_config: options.QuantConfig = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
    is_plan: Annotated[
        bool, typer.Option("--plan", help="Show how it would be loaded, and why, instead.")
    ] = False,
    is_engine: Annotated[
        bool, typer.Option("--engine", help="Show how the engine would run it, and why, instead.")
    ] = False,
    adapter_file: AdapterFiles = None,
    is_json: Json = False,
) -> None:
    """Show what a checkpoint is and whether it fits.

    Reads the configuration and the headers of the weights, so a model of any size takes a moment. Exits with
    6 when it does not fit, and says what would; with 7 when llmctl cannot load it, and says why.
    """
    console = console_of(ctx)
    flags, settings = loading_flags.read(ctx.params), settings_of(ctx).with_flags(flags_of(ctx))
    asked = flags.request(settings)
    given = [
        *flags.given(settings),
        *(["--trust-remote-code"] if trust_remote_code and not is_engine else []),
    ]
    _check_engine(ctx, is_engine=is_engine)
    _check(given, is_plan=is_plan, context=context)
    memory_bytes = parse_size(memory, flag="--memory") if memory is not None else None
    folder, formats = _folder(model, revision), flags.formats or {}
    found = Lookup(registry=registry(adapter_file), revision=revision).find(model)
    about = describe(folder, name=model, formats=formats)
    if found.family is not None:
        asked = replace(asked, row_dtype=found.family.loading.get("dtype"))
    if is_engine:
        rows = engine_rows(about, asked, context=context, trust_remote_code=trust_remote_code)
        _show_engine(console, model, rows, is_json=is_json)
        return
    if is_plan:
        _check_loads(about.checkpoint, found, formats, trust_remote_code=trust_remote_code)
        _show_plan(console, about, asked, memory_bytes, is_json=is_json)
        return
    request = FitRequest(
        device=asked.device,
        dtype=asked.dtype,
        row_dtype=asked.row_dtype,
        quant=asked.quantization,
        settings=asked.settings,
        context=context,
        memory_bytes=memory_bytes,
        has_cache=found.family is None or found.family.kind not in _KINDS_WITHOUT_CACHE,
    )
    facts = _facts(about, found)
    try:
        reader_of(about.checkpoint, formats)
    except LlmctlError:
        _tell(console, {**facts, "fit": None}, _fact_lines(facts), is_json=is_json)
        raise
    fit, proposals = _judge(about, request)
    lines = (*_fact_lines(facts), "fit", *_fit_lines(fit))
    _tell(console, {**facts, "fit": _fit(fit, proposals)}, lines, is_json=is_json)
    if not fit.fits:
        raise _does_not_fit(model, fit, proposals)


def _tell(console: Console, facts: dict[str, Any], lines: Iterable[str], *, is_json: bool) -> None:
    if is_json:
        write_json(console, facts)
        return
    for line in lines:
        console.line(harmless(line))


def _check(flags: list[str], *, is_plan: bool, context: int | None) -> None:
    """Refuse flags that the one view or the other would not look at."""
    for_both = ("--load-8bit", "--load-4bit", "--quant-config")
    for_plan = [flag for flag in flags if flag not in for_both]
    if for_plan and not is_plan:
        views = "the plan or the engine's view" if for_plan[0] == "--trust-remote-code" else "the plan"
        hint = "add --plan or --engine" if " or " in views else "add --plan"
        raise UsageError(f"{for_plan[0]} is for {views}", hint=hint)
    if context is not None and is_plan:
        raise UsageError("--context does not go with --plan, which counts the weights", hint="drop one")


def _check_engine(ctx: typer.Context, *, is_engine: bool) -> None:
    """Refuse what the engine's view would not look at."""
    if not is_engine:
        return
    for name in _NOT_FOR_ENGINE:
        if ctx.params[name]:
            flag = "--plan" if name == "is_plan" else f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag} does not go with --engine, which looks at no weight", hint="drop one")


def _show_engine(console: Console, model: str, rows: list[tuple[str, str]], *, is_json: bool) -> None:
    if is_json:
        write_json(console, {"name": model, "engine": engine_facts(rows)})
        return
    console.line(harmless(model))
    for line in _rows(rows):
        console.line(harmless(line))


def _check_loads(
    checkpoint: Checkpoint, found: Found, formats: Mapping[str, object], *, trust_remote_code: bool
) -> None:
    """Raise what loading would, before it plans."""
    from llmctl.loading import architecture

    if found.family is not None:
        architecture.check_family(checkpoint.name, found.family.generates)
    architecture.check(checkpoint.config, name=checkpoint.name, trust_remote_code=trust_remote_code)
    reader_of(checkpoint, formats)


def _show_plan(
    console: Console, about: Description, asked: PlanRequest, memory_bytes: int | None, *, is_json: bool
) -> None:
    from llmctl.loading.planning.accelerators import visible

    count = max(asked.num_gpus or 1, 1 + max(asked.gpus or (0,)))
    devices = described(visible(), kind=asked.device, memory_bytes=memory_bytes, count=count)
    made = plan(asked, about.facts, devices)
    facts = {"name": about.checkpoint.name, "plan": plan_facts(made)}
    lines = (about.checkpoint.name, *_rows(plan_rows(made)), *_why(made.reasons))
    _tell(console, facts, lines, is_json=is_json)


def _folder(model: str, revision: str | None) -> Path:
    if revision is not None and (is_path(model) or model in EMBEDDED):
        raise UsageError(
            f"--revision {revision} is for models of the hub, and {model} is here",
            hint="leave --revision out",
        )
    folder = find_here(model, os.environ, revision=revision)
    if folder is not None:
        return folder
    # Of a folder that is here it says which files it has.
    find_tagged(model)
    # Unlike Path, these take a name that no file can have for an absent one.
    path = os.path.expanduser(model)  # noqa: PTH111
    if os.path.exists(path):  # noqa: PTH110
        what = "file" if os.path.isfile(path) else "device or pipe"  # noqa: PTH113
        raise BadFileError(f"{model} is a {what}; give the folder of the model, or a *.gguf file")
    named, flag = (f" at the revision {revision!r}", f" --revision {revision}") if revision else ("", "")
    raise NotFoundError(
        f"{model!r} is not on this machine{named}",
        hint=f"give a folder, or download it first: llmctl models pull MODEL{flag}; "
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
        "adapter": _adapter(checkpoint),
    }


def _adapter(checkpoint: Checkpoint) -> dict[str, Any] | None:
    if checkpoint.adapter is None:
        return None
    config = read_config(checkpoint.adapter)
    return {"folder": str(checkpoint.adapter), "base": config.base, "rank": config.rank}


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
        "adapter": facts["adapter"] and "LoRA of rank {rank} upon {base}".format_map(facts["adapter"]),
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
    yield from _why(fit.notes)


def _rows(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for title, text in rows:
        yield f"  {title:<14}{text}"


def _why(sentences: Iterable[str]) -> Iterator[str]:
    yield "why"
    yield from (f"  {sentence}" for sentence in sentences)


def _does_not_fit(model: str, fit: Fit, proposals: tuple[str, ...]) -> DoesNotFitError:
    quant = "" if fit.quant == "none" else f", {fit.quant}"
    return DoesNotFitError(
        f"{model} with {fit.context} tokens takes about {shown(fit.needed_bytes)} ({fit.dtype}{quant}), "
        f"{fit.device.kind} has {shown(fit.device.free_bytes)}",
        hint="; ".join(proposals) or "nothing that llmctl knows makes it fit: take a smaller model",
    )
