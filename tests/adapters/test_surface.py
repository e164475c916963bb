"""What users of FastChat's module import, used as they use it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llmctl.adapters
from llmctl.adapters import (
    BaseModelAdapter,
    get_conv_template,
    get_conversation_template,
    get_model_adapter,
    register_model_adapter,
    surface,
)
from llmctl.adapters.base import FamilyAdapter, adapter_of, template_name
from llmctl.adapters.match import TieError
from llmctl.adapters.registered import REGISTERED
from llmctl.adapters.spec import read_rows
from llmctl.core.errors import NotFoundError, UsageError
from llmctl.demo import MODELS
from tests.adapters.rows import row


@pytest.fixture(autouse=True)
def _no_class_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(REGISTERED, "_families", {})
    surface._registry.cache_clear()
    yield
    surface._registry.cache_clear()


class OurVicunaAdapter(BaseModelAdapter):
    """As somebody would have written it for FastChat."""

    use_fast_tokenizer = False

    def match(self, model_path: str) -> bool:
        return "vicuna" in model_path.lower()

    def load_model(self, model_path: str, from_pretrained_kwargs: Any) -> tuple[Any, Any]:
        return f"model of {model_path}", from_pretrained_kwargs["revision"]

    def get_default_conv_template(self, model_path: str) -> Any:
        return get_conversation_template("Qwen/Qwen-7B-Chat")


def test_the_names_are_there_and_no_others() -> None:
    assert sorted(llmctl.adapters.__all__) == [
        "BaseModelAdapter",
        "get_conv_template",
        "get_conversation_template",
        "get_model_adapter",
        "register_model_adapter",
    ]
    with pytest.raises(AttributeError, match="has no attribute 'get_generate_stream_function'"):
        llmctl.adapters.get_generate_stream_function  # noqa: B018


def test_importing_the_names_brings_no_torch() -> None:
    script = (
        "import sys; from llmctl.adapters import *; get_conversation_template('lmsys/vicuna-7b-v1.5')\n"
        "print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("set()\n", "")


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("lmsys/vicuna-7b-v1.5", "vicuna_v1.1"),
        ("HuggingFaceH4/zephyr-7b-beta", "zephyr"),
        ("THUDM/chatglm2-6b", "chatglm2"),
        ("meta-llama/Llama-2-7b-chat-hf", "llama-2"),
    ],
)
def test_a_conversation_renders_as_fastchats(shared: Path, name: str, template: str) -> None:
    oracle = json.loads((shared / "oracle" / "fastchat_oracle.json").read_text(encoding="utf-8"))
    expected = oracle["templates"][template]
    conversation = get_model_adapter(name).get_default_conv_template(name)
    for place, (_, text) in enumerate(oracle["meta"]["conversation"]):
        conversation.append_message(conversation.roles[place % 2], text)
    assert conversation.get_prompt() == expected["prompt_2turn"]
    assert list(conversation.roles) == expected["roles"]
    assert (conversation.stop_str, conversation.stop_token_ids) == (
        expected["stop_str"],
        expected["stop_token_ids"],
    )


def test_each_call_gives_a_conversation_of_its_own() -> None:
    one, other = (get_conversation_template("lmsys/vicuna-7b-v1.5") for _ in range(2))
    one.append_message(one.roles[0], "only here")
    assert "only here" in one.get_prompt()
    assert "only here" not in other.get_prompt()


def test_a_registered_class_goes_before_ours_at_once() -> None:
    name = "lmsys/vicuna-7b-v1.5"
    assert isinstance(get_model_adapter(name), FamilyAdapter)
    register_model_adapter(OurVicunaAdapter)
    adapter = get_model_adapter(name)
    assert isinstance(adapter, OurVicunaAdapter)
    assert adapter.load_model(name, {"revision": "main"}) == (f"model of {name}", "main")
    assert get_conversation_template(name).name == "qwen-7b-chat"
    assert isinstance(get_model_adapter("meta-llama/Llama-2-7b-chat-hf"), FamilyAdapter)


def test_a_class_that_is_registered_again_takes_its_own_place() -> None:
    register_model_adapter(OurVicunaAdapter)
    register_model_adapter(OurVicunaAdapter)
    assert isinstance(get_model_adapter("vicuna"), OurVicunaAdapter)


def test_two_classes_for_one_model_are_a_tie() -> None:
    class Other(OurVicunaAdapter):
        pass

    register_model_adapter(OurVicunaAdapter)
    register_model_adapter(Other)
    with pytest.raises(TieError, match=r"class.other \(.*\); class.our-vicuna \("):
        get_model_adapter("vicuna")


def test_a_class_of_no_base_of_ours_serves_as_well() -> None:
    class Plain:
        def match(self, model_path: str) -> bool:
            return model_path == "org/plain"

        def load_model(self, model_path: str, from_pretrained_kwargs: Any) -> tuple[Any, Any]:
            raise NotImplementedError

        def get_default_conv_template(self, model_path: str) -> Any:
            return "zephyr"

    register_model_adapter(Plain)
    assert isinstance(get_model_adapter("org/plain"), Plain)
    assert template_name(Plain(), "org/plain") == "zephyr"


def test_a_class_without_a_template_leaves_it_to_the_tokenizer() -> None:
    assert template_name(BaseModelAdapter(), "x") is None
    with pytest.raises(UsageError, match="names no conversation template"):
        BaseModelAdapter().get_default_conv_template("x")
    assert BaseModelAdapter().match("x") is False


def test_a_class_must_name_its_template() -> None:
    class Wrong(OurVicunaAdapter):
        def get_default_conv_template(self, model_path: str) -> Any:
            return 3

    with pytest.raises(UsageError, match="must return a conversation with a name, not int"):
        template_name(Wrong(), "x")


def test_an_unknown_name_is_not_guessed() -> None:
    with pytest.raises(NotFoundError, match=r"no family fits 'lmsys/vicunna-7b-v1\.5'") as caught:
        get_model_adapter("lmsys/vicunna-7b-v1.5")
    assert "did you mean lmsys/vicuna-7b-v1.5" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("template", "kind", "message"),
    [("tokenizer", "decoder", "lives in its tokenizer"), ("none", "embedding", "is no chat model")],
)
def test_a_family_without_a_named_template_says_so(template: str, kind: str, message: str) -> None:
    text = f'[[family]]\nid = "a"\ntemplate = "{template}"\nkind = "{kind}"\nmatch = {{ names = ["a"] }}'
    (family,) = read_rows(text, where="x.toml")
    with pytest.raises(UsageError, match=message):
        FamilyAdapter(family).get_default_conv_template("a")


def test_the_class_of_a_row_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Special(FamilyAdapter):
        pass

    monkeypatch.setattr(sys.modules[__name__], "Special", Special, raising=False)
    target = f"{__name__}:Special"
    text = f'[[family]]\nid = "a"\ntemplate = "none"\nmatch = {{ names = ["a"] }}\ncode.class = "{target}"'
    (family,) = read_rows(text, where="x.toml")
    adapter = adapter_of(family)
    assert isinstance(adapter, Special)
    assert adapter.family is family
    assert type(adapter_of(row("b", "b"))) is FamilyAdapter


def test_a_model_is_loaded_as_chat_loads_it() -> None:
    folder = str(MODELS["demo"])
    adapter = get_model_adapter(folder)
    model, tokenizer = adapter.load_model(
        folder, {"revision": "main", "torch_dtype": "float32", "low_cpu_mem_usage": True, "device_map": "cpu"}
    )
    assert type(model).__name__ == "LlamaForCausalLM"
    assert not model.training
    assert tokenizer("Hello")["input_ids"]


def test_what_loading_does_not_take_is_refused() -> None:
    with pytest.raises(UsageError, match="load_model does not take load_in_8bit, max_memory") as caught:
        BaseModelAdapter().load_model("x", {"max_memory": {}, "load_in_8bit": True})
    assert "it takes dtype" in str(caught.value.hint)


def test_a_family_of_the_network_has_nothing_to_load() -> None:
    text = '[[family]]\nid = "a"\ntitle = "A"\ntemplate = "none"\nkind = "api"\nmatch = { exact = ["a"] }'
    (family,) = read_rows(text, where="x.toml")
    with pytest.raises(UsageError, match="A is served by its makers"):
        FamilyAdapter(family).load_model("a", {})


def test_a_template_is_had_by_its_name_too() -> None:
    conversation = get_conv_template("vicuna_v1.1")
    conversation.append_message(conversation.roles[0], "Hello!")
    conversation.append_message(conversation.roles[1], None)
    assert conversation.get_prompt().endswith("USER: Hello! ASSISTANT:")
    with pytest.raises(NotFoundError):
        get_conv_template("nosuch")
