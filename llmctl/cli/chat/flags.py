"""What the flags of `llmctl chat` ask for beside text and model, and which of them go together."""

from dataclasses import dataclass

from llmctl.cli.chat.input import Sources
from llmctl.cli.chat.opening import Opening
from llmctl.cli.options import FLAG_NAMES
from llmctl.core.errors import UsageError
from llmctl.core.settings import Settings

STYLES = ("rich", "simple", "programmatic")
OF_A_LOADED_MODEL = ("device", "dtype", "quantization", "context")
"""Settings that a server decides by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How answers are shown."""

    style: str | None
    """None: markdown in a conversation at a terminal, the bare text elsewhere."""
    insists_on_style: bool = False
    """Whether the style is a flag's; a setting's gives way to --json, -x and --plain."""
    is_json: bool
    extracts_code: bool
    is_plain: bool = False

    @property
    def only_answers(self) -> bool:
        """Whether it takes a prompt to make sense."""
        return self.is_json or self.extracts_code

    @property
    def is_programmatic(self) -> bool:
        """Whether JSON lines come in and go out."""
        return self.style == "programmatic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """What is kept of the conversation, and whether it goes on from one that was."""

    continues: bool = False
    session: str | None = None
    is_kept: bool = True
    has_history: bool = True

    @property
    def flag(self) -> str | None:
        """The flag that asks for an earlier conversation."""
        return "--continue" if self.continues else "--session" if self.session is not None else None


def check(settings: Settings, sources: Sources, output: Output, keeping: Keeping) -> None:
    """Refuse flags that do not go together; none is ever ignored. Raises `UsageError`."""
    if output.style is not None and output.style not in STYLES:
        raise UsageError(f"--style must be one of {', '.join(STYLES)}, not {output.style!r}")
    if keeping.continues and keeping.session is not None:
        raise UsageError("--continue and --session name two conversations", hint="give one")
    _check_text(settings, sources, output)
    _check_output(output)
    _check_session(sources, output, keeping)


def _check_text(settings: Settings, sources: Sources, output: Output) -> None:
    gives_text = sources.prompt is not None or bool(sources.files) or sources.messages is not None
    wants_logprobs = settings.origins.get("logprobs") == "--logprobs"
    reads_twice = [*sources.files, sources.messages].count("-") > 1
    for is_wrong, message, hint in (
        (
            output.is_programmatic and gives_text,
            "--style programmatic reads its prompts from stdin",
            "drop -p, -f, --messages",
        ),
        (sources.is_raw and sources.messages is not None, "--raw takes text, not --messages", None),
        (
            sources.is_raw and sources.insists_on_system,
            "--raw takes no --system",
            "put the text into the prompt",
        ),
        (
            sources.is_raw and settings.origins.get("thinking") == FLAG_NAMES["thinking"],
            "--raw uses no template, and --thinking and --no-thinking are switches of one",
            None,
        ),
        (
            wants_logprobs and not (output.is_json or output.is_programmatic),
            "--logprobs is told with --json only",
            None,
        ),
        (reads_twice, "stdin (-) can be read only once", None),
    ):
        if is_wrong:
            raise UsageError(message, hint=hint)


def _check_output(output: Output) -> None:
    insists_on_rich = output.insists_on_style and output.style == "rich"
    for is_wrong, message in (
        (
            output.is_programmatic and output.extracts_code,
            "-x does not go with --style programmatic",
        ),
        (output.extracts_code and output.is_json, "-x does not go with --json"),
        (insists_on_rich and output.is_json, "--style rich does not go with --json"),
        (insists_on_rich and output.is_plain, "--style rich does not go with --plain"),
        (insists_on_rich and output.extracts_code, "-x does not go with --style rich"),
    ):
        if is_wrong:
            raise UsageError(message)


def _check_session(sources: Sources, output: Output, keeping: Keeping) -> None:
    other = next(
        (
            name
            for is_given, name in (
                (sources.is_raw, "--raw"),
                (sources.messages is not None, "--messages"),
                (output.is_programmatic, "--style programmatic"),
            )
            if is_given
        ),
        None,
    )
    if keeping.flag is not None and other is not None:
        raise UsageError(f"{keeping.flag} does not go with {other}, which stands by itself")


def check_place(opening: Opening) -> None:
    """Refuse flags of the other kind than what answers, a model in this process or a server."""
    settings = opening.settings
    flags = [f"--{key}" for key in OF_A_LOADED_MODEL if settings.origins.get(key, "").startswith("--")]
    flags += opening.loading.given(settings)
    flags += ["--revision"] if opening.revision is not None else []
    flags += ["--delta"] if opening.delta is not None else []
    flags += ["--trust-remote-code"] if opening.trust_remote_code else []
    flags += ["--template"] if opening.template is not None else []
    flags += ["--adapter-file"] if opening.adapter_files else []
    if settings.url is not None and flags:
        raise UsageError(
            f"{flags[0]} is for a model in this process, and {settings.url} is a server",
            hint="leave out one of the two",
        )
    of_server = ["--api-key-file"] if opening.api_key_file is not None else []
    of_server += ["--timeout"] if settings.origins.get("timeout") == "--timeout" else []
    if settings.url is None and of_server:
        raise UsageError(f"{of_server[0]} is for a server", hint="name it with --url")
