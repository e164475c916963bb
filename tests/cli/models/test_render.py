"""`models match --render` against transformers' own rendering, and the files that it takes and refuses."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import transformers

from llmctl.demo import MODELS
from tests.cli.models.conftest import Models
from tests.conftest import Llmctl

SHORT = [
    {"role": "user", "content": "Hello!"},
    {"role": "assistant", "content": "Hi there! How can I help you today?"},
    {"role": "user", "content": "What's the weather?"},
]
SYSTEM = {"role": "system", "content": "You are a pirate."}
PREFILL = {"role": "assistant", "content": "It is sunny and"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather at a place, today's “best guess”.",
            "parameters": {
                "type": "object",
                "properties": {"place": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
                "required": ["place"],
            },
        },
    }
]


def call(arguments: Any) -> dict[str, Any]:
    """An assistant's turn that calls the tool."""
    function = {"name": "weather", "arguments": arguments}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "abcdef123", "type": "function", "function": function}],
    }


RESULT = {"role": "tool", "name": "weather", "tool_call_id": "abcdef123", "content": '{"sky": "clear"}'}
TALKS: dict[str, dict[str, Any]] = {
    "two turns": {"messages": SHORT},
    "one turn": {"messages": SHORT[:1]},
    "system": {"messages": [SYSTEM, *SHORT]},
    "tools": {"messages": SHORT, "tools": TOOLS},
    "system and tools": {"messages": [SYSTEM, *SHORT], "tools": TOOLS},
    "call and result": {"messages": [*SHORT, call('{"place": "Zürich"}'), RESULT], "tools": TOOLS},
    "call with an object": {"messages": [*SHORT, call({"place": "Zürich"}), RESULT], "tools": TOOLS},
    "prefill": {"messages": [*SHORT, PREFILL], "continue_final_message": True},
    "system and prefill": {"messages": [SYSTEM, *SHORT, PREFILL], "continue_final_message": True},
    "tools and prefill": {"messages": [*SHORT, PREFILL], "tools": TOOLS, "continue_final_message": True},
    "documents": {"messages": SHORT, "documents": [{"title": "A", "text": "The sky is clear."}]},
    "not opened": {"messages": SHORT, "add_generation_prompt": False},
    "awkward text": {"messages": [{"role": "user", "content": "  <s>[INST] é\U0001f600 {{ x }}\r\n\t "}]},
}
TOKENIZERS = ("qwen2.5", "mistral-v3", "smollm2", "stories260K", "demo")


@pytest.fixture(scope="module")
def tokenizers(shared: Path) -> Mapping[str, tuple[Path, Any]]:
    """Folders and the tokenizers that transformers reads from them."""
    folders = {
        "demo": MODELS["demo"],
        "stories260K": shared / "assets" / "stories260K",
        **{name: shared / "assets" / "tokenizers" / name for name in ("qwen2.5", "mistral-v3", "smollm2")},
    }
    assert set(folders) == set(TOKENIZERS)
    return {
        name: (folder, transformers.AutoTokenizer.from_pretrained(folder)) for name, folder in folders.items()
    }


def expected(tokenizer: Any, talk: Mapping[str, Any]) -> str | None:
    """What transformers renders; None where the template refuses the conversation."""
    goes_on = talk.get("continue_final_message", False)
    try:
        text: str = tokenizer.apply_chat_template(
            talk["messages"],
            tools=talk.get("tools"),
            documents=talk.get("documents"),
            tokenize=False,
            add_generation_prompt=not goes_on and talk.get("add_generation_prompt", True),
            continue_final_message=goes_on,
        )
    # jinja's, and transformers' own ValueError where a prefill has vanished.
    except (ValueError, transformers.utils.chat_template_utils.jinja2.TemplateError):
        return None
    return text


@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_prompt_is_that_of_transformers(
    models: Models, tmp_path: Path, tokenizers: Mapping[str, tuple[Path, Any]], name: str, talk: str
) -> None:
    folder, tokenizer = tokenizers[name]
    (tmp_path / "talk.json").write_text(json.dumps(TALKS[talk]))
    ended = models("match", str(folder), "--json", "--render", str(tmp_path / "talk.json"))
    shown = json.loads(ended.out)
    theirs = expected(tokenizer, TALKS[talk])
    assert shown["prompt"] == theirs
    assert (shown["prompt"] is None) is (ended.code != 0)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_what_is_printed_is_the_prompt_and_nothing_else(
    models: Models, tokenizers: Mapping[str, tuple[Path, Any]], name: str
) -> None:
    folder, tokenizer = tokenizers[name]
    ended = models("match", str(folder), "--render")
    assert (ended.code, ended.out) == (0, expected(tokenizer, {"messages": SHORT}))
    assert ended.err.startswith(f"{folder}\n")
    assert models("match", str(folder), "--render", "-q").err == ""


def test_most_conversations_are_rendered_and_not_refused(
    tokenizers: Mapping[str, tuple[Path, Any]],
) -> None:
    rendered = [expected(tokenizers[name][1], talk) for name in TOKENIZERS for talk in TALKS.values()]
    assert sum(text is not None for text in rendered) > len(rendered) * 0.9


