"""What a family changes in a chat: template, stops, defaults, ways to generate, and what is refused."""

import json
from pathlib import Path

import pytest

from tests import tiny
from tests.conftest import Llmctl
from tests.server import Reply, ScriptedServer

ROW = """
[[family]]
id = "mine"
template = "{template}"
template_wins = true
match = {{ exact = ["demo"] }}
{more}
"""


def family(tmp_path: Path, template: str, more: str = "") -> tuple[str, str]:
    """The flag for a family of the user's that the demo belongs to."""
    path = tmp_path / "mine.toml"
    path.write_text(ROW.format(template=template, more=more))
    return "--adapter-file", str(path)


def prompt_tokens(ended_out: str) -> int:
    found: int = json.loads(ended_out)["usage"]["prompt_tokens"]
    return found


def test_a_row_that_wins_renders_the_prompt(llmctl: Llmctl, tmp_path: Path) -> None:
    own = llmctl("chat", "demo", "-p", "hi", "--json", "--max-new-tokens", "1")
    rows = llmctl(
        "chat", "demo", "-p", "hi", "--json", "--max-new-tokens", "1", *family(tmp_path, "vicuna_v1.1")
    )
    named = llmctl("chat", "demo", "-p", "hi", "--json", "--max-new-tokens", "1", "--template", "vicuna_v1.1")
    assert prompt_tokens(rows.out) == prompt_tokens(named.out) > prompt_tokens(own.out)


def test_a_rows_stop_strings_and_defaults_hold(llmctl: Llmctl, tmp_path: Path) -> None:
    more = '[family.stop]\nstrings = ["Paris"]\n[family.generation]\ntemperature = 0.0'
    flag = family(tmp_path, "tokenizer", more)
    ended = llmctl("chat", "demo", "-v", "-p", "What is the capital of France?", *flag)
    assert ended.out == "The capital of France is \n"
    assert "family mine" in ended.err


