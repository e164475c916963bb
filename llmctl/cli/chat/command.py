"""`llmctl chat`: reads the flags, gathers the input, opens the backend and picks who talks to it."""

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from llmctl.cli import options
from llmctl.cli.chat.input import Sources, conversation, gather_text, stdin_bytes
from llmctl.cli.console import Console
from llmctl.cli.options import FLAG_NAMES, console_of, flags_of, settings_of
from llmctl.core import log, sampling
from llmctl.core.errors import LlmctlError, UsageError
from llmctl.core.settings import Settings
from llmctl.core.types import ChatRequest, CompletionRequest, GenerationRequest, SamplingParams
from llmctl.prompts.template import ChatTemplate, read

if TYPE_CHECKING:
    from llmctl.core.backend import Backend

logger = logging.getLogger(__name__)

STYLES = ("simple", "programmatic")
DRAWING = ("top_p", "top_k", "min_p", "seed")
_PROMPT, _OUTPUT = "Prompt", "Output"


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How answers are shown."""

    style: str
    is_json: bool
    extracts_code: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What opens the backend; kept until the input is known to be good, because loading takes long."""

    settings: Settings
    revision: str | None
    trust_remote_code: bool
    template: ChatTemplate | None


def chat(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A hub id, a folder, or 'demo', which is inside llmctl and the default.",
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            "-p", "--prompt", metavar="TEXT", help="Answer this and leave.", rich_help_panel=_PROMPT
        ),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option(
            "-f",
            "--file",
            metavar="FILE",
            help="Text before the prompt; - is stdin.",
            rich_help_panel=_PROMPT,
        ),
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(
            "-s",
            "--system",
            metavar="TEXT",
            help="System message.",
            rich_help_panel=_PROMPT,
            show_default=False,
        ),
    ] = None,
    messages: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="JSON list of messages to answer; - is stdin.", rich_help_panel=_PROMPT
        ),
    ] = None,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Go on with the text as it is, no template.", rich_help_panel=_PROMPT),
    ] = False,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Jinja chat template instead of the model's.", rich_help_panel=_PROMPT
        ),
    ] = None,
    extract: Annotated[
        bool,
        typer.Option("-x", "--extract", help="Only the answer's last code block.", rich_help_panel=_OUTPUT),
    ] = False,
    is_json: Annotated[
        bool,
        typer.Option("--json", help="Answer, counts and times as JSON; errors too.", rich_help_panel=_OUTPUT),
    ] = False,
    style: Annotated[
        str,
        typer.Option(
            metavar="|".join(STYLES), help="programmatic: JSON lines in and out.", rich_help_panel=_OUTPUT
        ),
    ] = "simple",
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    min_p: options.MinP = None,
    repetition_penalty: options.RepetitionPenalty = None,
    presence_penalty: options.PresencePenalty = None,
    frequency_penalty: options.FrequencyPenalty = None,
    seed: options.Seed = None,
    max_new_tokens: options.MaxNewTokens = None,
    stop: options.Stop = None,
    stop_token_ids: options.StopTokenIds = None,
    logprobs: options.Logprobs = None,
    device: options.DeviceFlag = None,
    dtype: options.DtypeFlag = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
    model_path: Annotated[str | None, typer.Option(hidden=True)] = None,
    conv_template: Annotated[str | None, typer.Option(hidden=True)] = None,
    conv_system_msg: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> int:
    """Chat with a model, or answer one prompt.

    At a terminal and without a prompt it is a conversation; with -p, -f or a pipe it answers once and leaves.
    stdout holds the answer and nothing else.
    """
    flags = flags_of(ctx)
    flags["model"] = _either(model, "MODEL", model_path, "--model-path")
    flags["system"] = _either(system, "--system", conv_system_msg, "--conv-system-msg")
    settings = settings_of(ctx).with_flags(flags, names=FLAG_NAMES)
    opening = Opening(
        settings=settings,
        revision=revision,
        trust_remote_code=trust_remote_code,
        # Read now: loading takes long, and a wrong path should not wait for it.
        template=read(path)
        if (path := _either(template, "--template", conv_template, "--conv-template"))
        else None,
    )
    sources = Sources(
        prompt=prompt,
        files=tuple(file or ()),
        messages=messages,
        system=settings.system,
        insists_on_system=settings.origins.get("system") == "--system",
        is_raw=raw,
    )
    output = Output(style=style, is_json=is_json, extracts_code=extract)
    _check(sources, output, opening)
    return _talk(console_of(ctx), opening, sources, output)


def _either(value: str | None, name: str, other: str | None, other_name: str) -> str | None:
    """The value of a flag and its alias of which one may be given."""
    if value is not None and other is not None and value != other:
        raise UsageError(
            f"{name} {value!r} and {other_name} {other!r} contradict each other", hint="give one"
        )
    return other if value is None else value


