"""What the test servers of `tests.server` say: scripted replies, and the shapes of the OpenAI protocol."""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
CHAT, COMPLETIONS, MODELS = "/v1/chat/completions", "/v1/completions", "/v1/models"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What the server does with one request; the defaults are a well-behaved stream that says nothing."""

    pieces: Sequence[str] = ()
    reasoning: Sequence[str] = ()
    """Sent before `pieces`, as `reasoning_content`."""
    delay_s: float = 0.0
    """Before each piece."""
    silence_s: float = 0.0
    """Before the first byte."""
    finish_reason: str | None = "stop"
    usage: tuple[int, int] | None = (0, 0)
    """Tokens of prompt and answer; None sends none, (0, 0) counts words and pieces."""
    has_done: bool = True
    """Whether the stream ends in `[DONE]`."""
    cut_after: int | None = None
    """Pieces (reasoning too) after which the connection breaks."""
    stall_after: int | None = None
    """Pieces after which nothing more comes; the connection stays."""
    error: Any = None
    """Sent as `{"error": ...}` in the stream, behind the pieces, instead of an end."""
    raw: Sequence[bytes] | None = None
    """The body of the stream as it is, instead of all of the above but the delays and `cut_after`."""
    is_plain: bool = False
    """One JSON object, although a stream is asked for."""
    status: int = 200
    body: Any = None
    """With this, or a status that is not 200: the whole answer, text as it is, other values as JSON."""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class Seen:
    """A request that came."""

    method: str
    path: str
    headers: dict[str, str]
    """By lower-case name."""
    body: Json
    client_port: int
    """Of the client's connection: the same for requests that share one."""
    disconnected: threading.Event = field(default_factory=threading.Event)
    """Set when the client went before the answer was whole."""

    @property
    def last_user_message(self) -> str:
        """What the user said last, or the prompt of a completion."""
        said = [each["content"] for each in self.body.get("messages", []) if each["role"] == "user"]
        return said[-1] if said else str(self.body.get("prompt", ""))


def event(data: str) -> bytes:
    """An event of a stream."""
    return f"data: {data}\n\n".encode()


def lines(reply: Reply, seen: Seen) -> Iterator[str]:
    """The data of the events of a reply."""
    for text in reply.reasoning:
        yield json.dumps(chunk(seen, text, is_reasoning=True))
    for text in reply.pieces:
        yield json.dumps(chunk(seen, text))
    if reply.error is not None:
        yield json.dumps({"error": reply.error})
        return
    if reply.finish_reason is not None:
        yield json.dumps(chunk(seen, "", finish_reason=reply.finish_reason))
    wants_usage = seen.body.get("stream_options", {}).get("include_usage") or not seen.body.get("stream")
    if reply.usage is not None and wants_usage:
        num_pieces = len(reply.pieces) + len(reply.reasoning)
        prompt, completion = reply.usage
        yield json.dumps(usage(seen, prompt or len(seen.last_user_message.split()), completion or num_pieces))
    if reply.has_done:
        yield "[DONE]"


def chunk(seen: Seen, text: str, *, finish_reason: str | None = None, is_reasoning: bool = False) -> Json:
    """A piece of text, or the end, as a chat or a completion has it."""
    choice: Json = {"index": 0, "finish_reason": finish_reason}
    if seen.path == COMPLETIONS:
        choice["text"] = text
    else:
        choice["delta"] = {"reasoning_content" if is_reasoning else "content": text} if text else {}
    return {"id": "1", "model": seen.body.get("model"), "choices": [choice]}


def usage(seen: Seen, prompt_tokens: int, completion_tokens: int) -> Json:
    """The chunk that only tells the token counts."""
    total = prompt_tokens + completion_tokens
    counts = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}
    return {"id": "1", "model": seen.body.get("model"), "choices": [], "usage": counts}


def joined(chunks: Sequence[Json]) -> Json:
    """The chunks of a stream as the one object of an answer that does not stream."""
    whole: Json = {"id": "1", "model": chunks[0]["model"], "choices": []} if chunks else {}
    message: Json = {}
    choice: Json = {"index": 0}
    for each in chunks:
        whole |= {key: each[key] for key in ("usage", "error") if key in each}
        for part in each.get("choices", []):
            for key, text in part.get("delta", {"text": part.get("text", "")}).items():
                message[key] = message.get(key, "") + text
            choice["finish_reason"] = part["finish_reason"]
    choice |= {"text": message.pop("text")} if "text" in message else {"message": message}
    return whole | {"choices": [choice]}
