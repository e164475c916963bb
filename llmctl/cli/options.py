"""The options that every command has, and each flag that several commands share, written once."""

from typing import Annotated, Any

import typer
from typer.core import TyperOption
from typer.main import get_command

from llmctl.cli.console import Console
from llmctl.core import log, settings
from llmctl.core.settings import Settings

COMMON_PANEL = "Common options"


def console_of(ctx: typer.Context) -> Console:
    """The console that `run` made for this invocation."""
    console = ctx.find_object(Console)
    assert console is not None
    return console


def settings_of(ctx: typer.Context) -> Settings:
    """The settings in force before the command's own flags; the console learns their colour."""
    console, found = console_of(ctx), settings.load()
    if console.color is None:
        console.color = found.color
    return found


def _verbose(ctx: typer.Context, value: int) -> int:
    if value:
        _set_verbosity(ctx, value)
    return value


def _quiet(ctx: typer.Context, value: bool) -> bool:
    if value:
        _set_verbosity(ctx, -1)
    return value


def _set_verbosity(ctx: typer.Context, verbosity: int) -> None:
    console_of(ctx).verbosity = verbosity
    log.setup(verbosity)


def _debug(ctx: typer.Context, value: bool) -> bool:
    if value:
        console_of(ctx).is_debug = True
    return value


def _color(ctx: typer.Context, value: str | None) -> str | None:
    if value is not None:
        if value not in ("auto", "always", "never"):
            raise typer.BadParameter(f"{value!r} is not one of auto, always, never.")
        console_of(ctx).color = value
    return value


def _common(
    verbose: Annotated[
        int,
        typer.Option(
            "-v",
            "--verbose",
            count=True,
            callback=_verbose,
            show_default=False,
            rich_help_panel=COMMON_PANEL,
            help="Say what is chosen and why; twice for everything.",
        ),
    ] = 0,
    quiet: Annotated[
        bool,
        typer.Option(
            "-q", "--quiet", callback=_quiet, rich_help_panel=COMMON_PANEL, help="Errors only on stderr."
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug", callback=_debug, rich_help_panel=COMMON_PANEL, help="Show a traceback with an error."
        ),
    ] = False,
    color: Annotated[
        str | None,
        typer.Option(
            "--color",
            metavar="auto|always|never",
            callback=_color,
            rich_help_panel=COMMON_PANEL,
            help="Colour; auto looks at the terminal and NO_COLOR.",
        ),
    ] = None,
) -> None:
    """Carrier of the common options; never run."""


def common_options() -> list[TyperOption]:
    """`-v -q --debug --color`: they act on the console and are not handed to the command."""
    carrier = typer.Typer(add_completion=False)
    carrier.command(add_help_option=False)(_common)
    options = [param for param in get_command(carrier).params if isinstance(param, TyperOption)]
    for option in options:
        option.expose_value = False
    return options


Json = Annotated[bool, typer.Option("--json", help="Print JSON; errors too, as one object on stderr.")]

_SAMPLING, _LOADING = "Sampling", "Loading"


def _sampling(help_text: str, *names: str, metavar: str = "NUMBER") -> Any:
    return typer.Option(
        *names, help=help_text, metavar=metavar, rich_help_panel=_SAMPLING, show_default=False
    )


def _loading(help_text: str, *names: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help_text, metavar=metavar, rich_help_panel=_LOADING, show_default=False)


# Parameters of these types must carry the setting's name (`core.settings.KEYS`): `flags_of` reads them by it.
Temperature = Annotated[float | None, _sampling("0 is greedy; left out, the model's own.")]
TopP = Annotated[float | None, _sampling("Only the likeliest tokens that together reach this probability.")]
TopK = Annotated[int | None, _sampling("Only the k likeliest tokens; 0 is all.")]
MinP = Annotated[float | None, _sampling("Only tokens of at least this share of the likeliest.")]
RepetitionPenalty = Annotated[float | None, _sampling("Above 1 discourages what prompt and answer hold.")]
PresencePenalty = Annotated[float | None, _sampling("Lowers tokens that the answer already holds.")]
FrequencyPenalty = Annotated[float | None, _sampling("The same, for each time that they occur.")]
Seed = Annotated[int | None, _sampling("The same seed gives the same answer.")]
MaxNewTokens = Annotated[int | None, _sampling("Longest answer in tokens; left out, what the context holds.")]
Stop = Annotated[list[str] | None, _sampling("End before this text; repeatable.", "--stop", metavar="TEXT")]
StopTokenIds = Annotated[
    list[int] | None, _sampling("End at this token; repeatable.", "--stop-token-id", metavar="ID")
]
Logprobs = Annotated[int | None, _sampling("Log-probabilities, of so many likeliest too (--json).")]

