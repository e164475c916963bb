"""`llmctl bench serve`: what clients of an OpenAI-compatible server see when many come."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli.console import Console
from llmctl.cli.options import ApiKeyFile, Json, Timeout, console_of, settings_of
from llmctl.core.errors import LlmctlError, UsageError

if TYPE_CHECKING:
    from llmctl.bench.connection import Server
    from llmctl.bench.percentiles import Outcome
    from llmctl.bench.prompts import Endpoint, Prompts
    from llmctl.bench.serving import Load, Measured

ENDPOINTS = ("completions", "chat")
MAX_CLIENTS, MAX_REQUESTS, MAX_LENGTH = 10_000, 1_000_000, 1_000_000
MAX_RATE = 100_000.0
MAX_FILE_BYTES = 256 * 2**20
DEFAULT_CLIENTS, DEFAULT_MIX, DEFAULT_OUTPUT = 16, "115:48", 128
_REQUESTS_OF_A_CLIENT, _REQUESTS_OF_A_RATE = 4, 64
_STATUS_S = 0.1
_SERVER = "Server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What was asked for."""

    load: "Load"
    mix: tuple[int, int] | None
    """Tokens of prompt and answer; None where the prompts are of a file."""
    entries: list[str | list[Any]]
    """The prompts of the file."""
    endpoint: "Endpoint | None"

    def prompts(self) -> "Prompts":
        """The prompts for one server, from the first on."""
        from llmctl.bench.prompts import FilePrompts, RandomPrompts

        if self.mix is not None:
            return RandomPrompts(self.mix[0], endpoint=self.endpoint)
        return FilePrompts(self.entries, endpoint=self.endpoint)


def serve(
    ctx: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="The server: OpenAI-compatible.", rich_help_panel=_SERVER, show_default=False
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Its model; else its first.", rich_help_panel=_SERVER, show_default=False
        ),
    ] = None,
    api_key_file: ApiKeyFile = None,
    timeout: Timeout = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Then put the same load on this one, and tell the ratio.",
            rich_help_panel=_SERVER,
            show_default=False,
        ),
    ] = None,
    against_model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What the model is called there; else as --model says.",
            rich_help_panel=_SERVER,
            show_default=False,
        ),
    ] = None,
    against_api_key_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="File with the key of that one; else the variables.",
            rich_help_panel=_SERVER,
            show_default=False,
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            help=f"Clients that come back when they have their answer; {DEFAULT_CLIENTS} if not set.",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            metavar="NUMBER",
            help="Instead: so many requests a second, whether or not the server keeps up.",
            show_default=False,
        ),
    ] = None,
    requests: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            help=f"How many; if not set {_REQUESTS_OF_A_CLIENT} of a client, or {_REQUESTS_OF_A_RATE}.",
            show_default=False,
        ),
    ] = None,
    mix: Annotated[
        str | None,
        typer.Option(
            metavar="IN:OUT",
            help=f"Tokens of random prompts and of answers; {DEFAULT_MIX} if not set.",
            show_default=False,
        ),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help='Real prompts: one a line, or lines of JSON with "prompt" or "messages".',
            show_default=False,
        ),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            help=f"Tokens of an answer to --prompts; {DEFAULT_OUTPUT} if not set.",
            show_default=False,
        ),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(ENDPOINTS),
            help="Where to ask; else completions, and chat for --prompts.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="NUMBER", help="Of the moments of --rate.")] = 0,
    is_json: Json = False,
) -> None:
    """Time a server under load: first token, inter-token, throughput."""
    console, settings = console_of(ctx), settings_of(ctx)
    settings = settings.with_flags({"url": url, "timeout": timeout})
    if settings.url is None:
        raise UsageError("no server is named", hint="give its address: --url http://localhost:8000/v1")
    if against is None and (against_model or against_api_key_file):
        raise UsageError("--against-model and --against-api-key-file are for --against", hint="give it")
    load = _load(concurrency, rate, requests, seed)
    lengths, output = _lengths(mix, max_tokens, has_file=prompts is not None)
    flags = Flags(
        load=replace(load, num_output=output),
        mix=lengths,
        entries=[] if prompts is None else _entries(prompts),
        endpoint=_endpoint(endpoint),
    )
    _check_forms(flags)
    sides = [(_server(console, settings.url, api_key_file, settings.timeout), model)]
    if against is not None:
        server = _server(console, against, against_api_key_file, settings.timeout)
        sides.append((server, against_model or model))
    _measure_all(console, flags, sides, is_json=is_json)


def _measure_all(
    console: Console, flags: Flags, sides: "list[tuple[Server, str | None]]", *, is_json: bool
) -> None:
    """Each side in turn, and what was measured until Ctrl-C where that comes."""
    import asyncio

    from llmctl.cli import bench_serve_view as view

    measured: list[Measured] = []
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        for server, model in sides:
            try:
                measured.append(runner.run(_measured(console, flags, server, model)))
            except (KeyboardInterrupt, LlmctlError):
                # The first side's figures must not be lost with the second's.
                if measured:
                    view.tell(console, flags, measured, is_json=is_json)
                raise
            finally:
                console.status("")
            if not measured[-1].is_whole:
                break
    view.tell(console, flags, measured, is_json=is_json)
    if not measured[-1].is_whole:
        raise KeyboardInterrupt
    for each in measured:
        if not each.figures.completed:
            worst = each.figures.failures[0]
            raise LlmctlError(
                f"none of {each.figures.failed} requests to {each.server.base_url} succeeded: {worst.kind}",
                hint=worst.example or "its own log may say why",
            )


