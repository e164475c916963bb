"""`llmctl chat`: reads the flags, gathers the input, opens the backend and picks who talks to it."""

from typing import Annotated

import typer

from llmctl.cli import loading_flags, options
from llmctl.cli.chat.flags import STYLES, Keeping, Output, check, check_place
from llmctl.cli.chat.input import Sources, conversation, gather_text, stdin_bytes
from llmctl.cli.chat.keep import open_conversation, resumed
from llmctl.cli.chat.once import Once
from llmctl.cli.chat.opening import Opening, opener
from llmctl.cli.console import Console
from llmctl.cli.models.families import AdapterFiles
from llmctl.cli.options import FLAG_NAMES, console_of, flags_of, settings_of
from llmctl.core.errors import UsageError
from llmctl.prompts.template import read

_PROMPT, _OUTPUT, _SESSION = "Prompt", "Output", "Conversation"


def chat(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="A hub id, a folder, that of a LoRA adapter too, a GGUF file (NAME:Q4_K_M: that one of a "
            "folder or hub id), or 'demo', which is inside llmctl and the default.",
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
            metavar="FILE|NAME",
            help="Chat template instead of the model's: a Jinja file, or a name.",
            rich_help_panel=_PROMPT,
        ),
    ] = None,
    adapter_file: AdapterFiles = None,
    extract: Annotated[
        bool,
        typer.Option("-x", "--extract", help="Only the answer's last code block.", rich_help_panel=_OUTPUT),
    ] = False,
    is_json: Annotated[
        bool,
        typer.Option("--json", help="Answer, counts and times as JSON; errors too.", rich_help_panel=_OUTPUT),
    ] = False,
    style: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(STYLES),
            help="rich: markdown; simple: bare text; programmatic: JSON lines in and out.",
            rich_help_panel=_OUTPUT,
            show_default=False,
        ),
    ] = None,
    plain: Annotated[
        bool,
        typer.Option(
            "--plain", help="No markdown, colour or line editing of our own.", rich_help_panel=_OUTPUT
        ),
    ] = False,
    hide_reasoning: Annotated[
        bool,
        typer.Option(
            "--hide-reasoning",
            help="Leave out what the model says to itself first.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
    is_thinking: Annotated[
        bool | None,
        typer.Option(
            "--thinking/--no-thinking",
            help="Have the model reason first, or not; left out, as its template has it.",
            rich_help_panel=_PROMPT,
            show_default=False,
        ),
    ] = None,
    is_continued: Annotated[
        bool,
        typer.Option("-c", "--continue", help="Go on with the last conversation.", rich_help_panel=_SESSION),
    ] = False,
    session: Annotated[
        str | None,
        typer.Option(
            metavar="SESSION",
            help="Go on with the conversation of this name, or begin it.",
            rich_help_panel=_SESSION,
        ),
    ] = None,
    no_log: Annotated[
        bool,
        typer.Option("--no-log", help="Keep nothing of what is said.", rich_help_panel=_SESSION),
    ] = False,
    no_history: Annotated[
        bool,
        typer.Option("--no-history", help="Neither offer nor keep typed lines.", rich_help_panel=_SESSION),
    ] = False,
    url: options.Url = None,
    api_key_file: options.ApiKeyFile = None,
    timeout: options.Timeout = None,
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
    delta: options.Delta = None,
    model_path: Annotated[str | None, typer.Option(hidden=True)] = None,
    conv_template: Annotated[str | None, typer.Option(hidden=True)] = None,
    conv_system_msg: Annotated[str | None, typer.Option(hidden=True)] = None,
    enable_exllama: Annotated[bool, typer.Option("--enable-exllama", hidden=True)] = False,
    enable_xft: Annotated[bool, typer.Option("--enable-xft", hidden=True)] = False,
) -> int:
    """Chat with a model, or answer one prompt.

    At a terminal and without a prompt it is a conversation; with -p, -f or a pipe it answers once and leaves.
    stdout holds the answer and nothing else.
    """
    flags = flags_of(ctx)
    # One of its values is no setting.
    flags.pop("style", None)
    flags["model"] = _either(model, "MODEL", model_path, "--model-path")
    flags["system"] = _either(system, "--system", conv_system_msg, "--conv-system-msg")
    flags |= {key: "off" for key, is_off in (("log", no_log), ("history", no_history)) if is_off}
    flags |= {"reasoning": "hide"} if hide_reasoning else {}
    flags |= {"thinking": "on" if is_thinking else "off"} if is_thinking is not None else {}
    _refuse_gone_engines(enable_exllama=enable_exllama, enable_xft=enable_xft)
    settings = settings_of(ctx).with_flags(flags, names=FLAG_NAMES)
    chosen = _either(template, "--template", conv_template, "--conv-template")
    sources = Sources(
        prompt=prompt,
        files=tuple(file or ()),
        messages=messages,
        system=settings.system,
        insists_on_system=settings.origins.get("system") == "--system",
        is_raw=raw,
    )
    chosen_style = style if style is not None else settings.style
    output = Output(
        style=chosen_style,
        insists_on_style=style is not None,
        is_json=is_json,
        extracts_code=extract,
        is_plain=plain,
    )
    keeping = Keeping(
        continues=is_continued,
        session=session,
        is_kept=settings.log == "on",
        has_history=settings.history == "on",
    )
    check(settings, sources, output, keeping)
    if raw and chosen is not None:
        raise UsageError("--raw uses no --template")
    loading = loading_flags.read(ctx.params)
    # Only to be refused now: a model takes long to load.
    loading.request(settings)
    opening = Opening(
        settings=settings,
        loading=loading,
        revision=revision,
        trust_remote_code=trust_remote_code,
        # Read now: loading takes long, and a wrong path should not wait for it.
        template=read(chosen) if chosen is not None else None,
        api_key_file=api_key_file,
        adapter_files=tuple(adapter_file or ()),
        delta=delta,
    )
    console = console_of(ctx)
    console.is_plain = plain
    return _talk(console, opening, sources, output, keeping)


def _refuse_gone_engines(*, enable_exllama: bool, enable_xft: bool) -> None:
    """FastChat's flags for engines whose packages are gone."""
    for is_asked, name in ((enable_exllama, "exllama"), (enable_xft, "xft")):
        if is_asked:
            from llmctl.engine.generate.choose import stream_function

            stream_function(name)


def _either(value: str | None, name: str, other: str | None, other_name: str) -> str | None:
    """The value of a flag and its alias of which one may be given."""
    if value is not None and other is not None and value != other:
        raise UsageError(
            f"{name} {value!r} and {other_name} {other!r} contradict each other", hint="give one"
        )
    return other if value is None else value


def _talk(console: Console, opening: Opening, sources: Sources, output: Output, keeping: Keeping) -> int:
    if keeping.flag is None:
        check_place(opening)
    if output.is_programmatic:
        from llmctl.cli.chat.programmatic import Programmatic

        stdin_bytes()
        talker = Programmatic(opener(opening), system=sources.system, is_raw=sources.is_raw)
        return talker.run(console)
    text = gather_text(sources)
    if text is None and sources.messages is None and (sources.is_raw or output.only_answers):
        raise UsageError("--raw, --json and -x need a prompt", hint="give it with -p TEXT, -f FILE or a pipe")
    if sources.is_raw:
        return Once(console, opener(opening), output).answer(text or "")
    if sources.messages is not None:
        return Once(console, opener(opening), output).answer(conversation(sources, text))
    with open_conversation(
        console, opening.settings, keeping, insists_on_system=sources.insists_on_system
    ) as kept:
        opening = resumed(opening, kept)
        check_place(opening)
        chosen = opener(opening)
        if text is not None:
            return Once(console, chosen, output).answer(text, conversation=kept)
        from llmctl.cli.repl.start import converse

        return converse(console, chosen, kept, output, has_history=keeping.has_history)