DeviceFlag = Annotated[
    str | None,
    _loading("Where the model runs; auto is the best there is.", metavar="auto|cuda|xpu|npu|mps|cpu"),
]
DtypeFlag = Annotated[
    str | None,
    _loading("Numbers that it computes in.", "--dtype", metavar="auto|float32|bfloat16|float16"),
]
Revision = Annotated[str | None, _loading("Branch, tag or commit on the hub.", metavar="REVISION")]
TrustRemoteCode = Annotated[
    bool, _loading("Run Python code of the model's repository. Read it first.", "--trust-remote-code")
]
Delta = Annotated[
    str | None,
    _loading(
        "Apply this delta to MODEL while it loads, llmctl's or FastChat's: a folder, or a hub id.",
        "--delta",
        metavar="DELTA",
    ),
]

Load8bit = Annotated[bool, _loading("Pack the weights into 8 bits while they load.", "--load-8bit")]
Load4bit = Annotated[bool, _loading("Pack them into 4 bits, the way that is fastest here.", "--load-4bit")]
Quantization = Annotated[
    str | None,
    _loading(
        "Pack them so, or the format that the checkpoint must have (gptq, awq, ...); none: as it is stored.",
        "--quantization",
        metavar="int8|int4|nf4|fp4|none|FORMAT",
    ),
]
NumGpus = Annotated[
    int | None, _loading("Spread the model over so many GPUs; 1 if not set.", "--num-gpus", metavar="NUMBER")
]
Gpus = Annotated[str | None, _loading("Use these GPUs: 0,2.", "--gpus", metavar="NUMBERS")]
MaxGpuMemory = Annotated[
    str | None, _loading("Most weights on each GPU: 20GiB.", "--max-gpu-memory", metavar="SIZE")
]
CpuOffloading = Annotated[
    bool, _loading("Keep packed weights that no GPU has room for on the CPU.", "--cpu-offloading")
]
QuantConfig = Annotated[
    list[str] | None,
    _loading(
        "What a quantised checkpoint should have said of itself, such as bits=4; repeatable.",
        "--quant-config",
        metavar="KEY=VALUE",
    ),
]

Context = Annotated[
    int | None, _loading("Limit on prompt and answer together; left out, the model's.", metavar="TOKENS")
]

_SERVER = "Server"
Url = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Talk to this OpenAI-compatible server instead of loading a model.",
        rich_help_panel=_SERVER,
        show_default=False,
    ),
]
ApiKeyFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="File with its key; else LLMCTL_API_KEY or OPENAI_API_KEY.",
        rich_help_panel=_SERVER,
        show_default=False,
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Silence after which it is given up; 60 if not set.",
        rich_help_panel=_SERVER,
        show_default=False,
    ),
]

FLAG_NAMES = {
    "model": "MODEL",
    "stop_token_ids": "--stop-token-id",
    "log": "--no-log",
    "history": "--no-history",
    "reasoning": "--hide-reasoning",
    "thinking": "--thinking",
}
"""What a setting is called on the command line, where that is not `--` and its name."""


def flags_of(ctx: typer.Context) -> dict[str, Any]:
    """The flags of a command that are settings, by the setting's name; None where not given."""
    given = {key: ctx.params[key] for key in settings.KEYS if key in ctx.params}
    # A repeatable flag that is not given is an empty list.
    return {key: value for key, value in given.items() if value not in (None, [], ())}
