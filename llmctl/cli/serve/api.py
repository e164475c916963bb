"""`llmctl serve api`: the gateway, one OpenAI server in front of all workers of a fleet."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.cli.console import Console
from llmctl.cli.options import console_of, settings_of
from llmctl.cli.serve.listening import Host, Port, TokenFile, cluster_token
from llmctl.core.errors import UsageError
from llmctl.services.dispatch import METHODS, method_named
from llmctl.services.parts import API_PORT, DEFAULT_CONTROLLER, controller_urls

if TYPE_CHECKING:
    from llmctl.services.http.guard import Keys

_PROXY = "let a proxy in front of the server speak TLS"
_ORIGIN = "name each origin: --allowed-origin https://app.example.org, or --allowed-origin '*'"
OF_FASTCHAT: Mapping[str, str] = {
    "--api-keys": "others on this machine could read them there: put them into a file, --api-key-file FILE",
    "--ssl": _PROXY,
    "--ssl-keyfile": _PROXY,
    "--ssl-certfile": _PROXY,
    "--allowed-origins": _ORIGIN,
    "--allowed-methods": "those that there are, GET and POST, are allowed to each --allowed-origin",
    "--allowed-headers": "all are allowed to each --allowed-origin",
    "--allow-credentials": "no cookie is looked at: clients send their key as Authorization: Bearer KEY",
}
"""Flags of FastChat's openai_api_server that have no place here, each with what to do instead."""


def api(
    ctx: typer.Context,
    controller: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help=f"Whom to ask for workers; repeatable. {DEFAULT_CONTROLLER} if none is named.",
            show_default=False,
        ),
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = API_PORT,
    api_key_file: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Keys of clients, one a line, plain or sha256:HEX; repeatable.",
            show_default=False,
        ),
    ] = None,
    token_file: TokenFile = None,
    is_open: Annotated[
        bool,
        typer.Option("--open", help="Ask clients on this machine for no key, though the fleet has a token."),
    ] = False,
    allowed_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Web pages from there may ask, '*' is all; repeatable.",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0.1, max=86_400.0, help="How long a worker may be silent in an answer."
        ),
    ] = 600.0,
    drain: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0.0, max=86_400.0, help="How long open requests may go on at the end."
        ),
    ] = 30.0,
    dispatch_method: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(METHODS),
            help="Which worker takes a request; left out, as the controller says.",
            show_default=False,
        ),
    ] = None,
    controller_address: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Serve OpenAI clients from the workers of a fleet.

    Clients talk to http://127.0.0.1:8000/v1. Each request goes to the worker that is expected to answer
    first; one that fails before its first token is asked of another. Without a controller the gateway goes
    on with the workers that it knows.
    """
    console = console_of(ctx)
    settings_of(ctx)
    method = None if dispatch_method is None else method_named(dispatch_method)
    token = cluster_token(token_file)
    named = [*(controller or []), *([controller_address] if controller_address is not None else [])]
    urls = controller_urls(named or [DEFAULT_CONTROLLER], has_token=token is not None)
    keys = _keys(host, api_key_file or (), token=token, is_open=is_open)
    from llmctl.services.api.app import Settings, build
    from llmctl.services.fleet import FleetView
    from llmctl.services.http.serving import serve

    settings = Settings(keys=keys, token=token, timeout_s=timeout, origins=tuple(allowed_origin or ()))
    app = build(FleetView(urls, token=token, method=method), settings)
    serve(
        app,
        host=host,
        port=port,
        name="gateway",
        on_bound=lambda url: _tell(console, url, is_vital=port == 0),
        drain_s=drain,
    )


def _keys(host: str, files: Sequence[str], *, token: str | None, is_open: bool) -> "Keys":
    """What clients have to show. Raises `UsageError` where others could come in without."""
    from llmctl.services.http.guard import Keys, check_bind
    from llmctl.services.http.key_files import digest, read_digests

    if is_open and files:
        raise UsageError("--open asks for no key, and --api-key-file for one", hint="leave one of them out")
    tokens = [digest(token)] if token is not None and not is_open else []
    keys = Keys([*read_digests(files), *tokens])
    check_bind(host, is_guarded=not keys.is_open, flag="--api-key-file")
    return keys


def _tell(console: Console, url: str, *, is_vital: bool) -> None:
    # Nobody else knows a port that the system chose.
    console.note(f"gateway at {url}/v1, Ctrl-C ends it", is_vital=is_vital)
