"""`llmctl serve controller`: knows who serves what and how busy they are, and calls nobody."""

from typing import Annotated

import typer

from llmctl.cli.options import console_of, settings_of
from llmctl.cli.serve.listening import Host, Port, TokenFile, cluster_token
from llmctl.core.errors import UsageError
from llmctl.services.dispatch import METHODS, method_named
from llmctl.services.parts import CONTROLLER_PORT

MIN_INTERVAL_S, MAX_INTERVAL_S = 0.1, 600.0
_DRAIN_S = 3.0


def controller(
    ctx: typer.Context,
    host: Host = "127.0.0.1",
    port: Port = CONTROLLER_PORT,
    token_file: TokenFile = None,
    dispatch_method: Annotated[
        str,
        typer.Option(
            metavar="|".join(METHODS),
            help="Which worker takes a request: the least expected wait, a draw by free places, or the one "
            "that has the prompt's beginning cached.",
        ),
    ] = "least-wait",
    interval: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="Between two reports of a worker; three that are missed take it out."
        ),
    ] = 2.0,
    ssl: Annotated[bool, typer.Option("--ssl", hidden=True)] = False,
) -> None:
    """Keep the table of a fleet: who serves what, and how busy it is.

    Workers and gateways name it with --controller. Several may run side by side; one that was started again
    knows all workers after their next report. Without a token it answers its own machine only.
    """
    console = console_of(ctx)
    settings_of(ctx)
    _check(interval, has_ssl=ssl)
    method = method_named(dispatch_method)
    token = cluster_token(token_file)
    from llmctl.services.controller.app import Settings, build
    from llmctl.services.http.guard import Keys, check_bind
    from llmctl.services.http.serving import serve

    check_bind(host, is_guarded=token is not None, flag="--token-file")
    app = build(Settings(keys=Keys.of([] if token is None else [token]), method=method, interval_s=interval))

    def tell(url: str) -> None:
        # Nobody else knows a port that the system chose.
        console.note(f"controller at {url}, Ctrl-C ends it", is_vital=port == 0)

    serve(app, host=host, port=port, name="controller", on_bound=tell, drain_s=_DRAIN_S)


def _check(interval: float, *, has_ssl: bool) -> None:
    if not MIN_INTERVAL_S <= interval <= MAX_INTERVAL_S:
        raise UsageError(
            f"--interval must be from {MIN_INTERVAL_S:g} to {MAX_INTERVAL_S:g} s, not {interval:g}"
        )
    if has_ssl:
        raise UsageError("--ssl is FastChat's", hint="let a proxy in front of the controller speak TLS")
