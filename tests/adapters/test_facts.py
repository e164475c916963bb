import json
from pathlib import Path
from typing import Any

import pytest

from llmctl.adapters import facts as facts_module
from llmctl.adapters.facts import ABSENT, Facts, local_folder, read_facts
from llmctl.core.errors import BadFileError


def write(folder: Path, **files: Any) -> Path:
    """A folder with these files: `config={...}` is `config.json`."""
    folder.mkdir(exist_ok=True)
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return folder


def test_an_empty_folder_tells_nothing(tmp_path: Path) -> None:
    assert read_facts(tmp_path) == Facts()


def test_the_files_of_a_tokenizer_are_read_together(tmp_path: Path) -> None:
    write(
        tmp_path,
        config={"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]},
        generation_config={"temperature": 0.7},
        tokenizer_config={
            "eos_token": {"content": "<|im_end|>", "special": True},
            "bos_token": None,
            "additional_special_tokens": ["<|box|>", {"content": "<|ref|>"}],
            "extra_special_tokens": {"image_token": "<img>"},
            "chat_template": "{{ messages }}",
        },
        special_tokens_map={"unk_token": "<unk>", "eos_token": "</s>"},
        added_tokens={"<tool>": 5},
        tokenizer={"version": "1.0", "added_tokens": [{"id": 1, "content": "<|im_start|>"}], "model": {}},
    )
    facts = read_facts(tmp_path)
    assert facts.tokens == {
        "<|im_end|>", "<|box|>", "<|ref|>", "<img>", "<unk>", "<tool>", "<|im_start|>",
    }  # fmt: skip
    assert facts.special_tokens == {"eos_token": "<|im_end|>", "unk_token": "<unk>", "image_token": "<img>"}
    assert (facts.model_type, facts.architectures) == ("qwen2", ("Qwen2ForCausalLM",))
    assert (facts.chat_template, facts.generation_config) == ("{{ messages }}", {"temperature": 0.7})


def test_the_decoder_of_added_tokens_spares_the_vocabulary(tmp_path: Path) -> None:
    write(tmp_path, tokenizer_config={"added_tokens_decoder": {"7": {"content": "<|im_start|>"}}})
    (tmp_path / "tokenizer.json").write_text("not read at all")
    assert read_facts(tmp_path).tokens == {"<|im_start|>"}


@pytest.mark.parametrize("name", ["qwen2.5", "mistral-v3", "smollm2", "gpt2"])
def test_real_tokenizers_tell_what_transformers_reads_of_them(shared: Path, name: str) -> None:
    from transformers import AutoTokenizer

    folder = shared / "assets" / "tokenizers" / name
    tokenizer, facts = AutoTokenizer.from_pretrained(folder), read_facts(folder)
    assert facts.chat_template == tokenizer.chat_template
    assert facts.tokens >= {str(token) for token in tokenizer.added_tokens_decoder.values()}
    told = {key: value for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    assert facts.special_tokens.items() >= told.items()


def test_a_template_file_goes_before_the_configuration(tmp_path: Path) -> None:
    write(tmp_path, tokenizer_config={"chat_template": "old"}, chat_template={"chat_template": "older"})
    (tmp_path / "chat_template.jinja").write_text("new")
    assert read_facts(tmp_path).chat_template == "new"
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("tools")
    facts = read_facts(tmp_path)
    assert facts.chat_template == {"default": "new", "tool_use": "tools"}
    assert "tools" in facts.template_text


def test_templates_may_stand_in_a_list_or_in_a_processors_file(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "a"}, {"name": "rag", "template": "b"}, "junk", {"name": 3}]
    write(tmp_path, tokenizer_config={"chat_template": named})
    assert read_facts(tmp_path).chat_template == {"default": "a", "rag": "b"}
    write(tmp_path, tokenizer_config={}, chat_template={"chat_template": "of the processor"})
    assert read_facts(tmp_path).chat_template == "of the processor"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b"\xff\xfe\xff"),
        ("config.json", b"[" * 100_000),
        ("tokenizer_config.json", b"null"),
        ("tokenizer.json", b'{"added_tokens": [{"content": "<a'),
        ("generation_config.json", b""),
        ("adapter_config.json", b"1"),
        ("chat_template.jinja", b"\xff"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadFileError) as caught:
        read_facts(tmp_path)
    assert str(tmp_path / name) in caught.value.message


def test_a_file_that_is_far_too_big_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, config={"model_type": "llama"})
    monkeypatch.setattr(facts_module, "MAX_FILE_BYTES", 10)
    with pytest.raises(BadFileError, match=r"config\.json has \d+ bytes; at most 10 are read"):
        read_facts(tmp_path)


def test_an_adapter_brings_its_base_and_its_bases_facts(tmp_path: Path) -> None:
    base = write(tmp_path / "base", config={"model_type": "llama"})
    adapter = write(tmp_path / "lora", adapter_config={"base_model_name_or_path": str(base)})
    facts = read_facts(adapter)
    assert (facts.is_peft, facts.peft_base) == (True, str(base))
    assert facts.base is not None
    assert facts.base.model_type == "llama"


def test_a_base_that_is_no_path_is_found_by_whoever_knows(tmp_path: Path) -> None:
    base = write(tmp_path / "base", config={"model_type": "llama"})
    adapter = write(tmp_path / "lora", adapter_config={"base_model_name_or_path": "org/name"})
    assert read_facts(adapter).base is None
    found = read_facts(adapter, find_base={"org/name": base}.get)
    assert found.base is not None
    assert found.base.model_type == "llama"


@pytest.mark.parametrize("value", [None, "", 3, ["a"]])
def test_an_adapter_may_name_no_base(tmp_path: Path, value: Any) -> None:
    facts = read_facts(write(tmp_path / "lora", adapter_config={"base_model_name_or_path": value}))
    assert (facts.is_peft, facts.peft_base, facts.base) == (True, None, None)


def test_adapters_that_go_in_a_circle_are_an_error(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    write(one, adapter_config={"base_model_name_or_path": str(other)})
    write(other, adapter_config={"base_model_name_or_path": str(one)})
    with pytest.raises(BadFileError, match="adapters upon adapters"):
        read_facts(one)


@pytest.mark.parametrize(
    ("config", "key", "value"),
    [
        ({"a": {"b": 1}}, "a.b", 1),
        ({"a": 1}, "a.b", ABSENT),
        ({}, "a", ABSENT),
        ({"a": None}, "a", None),
        ({"rope_theta": 5.0}, "rope_theta", 5.0),
        ({"rope_parameters": {"rope_theta": 5.0}}, "rope_theta", 5.0),
        ({"rope_parameters": {"rope_type": "llama3"}}, "rope_scaling.rope_type", "llama3"),
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling.rope_type", "yarn"),
        ({"rope_scaling": None}, "rope_scaling.rope_type", ABSENT),
    ],
)
def test_a_dotted_key_goes_down(config: dict[str, Any], key: str, value: object) -> None:
    assert Facts(config=config).value(key) is value or Facts(config=config).value(key) == value


@pytest.mark.parametrize("name", ["", " ", "no/such", "a\0b", "x" * 100_000, "~nobody-at-all/x", "\ud800"])
def test_a_name_that_is_no_folder_is_none(name: str) -> None:
    assert local_folder(name) is None
