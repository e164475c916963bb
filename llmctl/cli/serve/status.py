"""`llmctl serve status`: the workers of a fleet and what they do, once or again and again."""

import asyncio
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli.console import Console
from llmctl.cli.logs.display import write_table
from llmctl.cli.options import Json, console_of, settings_of
from llmctl.cli.serve.listening import TokenFile, cluster_token
from llmctl.core.places import Places
from llmctl.services import wire
from llmctl.services.parts import DEFAULT_CONTROLLER, controller_urls
from llmctl.services.wire import Heard, ModelState

if TYPE_CHECKING:
    from llmctl.services.controller.client import ControllerClient
    from llmctl.services.fleet import FleetView

_WATCH_S = 1.0
_TOP_OF_SCREEN, _ERASE_BELOW = "\033[H", "\033[J"
_WORKERS = ("WORKER", "STATE", "RUNNING", "WAITING", "KV", "TOKENS/S", "HEARD", "MODELS")
_MODELS = ("MODEL", "CONTEXT", "WORKERS", "RUNNING", "WAITING", "CAN")


def status(
    ctx: typer.Context,
    controller: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Ask this one; repeatable. If none is named: that of the fleet of `serve up`, "
            f"else {DEFAULT_CONTROLLER}.",
            show_default=False,
        ),
    ] = None,
    token_file: TokenFile = None,
    is_watching: Annotated[
        bool, typer.Option("--watch", help="Tell again every second, until Ctrl-C.", show_default=False)
    ] = False,
    is_json: Json = False,
) -> None:
    """Show the workers of a fleet, their models and their load."""
    console = console_of(ctx)
    settings_of(ctx)
    urls, token = _whom(controller, token_file)
    asyncio.run(_tell(console, urls, token, is_json=is_json, is_watching=is_watching))


def _whom(controllers: list[str] | None, token_file: str | None) -> tuple[tuple[str, ...], str | None]:
    """Which controllers are asked, and with which token.

    Raises `AmbiguousError` where several fleets run on this machine and none is named.
    """
    from llmctl.services.up import state

    if not controllers and token_file is None:
        running = state.Fleets(Places.from_environ(os.environ)).running()
        fleet = state.chosen(running, None) if running else None
        if fleet is not None and fleet.controller is not None:
            controllers, token_file = [fleet.controller], str(fleet.token_file)
    token = cluster_token(token_file)
    return controller_urls(controllers or [DEFAULT_CONTROLLER], has_token=token is not None), token


async def _tell(
    console: Console, urls: tuple[str, ...], token: str | None, *, is_json: bool, is_watching: bool
) -> None:
    from llmctl.services.controller.client import ControllerClient
    from llmctl.services.fleet import FleetView

    view = FleetView(urls, token=token)
    clients = [ControllerClient(url, token=token) for url in urls]
    try:
        await _ask(view, clients)
        _raise_if_all_are_gone(view)
        _show(console, view, is_json=is_json, is_watching=is_watching)
        while is_watching:
            await asyncio.sleep(_WATCH_S)
            await _ask(view, clients)
            _show(console, view, is_json=is_json, is_watching=is_watching)
    finally:
        await asyncio.gather(*(client.close() for client in clients))


async def _ask(view: "FleetView", clients: "list[ControllerClient]") -> None:
    from llmctl.core.errors import LlmctlError

    async def ask(client: "ControllerClient") -> None:
        try:
            view.take(client.url, await client.listing())
        except LlmctlError as error:
            view.lose(client.url, error)

    await asyncio.gather(*map(ask, clients))


def _raise_if_all_are_gone(view: "FleetView") -> None:
    faults = list(view.faults.values())
    if faults[0] is not None and None not in faults:
        raise faults[0]


def _show(console: Console, view: "FleetView", *, is_json: bool, is_watching: bool) -> None:
    if is_json:
        console.json(_as_dict(view), indent=None if is_watching else 2)
        return
    is_redrawn = is_watching and console.is_editable
    if is_redrawn:
        console.write(_TOP_OF_SCREEN + _ERASE_BELOW)
    _write(console, view)
    if is_watching and not is_redrawn:
        console.line()


def _as_dict(view: "FleetView") -> dict[str, Any]:
    return {
        "controllers": [
            {"url": url, "error": None if fault is None else fault.message}
            for url, fault in view.faults.items()
        ],
        "workers": [{**wire.to_json(heard.state), "age_s": heard.age_s} for heard in _sorted(view)],
        "models": [wire.model_to_json(model) for model in view.models()],
    }


def _write(console: Console, view: "FleetView") -> None:
    for url, fault in view.faults.items():
        console.line(f"controller {url}" if fault is None else f"controller {url}: {fault.message}")
    workers = _sorted(view)
    if not workers:
        console.line("no worker has registered")
        return
    console.line()
    write_table(console, _WORKERS, [_worker_cells(heard) for heard in workers])
    console.line()
    write_table(console, _MODELS, [_model_cells(model, workers) for model in view.models()])


def _sorted(view: "FleetView") -> list[Heard]:
    return sorted(view.workers, key=lambda heard: heard.state.url)


def _worker_cells(heard: Heard) -> list[str]:
    state = heard.state
    return [
        state.url,
        "draining" if state.is_draining else "serving",
        f"{state.num_running}/{state.max_running}",
        str(state.num_waiting),
        f"{state.kv_used:.0%}",
        f"{state.tokens_per_s:.1f}",
        f"{heard.age_s:.1f} s ago",
        ", ".join(model.name for model in state.models),
    ]


def _model_cells(model: ModelState, workers: list[Heard]) -> list[str]:
    names = f"{model.name} ({', '.join(model.aliases)})" if model.aliases else model.name
    num_workers = sum(
        not heard.state.is_draining and heard.state.model(model.name) is not None for heard in workers
    )
    return [
        names,
        "-" if model.context_length is None else f"{model.context_length}",
        str(num_workers),
        f"{model.num_running}/{model.max_running}",
        str(model.num_waiting),
        ", ".join(model.capabilities),
    ]