def _check(sources: Sources, output: Output, opening: Opening) -> None:
    """Refuse flags that do not go together; none is ever ignored."""
    if output.style not in STYLES:
        raise UsageError(f"--style must be one of {', '.join(STYLES)}, not {output.style!r}")
    is_programmatic = output.style == "programmatic"
    gives_text = sources.prompt is not None or bool(sources.files) or sources.messages is not None
    wants_logprobs = opening.settings.origins.get("logprobs") == "--logprobs"
    reads_twice = [*sources.files, sources.messages].count("-") > 1
    for is_wrong, message, hint in (
        (
            is_programmatic and gives_text,
            "--style programmatic reads its prompts from stdin",
            "drop -p, -f, --messages",
        ),
        (is_programmatic and output.extracts_code, "-x does not go with --style programmatic", None),
        (output.extracts_code and output.is_json, "-x does not go with --json", None),
        (sources.is_raw and sources.messages is not None, "--raw takes text, not --messages", None),
        (
            sources.is_raw and sources.insists_on_system,
            "--raw takes no --system",
            "put the text into the prompt",
        ),
        (sources.is_raw and opening.template is not None, "--raw uses no --template", None),
        (
            wants_logprobs and not (output.is_json or is_programmatic),
            "--logprobs is told with --json only",
            None,
        ),
        (reads_twice, "stdin (-) can be read only once", None),
    ):
        if is_wrong:
            raise UsageError(message, hint=hint)


def _talk(console: Console, opening: Opening, sources: Sources, output: Output) -> int:
    if output.style == "programmatic":
        from llmctl.cli.chat.programmatic import Programmatic

        stdin_bytes()
        backend, params = _open(console, opening)
        talker = Programmatic(backend, params, system=sources.system, is_raw=sources.is_raw)
        return talker.run(console)
    text = gather_text(sources)
    if text is None and sources.messages is None:
        return _converse(console, opening, sources, output)
    messages = () if sources.is_raw else conversation(sources, text)
    backend, params = _open(console, opening)
    request: GenerationRequest
    if sources.is_raw:
        request = CompletionRequest(prompt=text or "", sampling=params)
    else:
        request = ChatRequest(messages=messages, sampling=params)
    return _answer_once(console, backend, request, output)


def _converse(console: Console, opening: Opening, sources: Sources, output: Output) -> int:
    if sources.is_raw or output.is_json or output.extracts_code:
        raise UsageError("--raw, --json and -x need a prompt", hint="give it with -p TEXT, -f FILE or a pipe")
    from llmctl.cli.chat.loop import Loop

    backend, params = _open(console, opening)
    return Loop(backend, params, system=sources.system).run(console)


def _answer_once(console: Console, backend: "Backend", request: GenerationRequest, output: Output) -> int:
    from llmctl.cli.chat.answer import ask_now, last_code_block

    is_streamed = not (output.is_json or output.extracts_code)
    try:
        with asyncio.Runner() as runner:
            answer = ask_now(runner, backend, request, show=console.write if is_streamed else _hold_back)
    except KeyboardInterrupt:
        # The shell's prompt must not stand behind half an answer.
        console.note("")
        raise
    if output.is_json:
        console.json({"model": backend.info.name, **answer.as_dict()})
    elif output.extracts_code:
        code = last_code_block(answer.text)
        if code is None:
            console.note(answer.text, is_vital=True)
            raise LlmctlError(
                "the answer has no code block", hint="it stands above; leave out -x to take it all"
            )
        console.write(code)
    elif not answer.text.endswith("\n"):
        console.line()
    return 0


def _hold_back(_piece: str) -> None:
    """Nothing is shown before the answer is whole."""


def _open(console: Console, opening: Opening) -> "tuple[Backend, SamplingParams]":
    """Load the model, showing the stages, and lay the user's sampling settings over the model's own."""
    settings = opening.settings
    with console.progress() as progress:
        progress.stage("start torch")
        from llmctl.engine.local import LocalBackend
        from llmctl.loading.loader import LoadRequest, load

        log.tame_libraries()

        request = LoadRequest(
            model=settings.model,
            revision=opening.revision,
            device=settings.device,
            dtype=settings.dtype,
            trust_remote_code=opening.trust_remote_code,
        )
        backend = LocalBackend(load(request, progress), template=opening.template)
    params = sampling.update(backend.info.default_sampling, settings.sampling)
    logger.info("sampling: %s", params)
    _warn_of_greedy(settings, params)
    if (params.max_new_tokens or 0) > backend.info.context_length:
        logger.warning(
            "--max-new-tokens %d: the context of %s ends an answer at %d tokens, prompt included",
            params.max_new_tokens,
            backend.info.name,
            backend.info.context_length,
        )
    return backend, params


def _warn_of_greedy(settings: Settings, params: SamplingParams) -> None:
    """Flags that only matter when tokens are drawn are not ignored in silence."""
    idle = [f"--{key.replace('_', '-')}" for key in DRAWING if settings.origins.get(key, "").startswith("--")]
    if idle and params.temperature == 0:
        owner = "yours" if "temperature" in settings.sampling else "the model's own"
        logger.warning("%s: no effect at temperature 0 (%s), give --temperature", ", ".join(idle), owner)
