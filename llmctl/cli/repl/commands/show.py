"""Commands that only tell: show, stats."""

from typing import TYPE_CHECKING

from llmctl.cli.chat.answer import tokens_per_s
from llmctl.cli.chat.opening import LocalOpener
from llmctl.cli.repl.commands import knobs
from llmctl.cli.repl.view import show_message, show_plain
from llmctl.core.errors import UsageError

if TYPE_CHECKING:
    from llmctl.cli.repl.repl import Repl

SUBJECTS = {
    "conversation": "all turns",
    "system": "the system message",
    "model": "what answers, and its context",
    "parameters": "sampling and the rest",
    "template": "how messages become a prompt",
    "prompt": "the very text that the model was sent last",
    "reasoning": "what the model said to itself last",
}


async def show(repl: "Repl", argument: str) -> None:
    """One subject, or a summary."""
    subject = argument or "model"
    if subject not in SUBJECTS:
        raise UsageError(f"/show {argument}: known are {', '.join(SUBJECTS)}")
    match subject:
        case "system":
            await knobs.system(repl, "")
        case "parameters":
            await knobs.set_knob(repl, "")
        case "template":
            await knobs.template(repl, "")
        case "conversation":
            _conversation(repl)
        case "reasoning":
            _reasoning(repl)
        case "prompt":
            await _prompt(repl)
        case _:
            await _model(repl)


async def stats(repl: "Repl", argument: str) -> None:
    """Tokens and times of the answers since the start."""
    import psutil

    whole = [answer.finish for answer in repl.answers if answer.finish is not None]
    usages = [finish.usage for finish in whole if finish.usage is not None]
    rates = [rate for finish in whole if (rate := tokens_per_s(finish)) is not None]
    firsts = [finish.timings.first_token_s for finish in whole]
    stopped = len(repl.answers) - len(whole)
    rows = [
        ["answers", f"{len(whole)}" + (f" and {stopped} stopped" if stopped else "")],
        ["prompt tokens", str(sum(usage.prompt_tokens for usage in usages))],
        ["answer tokens", str(sum(usage.completion_tokens for usage in usages))],
    ]
    if firsts:
        rows.append(["first token", f"{sum(firsts) / len(firsts):.2f} s on average"])
    if rates:
        rows.append(["tokens/s", f"{sum(rates) / len(rates):.1f} (best {max(rates):.1f})"])
    if isinstance(repl.opener, LocalOpener):
        rows.append(["memory", f"{psutil.Process().memory_info().rss / 2**30:.2f} GiB of this process"])
    repl.console.table(["MODEL", repl.model_name], rows)


async def _model(repl: "Repl") -> None:
    backend = await repl.ready()
    limit = backend.info.context_length
    where, loaded_as = repl.settings.url or "this process", knobs.loaded_as(repl)
    rows = [
        ["runs in", where],
        *([["loaded", loaded_as]] if loaded_as else []),
        ["context", f"{limit} tokens" if limit else "not told by the server"],
        ["used", f"{repl.used_tokens} tokens" if repl.used_tokens is not None else "known after an answer"],
        ["turns", str(len(repl.conversation.turns))],
        ["session", _session(repl)],
    ]
    repl.console.table(["MODEL", backend.info.name], rows)


def _session(repl: "Repl") -> str:
    if repl.conversation.log is None:
        return "not kept"
    number = repl.conversation.session_id
    return repl.conversation.name or (str(number) if number is not None else "begins with the first question")


def _conversation(repl: "Repl") -> None:
    if not repl.conversation.messages:
        repl.console.note("(nothing was said yet)")
    for message in repl.conversation.messages:
        show_message(repl.console, repl.look, message)


def _reasoning(repl: "Repl") -> None:
    turn = repl.conversation.last_answer()
    if turn is None or not turn.reasoning:
        raise UsageError("the last answer came without reasoning")
    show_plain(repl.console, turn.reasoning)


async def _prompt(repl: "Repl") -> None:
    await repl.ready()
    if not isinstance(repl.opener, LocalOpener) or repl.opener.backend is None:
        raise UsageError("the server renders the prompts, so that only it knows them")
    messages = repl.conversation.messages
    while messages and messages[-1].role == "assistant":
        messages = messages[:-1]
    if not messages:
        raise UsageError("nothing was said yet")
    show_plain(repl.console, repl.opener.backend.prompt(messages))
