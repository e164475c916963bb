"""Fields of the protocol that this version does not support, each with the reason.

With one of its neutral values, or null, a field asks for nothing and passes; any other is refused by name.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a field is refused."""

    why: str
    neutral: tuple[object, ...] = ()
    """Values that ask for what is done anyway."""

    def allows(self, value: object) -> bool:
        """Whether `value`, as JSON has it, asks for nothing."""
        # 1 is no answer to true or false, though Python calls them equal.
        return any(
            value == each and isinstance(value, bool) is isinstance(each, bool) for each in self.neutral
        )


_NO_TOOLS = "tools come in a later version"
_NO_SCHEMA = "answers of a given form come in a later version"
_TEXT_ONLY = "this server reads and writes text"
_IS_DONE_BY_ENGINE = "the engine does not do this"

_SHARED: Mapping[str, Refusal] = {
    "service_tier": Refusal("there is one tier", ("auto", "default")),
    "store": Refusal("nothing is stored", (False,)),
    "use_beam_search": Refusal(_IS_DONE_BY_ENGINE, (False,)),
    "length_penalty": Refusal("it belongs to beam search", (1.0,)),
    "early_stopping": Refusal("it belongs to beam search", (False,)),
    "include_stop_str_in_output": Refusal("an answer ends before its stop string", (False,)),
    "skip_special_tokens": Refusal("special tokens are never part of the text", (True,)),
    "spaces_between_special_tokens": Refusal("special tokens are never part of the text", (True,)),
    "truncate_prompt_tokens": Refusal("a prompt is never cut: shorten it, or take a model with more context"),
    "return_tokens_as_token_ids": Refusal("tokens are told as text", (False,)),
    "return_token_ids": Refusal("tokens are told as text: /tokenize gives ids", (False,)),
    "structured_outputs": Refusal(_NO_SCHEMA),
    "guided_json": Refusal(_NO_SCHEMA),
    "guided_regex": Refusal(_NO_SCHEMA),
    "guided_choice": Refusal(_NO_SCHEMA),
    "guided_grammar": Refusal(_NO_SCHEMA),
    "grammar": Refusal(_NO_SCHEMA),
}

CHAT: Mapping[str, Refusal] = {
    **_SHARED,
    "tools": Refusal(_NO_TOOLS, ([],)),
    "tool_choice": Refusal(_NO_TOOLS, ("none", "auto")),
    "parallel_tool_calls": Refusal(_NO_TOOLS, (True, False)),
    "functions": Refusal(_NO_TOOLS, ([],)),
    "function_call": Refusal(_NO_TOOLS, ("none", "auto")),
    "response_format": Refusal(_NO_SCHEMA, ({"type": "text"},)),
    "modalities": Refusal(_TEXT_ONLY, (["text"],)),
    "audio": Refusal(_TEXT_ONLY),
    "moderation": Refusal("nothing is moderated here"),
    "prediction": Refusal("the engine does not take predicted outputs"),
    "prompt_cache_options": Refusal(
        "prefixes are kept while there is room, in blocks of the engine's choice", ({}, {"mode": "implicit"})
    ),
    "prompt_cache_retention": Refusal(
        "prefixes are kept in memory while there is room", ("in_memory", "in-memory")
    ),
    "verbosity": Refusal("models have no such switch: say it in the system message", ("medium",)),
    "web_search_options": Refusal("models cannot search the web"),
    "chat_template": Refusal("whoever starts the server chooses the template: serve worker --template"),
    "documents": Refusal("write them into a message", ([],)),
    "add_special_tokens": Refusal("the chat template writes the special tokens", (False,)),
    "echo": Refusal("/v1/completions can repeat its prompt", (False,)),
    "best_of": Refusal("ask for n answers and choose", (1,)),
    "enable_thinking": Refusal('write "chat_template_kwargs": {"enable_thinking": true or false}'),
}
COMPLETION: Mapping[str, Refusal] = {
    **_SHARED,
    "max_completion_tokens": Refusal("it belongs to chat: give max_tokens"),
    "suffix": Refusal("models continue a text, they do not fill gaps", ("",)),
    "response_format": CHAT["response_format"],
}
STREAM_OPTIONS: Mapping[str, Refusal] = {"include_obfuscation": Refusal("chunks are not padded", (False,))}
EMBEDDING: Mapping[str, Refusal] = {"truncate_prompt_tokens": _SHARED["truncate_prompt_tokens"]}
TOKENIZE: Mapping[str, Refusal] = {name: CHAT[name] for name in ("tools", "chat_template")}
MESSAGE: Mapping[str, Refusal] = {
    "audio": Refusal(_TEXT_ONLY),
    "function_call": Refusal("write it as one of tool_calls"),
    "annotations": Refusal("models read text: write them into the content", ([],)),
}
PART: Mapping[str, Refusal] = {
    "prompt_cache_breakpoint": Refusal(CHAT["prompt_cache_options"].why),
    "cache_control": Refusal(CHAT["prompt_cache_options"].why),
}
