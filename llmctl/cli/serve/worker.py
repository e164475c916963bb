"""`llmctl serve worker`: models of this process as an OpenAI server, for clients and for a fleet."""

import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli import loading_flags, options
from llmctl.cli.console import Console
from llmctl.cli.model_opening import ModelSource
from llmctl.cli.models.families import AdapterFiles
from llmctl.cli.options import FLAG_NAMES, console_of, flags_of, settings_of
from llmctl.cli.serve import wanted, worker_flags
from llmctl.cli.serve.listening import Host, Port, TokenFile, cluster_token
from llmctl.cli.serve.wanted import Asked, Wanted
from llmctl.core.errors import UsageError
from llmctl.core.sizes import parse_size
from llmctl.services.parts import WORKER_PORT, controller_urls, part_url

if TYPE_CHECKING:
    from llmctl.core.progress import Progress
    from llmctl.services.http.guard import Keys
    from llmctl.services.worker.hosted import Hosted, Models

_MODELS, _FLEET = "Models", "Fleet"
_MAX_WAITING = 512


def worker(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A hub id, a folder, a GGUF file, or 'demo', which is the default; with NAME=MODEL clients "
            "call it NAME.",
            show_default=False,
        ),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="MODEL|NAME=MODEL",
            help="A further model; A,B=MODEL has two names. Repeatable.",
            rich_help_panel=_MODELS,
        ),
    ] = None,
    template: worker_flags.Templates = None,
    task: worker_flags.Tasks = None,
    delta: worker_flags.Deltas = None,
    adapter_file: AdapterFiles = None,
    host: Host = "127.0.0.1",
    port: Port = WORKER_PORT,
    api_key_file: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Keys of clients, one a line, plain or sha256:HEX; repeatable.",
            show_default=False,
        ),
    ] = None,
    drain: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0.0, max=86_400.0, help="How long open requests may go on at the end."
        ),
    ] = 30.0,
    controller: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="Report to this controller; repeatable.", rich_help_panel=_FLEET),
    ] = None,
    token_file: TokenFile = None,
    worker_address: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where gateways reach this worker; left out, where it listens.",
            rich_help_panel=_FLEET,
            show_default=False,
        ),
    ] = None,
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
    model_path: Annotated[list[str] | None, typer.Option(hidden=True)] = None,
    model_names: Annotated[list[str] | None, typer.Option(hidden=True)] = None,
    conv_template: Annotated[list[str] | None, typer.Option(hidden=True)] = None,
    controller_address: Annotated[str | None, typer.Option(hidden=True)] = None,
    no_register: Annotated[bool, typer.Option("--no-register", hidden=True)] = False,
    limit_worker_concurrency: Annotated[int | None, typer.Option(min=1, hidden=True)] = None,
) -> None:
    """Serve models to OpenAI clients, by itself or as a part of a fleet.

    A laptop needs nothing else: clients talk to http://127.0.0.1:21002/v1. With --controller the worker
    reports what it serves and how busy it is, and gateways send it their clients' requests.
    """
    flags = flags_of(ctx)
    flags.pop("model", None)
    settings = settings_of(ctx).with_flags(flags, names=FLAG_NAMES)
    models_asked = Asked(
        models=(*([model] if model is not None else []), *(models or []), *(model_path or [])),
        names=tuple(model_names or []),
        templates=(*(template or []), *(conv_template or [])),
        tasks=tuple(task or []),
        deltas=tuple(delta or []),
    )
    loading = loading_flags.read(ctx.params)
    # Only to be refused now: a model takes long to load.
    loading.request(settings)
    loads = _Loads(
        wanted=wanted.read(models_asked, default=settings.model),
        source=ModelSource(
            settings=settings,
            loading=loading,
            revision=revision,
            trust_remote_code=trust_remote_code,
            adapter_files=tuple(adapter_file or ()),
        ),
        options={
            "max_running": max_running or limit_worker_concurrency,
            "max_waiting": _MAX_WAITING if max_waiting is None else max_waiting,
            "max_step_tokens": max_step_tokens,
            "kv_bytes": None if kv_memory is None else parse_size(kv_memory, flag="--kv-memory"),
            "caches_prefixes": not no_prefix_cache,
        },
    )
    controllers = [*(controller or []), *([controller_address] if controller_address is not None else [])]
    _Serving(
        console=console_of(ctx),
        host=host,
        port=port,
        token=cluster_token(token_file),
        api_key_files=tuple(api_key_file or ()),
        controllers=() if no_register else tuple(controllers),
        worker_address=None if no_register else worker_address,
        drain_s=drain,
    ).run(loads)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loads:
    """What is to be loaded, once the address is known to be free."""

    wanted: Sequence[Wanted]
    source: ModelSource
    options: dict[str, Any]
    """Of `EngineOptions`, whose module imports torch."""

    def __call__(self, progress: "Progress") -> "list[Hosted]":
        progress.stage("start torch")
        from llmctl.engine.opening import EngineOptions

        return wanted.load(self.wanted, self.source, EngineOptions(**self.options), progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Serving:
    """Where to listen, whom to let in, whom to report to."""

    console: Console
    host: str
    port: int
    token: str | None
    api_key_files: tuple[str, ...]
    controllers: tuple[str, ...]
    worker_address: str | None
    drain_s: float

    def run(self, load: Callable[["Progress"], "list[Hosted]"]) -> None:
        """Serve until the process is told to end; raises what loading raised."""
        fleet, keys = self._fleet(), self._keys()
        from llmctl.services.http.serving import serve
        from llmctl.services.worker.app import build
        from llmctl.services.worker.worker import Fleet, Worker

        with ExitStack() as stack:
            progress = stack.enter_context(self.console.progress())
            worker = Worker(
                Fleet(**fleet),
                lambda: load(progress),
                # The server ends as if it were told to.
                on_failure=lambda: signal.raise_signal(signal.SIGTERM),
            )
            app = build(worker, keys=keys)
            worker.when_ready(lambda _: stack.close())
            worker.when_ready(lambda models: self._tell(worker.url, models))
            serve(
                app,
                host=self.host,
                port=self.port,
                name="worker",
                on_bound=worker.bound,
                drain_s=self.drain_s,
            )
        if worker.failure is not None:
            raise worker.failure

    def _keys(self) -> "Keys":
        """Raises `UsageError` where others could come in, or a gateway could not."""
        from llmctl.services.http.guard import Keys, check_bind
        from llmctl.services.http.key_files import digest, read_digests

        keys = read_digests(self.api_key_files)
        if keys and self.controllers and self.token is None:
            raise UsageError(
                "--api-key-file keeps gateways out as well, which show no key of a client",
                hint="give the fleet a token, to all its parts: --token-file FILE",
            )
        is_part = bool(self.controllers)
        is_guarded = self.token is not None or (bool(keys) and not is_part)
        check_bind(self.host, is_guarded=is_guarded, flag="--token-file" if is_part else "--api-key-file")
        return Keys([*keys, *([digest(self.token)] if self.token is not None else [])])

    def _fleet(self) -> dict[str, Any]:
        """What `worker.Fleet` takes. Raises `UsageError`."""
        address = self.worker_address
        if address is not None and not self.controllers:
            raise UsageError(
                "--worker-address is for controllers, and none is named", hint="give --controller URL"
            )
        return {
            "controllers": controller_urls(self.controllers, has_token=self.token is not None),
            "token": self.token,
            "address": None if address is None else part_url(address, what="--worker-address"),
        }

    def _tell(self, url: str, models: "Models") -> None:
        names = ", ".join(name for each in models.all for name in each.names)
        # Nobody else knows a port that the system chose.
        self.console.note(f"worker at {url}/v1 serves {names}, Ctrl-C ends it", is_vital=self.port == 0)
