"""`llmctl serve up`: controller, workers and gateway as processes of one command, which watches over them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from llmctl.cli import loading_flags, options
from llmctl.cli.models.families import AdapterFiles
from llmctl.cli.options import FLAG_NAMES, Json, console_of, flags_of, settings_of
from llmctl.cli.serve import wanted, worker_flags
from llmctl.cli.serve.listening import Host, Port
from llmctl.cli.serve.wanted import Asked, Wanted
from llmctl.core.errors import UsageError
from llmctl.core.places import Places
from llmctl.core.sizes import parse_size
from llmctl.services.dispatch import METHODS, method_named
from llmctl.services.parts import API_PORT
from llmctl.services.up.plan import THREADS, Share, Wish

_MAX_WORKERS = 256
_TO_WORKERS = (
    *("adapter_file", "max_running", "max_waiting", "max_step_tokens", "kv_memory", "no_prefix_cache"),
    *("seed", "device", "dtype", "load_8bit", "load_4bit", "quantization", "num_gpus", "max_gpu_memory"),
    *("cpu_offloading", "quant_config", "context", "revision", "trust_remote_code"),
)
_TO_GATEWAY = ("api_key_file", "allowed_origin", "timeout")
_NOT_AGAIN = ("is_detached", "detached_in", "model")


def up(
    ctx: typer.Context,
    model: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="Hub ids, folders, GGUF files, or 'demo', which is the default; with NAME=MODEL clients "
            "call it NAME.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            metavar="NUMBER",
            min=1,
            max=_MAX_WORKERS,
            help="Processes for each model; 1: one for all models together.",
        ),
    ] = 1,
    is_apart: Annotated[
        bool, typer.Option("--apart", help="With one worker too, a process for each model.")
    ] = False,
    host: Host = "127.0.0.1",
    port: Port = API_PORT,
    controller_port: Annotated[
        int,
        typer.Option(metavar="NUMBER", min=0, max=65_535, help="Of the controller; 0 is one that is free."),
    ] = 0,
    api_key_file: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Keys of clients, one a line, plain or sha256:HEX; repeatable.",
            show_default=False,
        ),
    ] = None,
    allowed_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN", help="Web pages from there may ask, '*' is all; repeatable.", show_default=False
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.1,
            max=86_400.0,
            help="How long a worker may be silent in an answer; 600 if not set.",
            show_default=False,
        ),
    ] = None,
    dispatch_method: Annotated[
        str,
        typer.Option(
            metavar="|".join(METHODS),
            help="Which worker takes a request: the least expected wait, a draw by free places, or the one "
            "that has the prompt's beginning cached.",
        ),
    ] = "least-wait",
    drain: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0.0, max=86_400.0, help="How long open requests may go on at the end."
        ),
    ] = 30.0,
    is_detached: Annotated[
        bool,
        typer.Option("--detach", help="Return when all is served; llmctl serve stop ends the fleet."),
    ] = False,
    template: worker_flags.Templates = None,
    task: worker_flags.Tasks = None,
    delta: worker_flags.Deltas = None,
    adapter_file: AdapterFiles = None,
    max_running: worker_flags.MaxRunning = None,
    max_waiting: worker_flags.MaxWaiting = None,
    max_step_tokens: worker_flags.MaxStepTokens = None,
    kv_memory: worker_flags.KvMemory = None,
    no_prefix_cache: worker_flags.NoPrefixCache = False,
    seed: options.Seed = None,
    device: options.DeviceFlag = None,
    dtype: options.DtypeFlag = None,
    load_8bit: options.Load8bit = False,
    load_4bit: options.Load4bit = False,
    quantization: options.Quantization = None,
    num_gpus: options.NumGpus = None,
    gpus: options.Gpus = None,
    max_gpu_memory: options.MaxGpuMemory = None,
    cpu_offloading: options.CpuOffloading = False,
    quant_config: options.QuantConfig = None,
    context: options.Context = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
    is_json: Json = False,
    detached_in: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Start a whole fleet on this machine, and watch over it.

    A controller, workers for the models and a gateway, which clients talk to at http://127.0.0.1:8000/v1. Its
    URL and the models are told on stdout when all is served. What dies is started again; one Ctrl-C ends all.
    With several workers --gpus is shared out among them.
    """
    console = console_of(ctx)
    flags = flags_of(ctx)
    # Of the gateway, and no setting here.
    for name in ("model", "timeout"):
        flags.pop(name, None)
    settings = settings_of(ctx).with_flags(flags, names=FLAG_NAMES)
    request = loading_flags.read(ctx.params).request(settings)
    if kv_memory is not None:
        parse_size(kv_memory, flag="--kv-memory")
    asked = Asked(
        models=tuple(model or ()),
        templates=tuple(template or ()),
        tasks=tuple(task or ()),
        deltas=tuple(delta or ()),
    )
    found = wanted.read(asked, default=settings.model)
    method = method_named(dispatch_method)
    # For their logs.
    loud = ("-v",) * max(0, console.verbosity)
    is_whole = len(found) == 1 or (workers == 1 and not is_apart)
    wish = Wish(
        shares=[_whole(asked, found)] if is_whole else _each(asked, found),
        num_workers=workers,
        host=host,
        port=port,
        controller_port=controller_port,
        worker_words=(*loud, *worker_flags.words(ctx, _TO_WORKERS)),
        gateway_words=(*loud, *worker_flags.words(ctx, _TO_GATEWAY), *(() if api_key_file else ("--open",))),
        controller_words=(*loud, f"--dispatch-method={method}"),
        gpus=request.gpus or () if gpus is not None else (),
        drain_s=drain,
    )
    _check(wish, api_key_file or ())
    from llmctl.services.up.state import Fleets

    fleets = Fleets(Places.from_environ(os.environ))
    if detached_in is None:
        fleets.refuse_second(host, port)
        _refuse_taken(host, port)
    folder = fleets.new_folder(port) if detached_in is None else Path(detached_in)
    if is_detached:
        from llmctl.cli.serve.detaching import detach

        words = _again(ctx, folder, verbosity=console.verbosity)
        detach(console, words, folder, is_json=is_json)
        return
    from llmctl.cli.serve.watching import Manner, watch

    watch(console, wish, folder, Manner(is_json=is_json, num_cores=_cores_to_share()))