def test_a_tokenizer_without_a_template_gives_none(models: Models, shared: Path) -> None:
    ended = models("match", str(shared / "assets" / "tokenizers" / "gpt2"), "--json", "--render")
    assert json.loads(ended.out)["prompt"] is None


def test_the_short_conversation_is_that_of_the_oracle(llmctl: Llmctl, shared: Path) -> None:
    oracle = json.loads((shared / "oracle" / "fastchat_oracle.json").read_text(encoding="utf-8"))
    said = [text for _, text in oracle["meta"]["conversation"] if text is not None]
    assert said == [message["content"] for message in SHORT]
    row = next(row for row in oracle["models"] if row["model_path"] == "lmsys/vicuna-7b-v1.5-16k")
    ended = llmctl("models", "match", "lmsys/vicuna-7b-v1.5-16k", "--json", "--render")
    assert json.loads(ended.out)["prompt"] == row["prompt"]
    assert llmctl("models", "match", "--render", "lmsys/vicuna-7b-v1.5-16k").out == row["prompt"]


def rendered(models: Models, talk: Any, tmp_path: Path, *args: str) -> Any:
    (tmp_path / "talk.json").write_text(talk if isinstance(talk, str) else json.dumps(talk))
    return models("match", "quokka", "--render", str(tmp_path / "talk.json"), *args)


def test_a_file_may_be_a_list_and_may_come_from_stdin(models: Models, tmp_path: Path) -> None:
    from_list = rendered(models, SHORT, tmp_path).out
    assert from_list == rendered(models, {"messages": SHORT}, tmp_path).out != ""
    assert models("match", "quokka", "--render=-", stdin=json.dumps(SHORT).encode()).out == from_list


@pytest.mark.parametrize(
    ("talk", "code", "said"),
    [
        ("{", 7, "is not JSON"),
        ("1" * 5000, 7, "is not JSON"),
        ("[" * 100_000, 7, "is not JSON"),
        (7, 2, "list of messages or an object, not 7"),
        ([], 2, "at least one message"),
        ({"tools": []}, 2, "at least one message"),
        ([{"role": "robot", "content": "x"}], 2, "message 0 must be an object with a role of system, user"),
        ([{"role": "user"}], 2, "content must be text"),
        ([{"role": "user", "content": 7}], 2, "content must be text or a list of parts, not 7"),
        ([{"role": "user", "content": [{"type": "smell"}]}], 2, "a part must be"),
        ({"messages": SHORT, "documents": 7}, 2, "documents must be a list of objects"),
        ({"messages": SHORT, "tools": ["x"]}, 2, "tools must be a list of objects"),
        ({"messages": SHORT, "reasoning": "yes"}, 2, 'reasoning must be true or false, not "yes"'),
        ({"messages": SHORT, "model": "x"}, 2, "'model' is not known"),
        ({"messages": SHORT, "continue_final_message": True}, 2, "needs an assistant's message at the end"),
    ],
)
def test_a_file_that_is_no_conversation_is_refused(
    models: Models, tmp_path: Path, talk: Any, code: int, said: str
) -> None:
    ended = rendered(models, talk, tmp_path)
    assert (ended.code, ended.out, ended.err.count("\n")) == (code, "", 1)
    assert said in ended.err
    assert "--render" in ended.err


@pytest.mark.parametrize(
    ("args", "code"), [(("--render", "no-such.json"), 3), (("--render=no-such",), 3), (("--render=.",), 7)]
)
def test_a_file_that_cannot_be_read_is_refused(models: Models, args: tuple[str, ...], code: int) -> None:
    ended = models("match", "quokka", *args)
    assert (ended.code, ended.out, ended.err.count("\n")) == (code, "", 1)


def test_a_template_that_refuses_a_conversation_says_so(models: Models, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text("{{ raise_exception('no pirates') }}")
    ended = models("match", "quokka", "--template", str(tmp_path / "own.jinja"), "--render")
    assert (ended.code, ended.out) == (2, "")
    assert "no pirates" in ended.err
    ended = models("match", "quokka", "--template", str(tmp_path / "own.jinja"), "--render", "--json")
    shown = json.loads(ended.out)
    assert (shown["family"], shown["prompt"], shown["error"]["code"]) == ("quokka", None, "usage")


def test_a_system_message_without_a_place_is_merged_and_that_is_said(models: Models, tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(
        "{% for m in messages if m.role == 'user' %}<{{ m.content }}>{% endfor %}"
    )
    own = ("--template", str(tmp_path / "own.jinja"))
    ended = rendered(models, [SYSTEM, *SHORT], tmp_path, *own)
    assert ended.out.startswith("<You are a pirate.\n\nHello!>")
    assert "has no system message" in ended.err
    assert "system message" not in rendered(models, SHORT, tmp_path, *own).err


def test_tools_take_the_tokenizers_template_for_tools(models: Models, tmp_path: Path) -> None:
    folder = tmp_path / "quokka"
    folder.mkdir()
    several = [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": several}))
    (tmp_path / "talk.json").write_text(json.dumps({"messages": SHORT, "tools": TOOLS}))
    assert models("match", str(folder), "--render").out == "D"
    assert models("match", str(folder), "--render", str(tmp_path / "talk.json")).out == "T"
