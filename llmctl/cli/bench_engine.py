"""`llmctl bench engine`: tokens a second of the engine, beside transformers, for people and for programs."""

import importlib.metadata
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl import __version__
from llmctl.bench.shapes import DEFAULT_SHAPE, SHAPES, STACKS
from llmctl.cli.console import Console
from llmctl.cli.options import DeviceFlag, Json, TrustRemoteCode, console_of, settings_of
from llmctl.core.errors import UsageError
from llmctl.core.sizes import shown

if TYPE_CHECKING:
    from llmctl.bench.engine import Request
    from llmctl.bench.rows import Row
    from llmctl.bench.sources import Source
    from llmctl.loading.planning.hardware import Device

NONE = "none"
DTYPES = ("bf16", "int8", "int4", "nf4", "fp4")
RIVALS = ("transformers",)
LONG = ("waiting", "context", "generation")
MAX_BATCH, MAX_LENGTH = 4096, 1_000_000
MAX_SECONDS = 600.0
_USUAL_CLIENTS = 16
BATCHES = "1,4,16,32"
_ROW_SECONDS, _MODEL_SECONDS = 5, 25
"""What a row takes beside its `--seconds`, and a model until it runs; rough, and more for larger ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What was asked for, checked without torch."""

    dtypes: tuple[str, ...]
    batches: tuple[int, ...]
    insists: bool = True
    """Whether the user has named the batches."""
    prefills: tuple[int, ...]
    mix: tuple[int, int] | None
    """Tokens of prompt and answer."""
    long: tuple[str, ...]
    has_rival: bool
    seconds: float

    @property
    def num_clients(self) -> int:
        """Of the mix: 16, or as many as decode together where those are other numbers."""
        is_usual = not self.batches or _USUAL_CLIENTS in self.batches
        return _USUAL_CLIENTS if is_usual else max(self.batches)


def engine(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="A folder, `demo`, or a hub id; or take --shape."),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(STACKS),
            help=f"A random model of this shape, made in memory; {DEFAULT_SHAPE} if nothing is named.",
            show_default=False,
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="A real tokenizer for --shape, so that text is made too.",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        str, typer.Option(metavar="NAME,NAME", help=f"What the weights are kept in: {', '.join(DTYPES)}.")
    ] = "bf16,int8,int4",
    batch: Annotated[
        str | None,
        typer.Option(
            show_default=BATCHES,
            metavar="N,N|none",
            help="Sequences that decode together; clients of --mix are 16 if named here, else the most.",
        ),
    ] = None,
    prefill: Annotated[
        str, typer.Option(metavar="N,N|none", help="Lengths of single prompts; 16 of 115 come with them.")
    ] = "128,512",
    mix: Annotated[
        str,
        typer.Option(metavar="IN:OUT|none", help="Tokens of prompt and answer of clients that come back."),
    ] = "115:48",
    long: Annotated[
        str,
        typer.Option(
            metavar=f"{'|'.join(LONG)}|all|none",
            help="2,000 that wait, a context of 32,000 tokens, an answer of 10,000: minutes each.",
        ),
    ] = NONE,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(RIVALS),
            help="Measure in turn with its `generate`: bfloat16, greedy, one sequence.",
            show_default=False,
        ),
    ] = None,
    device: DeviceFlag = None,
    trust_remote_code: TrustRemoteCode = False,
    seconds: Annotated[
        float, typer.Option(metavar="SECONDS", help="Time for the turns of one row; more is steadier.")
    ] = 5.0,
    is_json: Json = False,
) -> None:
    """Time the engine: decode, prefill, many clients, memory.

    Decode and clients are compared with one sequence of the other side, prompts with one prompt.
    """
    console = console_of(ctx)
    _check_model(model, shape, tokenizer)
    _check_word(against, RIVALS, "--against")
    flags = Flags(
        dtypes=_words(dtype, DTYPES, "--dtype"),
        batches=_numbers(batch or BATCHES, "--batch", most=MAX_BATCH),
        insists=batch is not None,
        prefills=_numbers(prefill, "--prefill", most=MAX_LENGTH),
        mix=_mix(mix),
        long=() if long == NONE else LONG if long == "all" else _words(long, LONG, "--long"),
        has_rival=against is not None,
        seconds=_seconds(seconds),
    )
    if not (flags.batches or flags.prefills or flags.mix or flags.long):
        raise UsageError("nothing is left to measure", hint="leave one of --batch, --prefill, --mix, --long")
    asked = device or settings_of(ctx).device
    with console.progress() as live:
        progress = live if console.is_live else Noted(console)
        progress.stage("import torch")
        from llmctl.bench.engine import measure
        from llmctl.core import log
        from llmctl.loading import devices
        from llmctl.loading.planning.plan import choose_device

        log.tame_libraries()
        place = choose_device(asked, devices.available())[0]
        request = _request(flags)
        source = _source(model, shape, tokenizer, place, trust_remote_code=trust_remote_code)
        _tell_time(console, request)
        rows = list(measure(request, source, progress))
    setup = _setup(source, place)
    if is_json:
        console.json({"rows": [row.as_dict() for row in rows], "setup": setup})
    else:
        _tell(console, setup, rows, request)