def _whole(asked: Asked, found: Sequence[Wanted]) -> Share:
    """All models in one process."""
    return Share(models=tuple(asked.models) or (found[0].model,), words=tuple(_said(asked)))


def _each(asked: Asked, found: Sequence[Wanted]) -> list[Share]:
    """A process for each model, told what is said of that one only."""
    return [
        Share(models=(text,), words=tuple(_said(asked, one)))
        for text, one in zip(asked.models, found, strict=True)
    ]


def _said(asked: Asked, one: Wanted | None = None) -> Iterator[str]:
    """What --template, --task and --delta say, or only what they say of `one` of several models."""
    given: Mapping[str, Sequence[str]] = {
        "--template": asked.templates,
        "--task": asked.tasks,
        "--delta": asked.deltas,
    }
    for flag, texts in given.items():
        yield from (
            f"{flag}={text}" for text in texts if one is None or one.answers_to(text.partition("=")[0])
        )


def _check(wish: Wish, api_key_files: Sequence[str]) -> None:
    """What the parts would refuse is refused before any of them is started. Raises what they would raise."""
    from llmctl.services.http.guard import check_bind
    from llmctl.services.http.key_files import read_digests
    from llmctl.services.up.plan import parts_of

    read_digests(api_key_files)
    check_bind(wish.host, is_guarded=bool(api_key_files), flag="--api-key-file")
    parts_of(wish, token_file="")
    if wish.port != 0 and wish.port == wish.controller_port:
        raise UsageError(f"--port and --controller-port are both {wish.port}", hint="give two")


def _refuse_taken(host: str, port: int) -> None:
    """Before models are loaded. Raises what `bind` raises."""
    from llmctl.services.http.binding import bind

    bind(host, port).close()


def _again(ctx: typer.Context, folder: Path, *, verbosity: int) -> list[str]:
    """The words of this command, for the process that is to watch over the fleet."""
    names = [param.name for param in ctx.command.params if param.name and param.name not in _NOT_AGAIN]
    loud = {0: [], -1: ["-q"]}.get(verbosity, ["-v"] * verbosity)
    models: Sequence[str] = ctx.params.get("model") or ()
    flags = worker_flags.words(ctx, names)
    return ["serve", "up", *flags, f"--detached-in={folder}", *loud, "--", *models]


def _cores_to_share() -> int | None:
    """None where the user has said how many threads each process may have."""
    if THREADS in os.environ:
        return None
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count()
