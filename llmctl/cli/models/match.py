"""`llmctl models match`: what llmctl takes a model for, with reasons, and the prompt that comes of it."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmctl.cli.console import Console, is_terminal
from llmctl.cli.logs.display import harmless
from llmctl.cli.models.families import AdapterFiles, registry
from llmctl.cli.models.lookup import Found, Lookup
from llmctl.cli.options import Json, console_of
from llmctl.core.errors import UsageError

if TYPE_CHECKING:
    from llmctl.cli.models.prompt import PromptRequest

STDIN = "-"
# DEL, C1, marks that reorder or end a line, and halves of surrogate pairs; json itself escapes what is below.
_UNSAFE = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def match_models(
    ctx: typer.Context,
    model: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="Names, folders or GGUF files, they need not exist; - reads names from stdin, one a line.",
        ),
    ],
    explain: Annotated[
        bool, typer.Option("--explain", help="All families that fit, and why.", show_default=False)
    ] = False,
    render: Annotated[
        str | None,
        typer.Option(
            "--render",
            metavar="[FILE]",
            help="Print the prompt of this JSON conversation; without a file, of a short one. "
            "A word that is a file or ends in .json is taken for it, any with --render=FILE.",
            show_default=False,
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME", help="A Jinja file or a template's name, before all.", show_default=False
        ),
    ] = None,
    adapter_file: AdapterFiles = None,
    is_json: Json = False,
) -> int:
    """Say how a model is prompted, stopped and loaded, and why.

    By the name alone, or with the facts of the model's files where they are on this machine. Exits with 3
    when no family fits, with 8 when several do equally well; of several names the worst counts.
    """
    console = console_of(ctx)
    talk = _conversation(render, model, is_json)
    lookup = Lookup(registry=registry(adapter_file), explicit=_explicit(template))
    worst = 0
    for name in _each(model):
        found = lookup.find(name)
        rendered: dict[str, Any] = {}
        if talk is not None:
            found, rendered["prompt"] = _rendered(found, talk)
        shown = found.as_dict() | rendered
        if is_json:
            console.line(_json_line(shown))
        else:
            _tell(console, found, shown, explain=explain)
        is_mute = talk is not None and not is_json and shown["prompt"] is None
        failed = found.error or (no_prompt(found) if is_mute else None)
        worst = max(worst, failed.exit_code if failed else 0)
    return worst


def _explicit(template: str | None) -> Any:
    if template is None:
        return None
    from llmctl.prompts.template import read

    return read(template)


def _conversation(render: str | None, names: list[str], is_json: bool) -> "PromptRequest | None":
    if render is None:
        return None
    if not is_json and (len(names) > 1 or names == [STDIN]):
        raise UsageError("--render prints one prompt and nothing else", hint="add --json for several models")
    if render == STDIN and STDIN in names:
        raise UsageError("stdin cannot bring both the names and the conversation")
    from llmctl.cli.models.prompt import SHORT, read_conversation

    return read_conversation(render) if render else SHORT


def _each(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        if name != STDIN:
            yield name
            continue
        from llmctl.cli.chat.input import stdin_bytes

        # Read as they come: whoever writes them may wait for the answer.
        for line in stdin_bytes():
            text = line.decode("utf-8", errors="surrogateescape").strip()
            if text:
                yield text


def _json_line(value: dict[str, Any]) -> str:
    """JSON that any encoding can write and that drives no terminal."""
    text = json.dumps(value, ensure_ascii=False)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _rendered(found: Found, talk: "PromptRequest") -> tuple[Found, str | None]:
    from llmctl.cli.models.prompt import with_prompt

    return with_prompt(found, talk)


def _tell(console: Console, found: Found, shown: dict[str, Any], *, explain: bool) -> None:
    """For people. With a prompt stdout holds that alone, and the rest goes to stderr."""
    write: Callable[[str], None] = console.line
    if "prompt" in shown:
        write = console.note
        if shown["prompt"] is not None:
            _write_prompt(console, shown["prompt"])
    if found.error is None or explain:
        for line in _lines(shown, explain=explain):
            write(harmless(line))
    if found.error is not None:
        console.error(found.error)
    elif "prompt" in shown and shown["prompt"] is None:
        console.error(no_prompt(found))


def no_prompt(found: Found) -> UsageError:
    """Why --render has nothing to print."""
    return UsageError(f"no prompt for {found.name}", hint="; ".join(found.notes) or "it has no chat template")


def _write_prompt(console: Console, text: str) -> None:
    """To the byte for a program; on a terminal it cannot drive it and ends its line."""
    is_watched = is_terminal(sys.stdout)
    console.write(harmless(text) + ("\n" if is_watched and not text.endswith("\n") else ""))


def _lines(shown: dict[str, Any], *, explain: bool) -> Iterator[str]:
    yield shown["name"]
    rows = {"family": "none", "kind": None, **_answer(shown)}
    rows["because"] = "; ".join(shown["matched_by"]) or None
    for title, text in rows.items():
        if text:
            yield f"  {title:<10}{text}"
    for note in shown["notes"]:
        yield f"  {'note':<10}{note}"
    if explain:
        others = [each for each in shown["candidates"] if each["family"] != shown["family"]]
        for title, each in zip(("then", *[""] * len(others)), others, strict=False):
            yield f"  {title:<10}{each['family']}: {each['why']}"
        if not others:
            yield f"  {'then':<10}no other family fits"


def _answer(shown: dict[str, Any]) -> dict[str, str | None]:
    """The lines that a family brings; none without one."""
    if shown["family"] is None:
        return {}
    stops = [json.dumps(text, ensure_ascii=False) for text in shown["stop"]]
    stops += [f"token {token_id}" for token_id in shown["stop_token_ids"]]
    return {
        "family": f"{shown['family']} ({shown['title']})",
        "kind": shown["kind"] + _how(shown["kind"], shown["generates"]),
        "template": f"{shown['template']} ({_SOURCES[shown['template_source']]})",
        "stops at": ", ".join([*stops, "the model's own end tokens"])
        if shown["generates"] != "none"
        else None,
        "loading": _pairs(shown["loading"]),
        "sampling": _pairs(shown["generation"]),
    }


_SOURCES = {
    "flag": "--template",
    "row": "of the family",
    "tokenizer": "the tokenizer's own",
    None: "unknown",
}


def _how(kind: str, generates: str) -> str:
    """How it generates, where its kind does not say it."""
    return "" if generates in ("causal", "none", kind) else f", generates by {generates} decoding"


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