async def _measured(console: Console, flags: Flags, server: "Server", model: str | None) -> "Measured":
    from llmctl.bench.serving import measure, opened

    console.status(f"warming up {server.base_url}")
    async with opened(server, flags.prompts(), flags.load, model=model) as asker:
        console.note(f"{server.base_url}: {asker.model} ({asker.way.form})")
        return await measure(asker, flags.load, _teller(console, flags.load.num_requests))


def _teller(console: Console, num_requests: int) -> "Callable[[Outcome], None]":
    """Keeps a line on the terminal, without taking much of the time that is measured."""
    from llmctl.bench.connection import clock

    done = failed = 0
    told = clock()

    def tell(outcome: "Outcome") -> None:
        nonlocal done, failed, told
        done += 1
        failed += outcome.failure is not None
        if clock() - told >= _STATUS_S:
            told = clock()
            console.status(f"{done} of {num_requests} requests" + (f", {failed} failed" if failed else ""))

    return tell


def _loop_factory() -> "Callable[[], Any] | None":
    try:
        import uvloop
    except ImportError:  # Windows has none
        return None
    return uvloop.new_event_loop


# What was asked for


def _server(console: Console, url: str, key_file: str | None, timeout_s: float) -> "Server":
    from llmctl.bench.connection import Server
    from llmctl.services.keys import find_api_key
    from llmctl.services.upstream import address

    place, key = address.parse(url), find_api_key(os.environ, key_file)
    if key is not None and not place.is_secret:
        console.note(f"the API key goes to {place.host} unencrypted: use https")
    return Server(base_url=place.base_url, api_key=key, timeout_s=timeout_s)


def _load(concurrency: int | None, rate: float | None, requests: int | None, seed: int) -> "Load":
    from llmctl.bench.serving import Load

    if concurrency is not None and rate is not None:
        raise UsageError(
            "--concurrency and --rate do not go together: clients come back, or come by the clock",
            hint="give one",
        )
    _check_number(concurrency, "--concurrency", most=MAX_CLIENTS)
    _check_number(requests, "--requests", most=MAX_REQUESTS)
    if rate is None:
        num_clients = concurrency or DEFAULT_CLIENTS
        return Load(num_requests=requests or _REQUESTS_OF_A_CLIENT * num_clients, num_clients=num_clients)
    if not 0 < rate <= MAX_RATE:
        raise UsageError(f"--rate must be above 0 and at most {MAX_RATE:.0f}, not {rate:g}")
    return Load(num_requests=requests or _REQUESTS_OF_A_RATE, num_clients=None, rate=rate, seed=seed)


def _check_number(number: int | None, flag: str, *, most: int) -> None:
    if number is not None and not 1 <= number <= most:
        raise UsageError(f"{flag} must be from 1 to {most}, not {number}")


def _lengths(
    mix: str | None, max_tokens: int | None, *, has_file: bool
) -> tuple[tuple[int, int] | None, int]:
    """Tokens of prompt and answer, None for the prompts of a file, and those of an answer."""
    _check_number(max_tokens, "--max-tokens", most=MAX_LENGTH)
    if has_file:
        if mix is not None:
            raise UsageError(
                "--mix is for random prompts, and --prompts names real ones", hint="give --max-tokens instead"
            )
        return None, max_tokens or DEFAULT_OUTPUT
    if max_tokens is not None:
        raise UsageError("--max-tokens is for --prompts", hint="give --mix IN:OUT")
    found = re.fullmatch(r"([0-9]{1,7}):([0-9]{1,7})", mix or DEFAULT_MIX)
    lengths = (int(found[1]), int(found[2])) if found else (0, 0)
    if not all(1 <= length <= MAX_LENGTH for length in lengths):
        raise UsageError(
            f"--mix must be IN:OUT such as {DEFAULT_MIX}, each from 1 to {MAX_LENGTH}, not {mix!r}"
        )
    return lengths, lengths[1]


def _entries(path: str) -> list[str | list[Any]]:
    from llmctl.bench.prompts import read_prompts
    from llmctl.core.files import read_text
    from llmctl.core.places import expanded

    text = read_text(expanded(path), called=path, max_bytes=MAX_FILE_BYTES, may_wait=True)
    return read_prompts(text, called=path)


def _endpoint(word: str | None) -> "Endpoint | None":
    match word:
        case None | "completions" | "chat":
            return word
        case _:
            raise UsageError(f"--endpoint must be one of {', '.join(ENDPOINTS)}, not {word!r}")


def _check_forms(flags: Flags) -> None:
    if not flags.prompts().forms:
        raise UsageError(
            "the file of --prompts holds messages, which are for chat", hint="leave out --endpoint"
        )