def test_a_row_of_the_users_folder_needs_no_flag(
    llmctl: Llmctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMCTL_CONFIG_HOME", str(tmp_path))
    (tmp_path / "adapters").mkdir()
    family(tmp_path / "adapters", "tokenizer", '[family.stop]\nstrings = ["Paris"]')
    assert llmctl("chat", "demo", "-p", "What is the capital of France?").out == "The capital of France is \n"


def test_damaged_files_are_told_once(llmctl: Llmctl, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    for name in (str(tmp_path), str(tmp_path / "bad.gguf")):
        (tmp_path / "bad.gguf").write_bytes(b"GGUF")
        ended = llmctl("chat", name, "-v", "-p", "hi")
        assert (ended.code, ended.err.count("\n")) == (7, 1), ended.err
        (tmp_path / "bad.gguf").unlink()


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_a_recommendation_out_of_range_is_told_once(llmctl: Llmctl, tmp_path: Path, kind: str) -> None:
    folder = tiny.folder(tmp_path / "model", kind)
    tiny.edit_json(folder / "generation_config.json", do_sample=True, temperature=-3)
    ended = llmctl("chat", str(folder), "-p", "hi", "--max-new-tokens", "1")
    assert ended.code == 0
    assert ended.err.count("temperature must be at least 0") == 1


def test_a_model_that_is_nowhere_is_told_once(llmctl: Llmctl, tmp_path: Path) -> None:
    ended = llmctl("chat", str(tmp_path / "nosuch"), "-v", "-p", "hi")
    assert (ended.code, ended.err.count("\n")) == (3, 1)


def test_a_broken_adapter_file_is_named(llmctl: Llmctl, tmp_path: Path) -> None:
    ended = llmctl("chat", "demo", "-p", "hi", *family(tmp_path, "nosuch"))
    assert ended.code == 7
    assert "mine.toml" in ended.err
    assert llmctl("chat", "demo", "-p", "hi", "--adapter-file", "nosuch.toml").code == 3


def test_a_class_in_fastchats_style_works_in_a_chat(llmctl: Llmctl, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from llmctl.adapters import BaseModelAdapter, get_conversation_template, register_model_adapter\n"
        "class Mine(BaseModelAdapter):\n"
        "    def match(self, model_path):\n"
        "        return model_path == 'demo'\n"
        "register_model_adapter(Mine)\n"
    )
    ended = llmctl("chat", "demo", "-v", "-p", "What is the capital of France?", "--adapter-file", str(path))
    assert (ended.code, ended.out) == (0, "The capital of France is Paris.\n")
    assert "Mine" in ended.err or "mine" in ended.err


def test_a_model_behind_an_api_is_refused_with_the_way_to_go(llmctl: Llmctl) -> None:
    ended = llmctl("chat", "gpt-4o", "-p", "hi")
    assert (ended.code, ended.out) == (2, "")
    assert "runs behind an API" in ended.err
    assert "--url" in ended.err


@pytest.mark.parametrize("flag", ["--enable-exllama", "--enable-xft"])
def test_engines_that_are_gone_are_refused_by_name(llmctl: Llmctl, flag: str) -> None:
    ended = llmctl("chat", "demo", "-p", "hi", flag)
    assert ended.code == 2
    assert ("ExLlama" in ended.err) or ("xFasterTransformer" in ended.err)


@pytest.mark.parametrize("flag", ["--thinking", "--no-thinking"])
def test_a_template_without_a_switch_for_reasoning_says_so(llmctl: Llmctl, flag: str) -> None:
    ended = llmctl("chat", "demo", "-p", "hi", flag)
    assert ended.code == 2
    assert "has no switch for reasoning" in ended.err


def test_the_switch_reaches_the_template(llmctl: Llmctl, tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text(
        "{% if enable_thinking is defined and not enable_thinking %}AAAAAAAAAAAA {% endif %}"
        "{{ messages[0].content }}"
    )
    plain, off = (
        llmctl("chat", "demo", "-p", "hi", "--json", "--template", str(tmp_path / "t.jinja"), *flags)
        for flags in ((), ("--no-thinking",))
    )
    assert prompt_tokens(off.out) > prompt_tokens(plain.out)


def test_the_switch_reaches_a_server(llmctl: Llmctl) -> None:
    with ScriptedServer() as server:
        llmctl("chat", "--url", server.url, "-p", "hi", "--no-thinking")
        assert server.asked[0].body["chat_template_kwargs"] == {"enable_thinking": False}
        llmctl("chat", "--url", server.url, "-p", "hi")
        assert "chat_template_kwargs" not in server.asked[1].body


def test_a_system_message_without_a_place_is_merged_and_told(llmctl: Llmctl, tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text(
        "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    )
    ended = llmctl(
        "chat", "demo", "-p", "hi", "-s", "You are a pirate.", "--template", str(tmp_path / "t.jinja")
    )
    assert ended.code == 0
    assert "system message" in ended.err


def test_a_class_loads_in_its_own_way(llmctl: Llmctl, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from llmctl.adapters import BaseModelAdapter, register_model_adapter\n"
        "class Mine(BaseModelAdapter):\n"
        "    def match(self, model_path):\n"
        "        return model_path == 'demo'\n"
        "    def load_model(self, model_path, from_pretrained_kwargs):\n"
        "        print('loading my own way')\n"
        "        return super().load_model(model_path, from_pretrained_kwargs)\n"
        "register_model_adapter(Mine)\n"
    )
    ended = llmctl("chat", "demo", "-p", "What is the capital of France?", "--adapter-file", str(path))
    assert (ended.code, ended.out) == (0, "The capital of France is Paris.\n")
    assert "loading my own way" in ended.err
    path.write_text(path.read_text().replace("print('loading my own way')", "raise SystemExit(3)"))
    failed = llmctl("chat", "demo", "-p", "hi", "--adapter-file", str(path))
    assert (failed.code, failed.out) == (7, "")
    assert "load_model" in failed.err
    assert "SystemExit" in failed.err


def test_a_note_on_the_rows_template_is_told(llmctl: Llmctl, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        '[[family]]\nid = "mine"\ntemplate = "vicuna_v1.1"\ntemplate_wins = true\nnote = "Mind the gap"\n'
        'match = { exact = ["demo"] }\n'
    )
    ended = llmctl("chat", "demo", "-p", "hi", "--max-new-tokens", "1", "--adapter-file", str(path))
    assert "demo, as mine: Mind the gap" in ended.err


def test_a_repository_is_not_taken_for_a_service_of_its_name(llmctl: Llmctl) -> None:
    # No hub is there in the tests: what matters is that it is asked.
    assert llmctl("chat", "xai-org/grok-2", "-p", "hi").code == 5


def test_what_was_not_given_is_not_told_as_given(llmctl: Llmctl) -> None:
    ended = llmctl("chat", "demo", "-v", "-p", "hi", "--top-k", "3")
    assert "sampling: temperature 0.0, top_k 3, the rest neutral" in ended.err
    assert "template: the tokenizer's own chat template" in ended.err


def test_the_switch_goes_with_every_way_to_ask(llmctl: Llmctl) -> None:
    with ScriptedServer() as server:
        line = b'{"prompt": "hi"}\n'
        llmctl("chat", "--url", server.url, "--style", "programmatic", "--thinking", stdin=line)
        assert server.asked[0].body["chat_template_kwargs"] == {"enable_thinking": True}
    ended = llmctl("chat", "demo", "--raw", "-p", "hi", "--no-thinking")
    assert ended.code == 2
    assert "--raw uses no template" in ended.err


def test_hidden_reasoning_is_hidden_in_json_too(llmctl: Llmctl) -> None:
    with ScriptedServer(by_message={"hi": Reply(reasoning=["why"], pieces=["yes"])}) as server:
        told = json.loads(llmctl("chat", "--url", server.url, "-p", "hi", "--json").out)
        hidden = json.loads(llmctl("chat", "--url", server.url, "-p", "hi", "--json", "--hide-reasoning").out)
    assert (told["text"], told["reasoning"]) == ("yes", "why")
    assert (hidden["text"], "reasoning" in hidden) == ("yes", False)


def test_an_adapter_file_is_run_once(llmctl: Llmctl, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from llmctl.adapters import BaseModelAdapter, register_model_adapter\n"
        "print('run')\n"
        "class Other(BaseModelAdapter):\n"
        "    def match(self, model_path):\n"
        "        return False\n"
        "register_model_adapter(Other)\n"
    )
    ended = llmctl("chat", "demo", "-p", "hi", "--adapter-file", str(path))
    assert ended.err.count("run") == 1


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--max-new-tokens", "3"), "max_new_tokens 3"),
        (("--context", "24"), "the context is full"),
    ],
)
def test_an_answer_that_is_cut_off_says_why(llmctl: Llmctl, flags: tuple[str, ...], why: str) -> None:
    ended = llmctl("chat", "demo", "-p", "Tell me a story.", *flags)
    assert ended.err.endswith(f"(the answer is cut off: {why})\n")