class Noted:
    """Progress where no line can be redrawn: one a stage."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def stage(self, name: str, *, total_bytes: int | None = None) -> None:
        """See `Progress`."""
        del total_bytes
        self._console.note(name)

    def advance(self, num_bytes: int) -> None:
        """See `Progress`."""


# What was asked for


def _check_model(model: str | None, shape: str | None, tokenizer: str | None) -> None:
    if model is not None and shape is not None:
        raise UsageError("MODEL and --shape do not go together", hint="give one")
    if model is not None and tokenizer is not None:
        raise UsageError("--tokenizer is for --shape: a model has its own", hint="leave it out")
    _check_word(shape, tuple(STACKS), "--shape")


def _check_word(word: str | None, known: tuple[str, ...], flag: str) -> None:
    if word is not None and word not in known:
        raise UsageError(
            f"{flag} must be {'one of ' if len(known) > 1 else ''}{', '.join(known)}, not {word!r}"
        )


def _words(text: str, known: tuple[str, ...], flag: str) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    if unknown := [word for word in words if word not in known]:
        raise UsageError(f"{flag} must be of {', '.join(known)} with commas between, not {unknown[0]!r}")
    return words


def _numbers(text: str, flag: str, *, most: int) -> tuple[int, ...]:
    """The numbers of "1,4,16" without repetitions; none of "none"."""
    if text == NONE:
        return ()
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,9}", word) and 1 <= int(word) <= most for word in words):
        raise UsageError(
            f"{flag} must be numbers from 1 to {most} with commas between, or none, not {text!r}"
        )
    return tuple(dict.fromkeys(map(int, words)))


def _mix(text: str) -> tuple[int, int] | None:
    if text == NONE:
        return None
    found = re.fullmatch(r"([0-9]{1,7}):([0-9]{1,7})", text)
    prompt, output = (int(number) for number in found.groups()) if found else (0, 0)
    # An answer of one token would have no time between tokens to compare.
    if not 1 <= prompt <= MAX_LENGTH or not 2 <= output <= MAX_LENGTH:
        raise UsageError(
            f"--mix must be IN:OUT such as 115:48, prompts from 1 and answers from 2 tokens, not {text!r}"
        )
    return prompt, output


def _seconds(seconds: float) -> float:
    if not 0 <= seconds <= MAX_SECONDS:
        raise UsageError(f"--seconds must be between 0 and {MAX_SECONDS:.0f}, not {seconds}")
    return seconds


def _request(flags: Flags) -> "Request":
    from llmctl.bench.driving import Mix
    from llmctl.bench.engine import Request

    mix = flags.mix
    return Request(
        dtypes=flags.dtypes,
        batches=flags.batches,
        insists=flags.insists,
        prefills=flags.prefills,
        mix=None if mix is None else Mix(num_clients=flags.num_clients, prompt=mix[0], output=mix[1]),
        long=flags.long,
        has_rival=flags.has_rival,
        seconds=flags.seconds,
    )


def _source(
    model: str | None, shape: str | None, tokenizer: str | None, device: "Device", *, trust_remote_code: bool
) -> "Source":
    from llmctl.bench.sources import CheckpointSource, NoText, RandomSource, read_tokenizer

    if model is not None:
        return CheckpointSource(model=model, kind=device.kind, trust_remote_code=trust_remote_code)
    name = shape or DEFAULT_SHAPE
    found = NoText() if tokenizer is None else read_tokenizer(tokenizer)
    return RandomSource(shape=SHAPES[name], stack=STACKS[name], device=device, tokenizer=found)


# What is told


def _tell_time(console: Console, request: "Request") -> None:
    a_row = max(request.seconds, 2.0) + _ROW_SECONDS
    seconds = request.num_rows * a_row + len(request.dtypes) * _MODEL_SECONDS
    extra = ", and more for --long" if request.long else ""
    about = f"about {max(1, round(seconds / 60))} min for half a billion weights{extra}"
    console.note(f"to measure: {request.num_rows}; {about}")


def _setup(source: "Source", device: "Device") -> dict[str, Any]:
    import torch

    return {
        "model": source.name,
        "device": device.place,
        "device_name": device.name,
        "threads": torch.get_num_threads(),
        "llmctl": __version__,
        "torch": torch.__version__,
        "transformers": importlib.metadata.version("transformers"),
    }


def _tell(console: Console, setup: dict[str, Any], rows: "list[Row]", request: "Request") -> None:
    console.line(setup["model"])
    console.line(f"{setup['device']}: {setup['device_name']}, {setup['threads']} threads")
    console.line(", ".join(f"{name} {setup[name]}" for name in ("llmctl", "torch", "transformers")))
    console.line()
    heading = ["what", "dtype", "batch", "tokens", "llmctl", "unit"]
    if request.has_rival:
        heading[5:] = ["transformers", "times", "unit"]
    console.table(heading, [_cells(row, has_rival=request.has_rival) for row in rows])
    for line in _remarks(rows):
        console.line(line)
    console.note(
        "the best of several turns; times is how many times as good as one sequence of transformers in "
        "bfloat16; other work on this machine shifts all of it"
        if request.has_rival
        else "the best of several turns; other work on this machine shifts them"
    )


def _cells(row: "Row", *, has_rival: bool) -> list[str]:
    details = row.details
    about = str(details.get("prompt") or "")
    if "context_end" in details:
        about = f"{details['prompt']}-{details['context_end']}"
    if "output" in details:
        about = f"{details['prompt']}:{details['output']}" if "prompt" in details else f"{details['output']}"
    unit = "" if row.unit == "bytes" else row.unit
    theirs = [_figure(row.theirs, row.unit), "" if row.ratio is None else f"{row.ratio:.2f}"]
    return [
        row.what,
        row.dtype,
        str(row.batch),
        about,
        _figure(row.ours, row.unit),
        *(theirs if has_rival else []),
        unit,
    ]


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    match unit:
        case "bytes":
            return shown(int(value))
        case "s":
            return f"{value:.3f}"
        case _:
            return f"{value:.1f}"


_REMARKS = {
    "theirs_together": "transformers with the whole batch, padded: {} tokens/s",
    "first_token_s": "median time to the first token: {} s",
    "alone": "with nobody waiting: {} tokens/s",
    "scheduler_us": "scheduler, a step: {} us",
    "scheduler_us_alone": "scheduler with nobody waiting: {} us",
    "decode": "decoding behind it: {} tokens/s",
    "seconds_by_arithmetic": "seconds if it grew as a n + b n²: {}",
    "first_tenth": "first tenth: {} tokens/s",
    "last_tenth": "last tenth: {} tokens/s",
    "last_by_arithmetic": "last tenth if a token cost a + b n: {} tokens/s",
    "seconds": "seconds: {}",
}
"""What a row knows beside its columns."""


def _remarks(rows: "list[Row]") -> list[str]:
    found = []
    for row in rows:
        told = [form.format(row.details[key]) for key, form in _REMARKS.items() if key in row.details]
        found += [f"{row.what}, {row.dtype}, {row.batch}: {text}" for text in told]
    return ["", *found] if found else []
