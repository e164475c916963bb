"""`llmctl lora merge` and `extract` by the command line, and an adapter's folder as MODEL elsewhere."""

import json
from pathlib import Path

import pytest

from tests import tiny
from tests.conftest import Llmctl
from tests.lora.made import queries, write


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    base = tiny.folder(tmp_path / "base")
    return write(
        tmp_path / "adapter", queries(), base_model_name_or_path=str(base), target_modules=["q_proj"]
    )


def test_merging_tells_what_it_did(adapter: Path, llmctl: Llmctl) -> None:
    out = adapter.parent / "out"
    ended = llmctl("lora", "merge", "--adapter", str(adapter), "--out", str(out))
    assert (ended.code, ended.err) == (0, "")
    assert "2 of 21 tensors of base changed" in ended.out
    assert "tokenizer.json" in ended.out
    again = llmctl("lora", "merge", "--adapter", str(adapter), "--out", str(out), "--json")
    assert again.code == 2
    assert "--overwrite" in json.loads(again.err)["error"]["hint"]


def test_json_holds_what_the_lines_say(adapter: Path, llmctl: Llmctl) -> None:
    base, out = adapter.parent / "base", adapter.parent / "out"
    flags = ("--base", str(base), "--adapter", str(adapter), "--out", str(out), "--dry-run", "--json")
    told = json.loads(llmctl("lora", "merge", *flags).out)
    assert (told["dry_run"], len(told["changed"]), told["tensors"]) == (True, 2, 21)
    assert not out.exists()


def test_merged_and_extracted_again_is_the_adapter(adapter: Path, llmctl: Llmctl) -> None:
    base, out, again = (str(adapter.parent / name) for name in ("base", "out", "again"))
    assert llmctl("lora", "merge", "--adapter", str(adapter), "--out", out).code == 0
    flags = ("--base", base, "--target", out, "--out", again, "--rank", "4")
    ended = llmctl("lora", "extract", *flags)
    assert ended.code == 0
    assert "model.layers.0.self_attn.q_proj  0.000" in ended.out
    told = json.loads(llmctl("lora", "extract", *flags, "--overwrite", "--json").out)
    assert len(told["low_rank"]) == 2
    assert max(told["residuals"].values()) < 1e-4


@pytest.mark.parametrize("flags", [[], ["--load-8bit"]])
def test_chat_talks_with_base_and_adapter(flags: list[str], adapter: Path, llmctl: Llmctl) -> None:
    out = str(adapter.parent / "out")
    assert llmctl("lora", "merge", "--adapter", str(adapter), "--out", out).code == 0
    said = [
        llmctl(
            "chat",
            model,
            "-p",
            "hi",
            "--temperature",
            "0",
            "--max-new-tokens",
            "12",
            "--dtype",
            "float32",
            *flags,
        )
        for model in (str(adapter), out)
    ]
    assert said[0].code == said[1].code == 0
    assert said[0].out == said[1].out != ""


def test_show_says_what_the_base_is(adapter: Path, llmctl: Llmctl) -> None:
    told = json.loads(llmctl("models", "show", str(adapter), "--json").out)
    assert (told["name"], told["folder"]) == (str(adapter), str(adapter.parent / "base"))
    assert told["architecture"] == "LlamaForCausalLM"


def test_a_field_that_is_not_honoured_is_one_line(adapter: Path, llmctl: Llmctl) -> None:
    tiny.edit_json(adapter / "adapter_config.json", use_qalora=True)
    for command in (
        ("lora", "merge", "--adapter", str(adapter), "--out", "x"),
        ("chat", str(adapter), "-p", "hi"),
    ):
        ended = llmctl(*command)
        assert ended.code == 7
        assert "use_qalora" in ended.err


def test_an_adapter_that_holds_little_is_told(tmp_path: Path, llmctl: Llmctl) -> None:
    flags = ("--base", "demo-base", "--target", "demo", "--out", str(tmp_path / "ad"), "--rank", "2")
    ended = llmctl("lora", "extract", *flags)
    assert ended.code == 0
    assert "the adapter holds little of the difference; a higher --rank holds more" in ended.err
    assert "mean residual" not in llmctl("lora", "extract", *flags, "--overwrite", "--dry-run").err
