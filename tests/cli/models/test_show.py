"""`llmctl models show`: the facts, the verdict, and what a user may ask."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmctl.core.errors import UsageError
from llmctl.core.sizes import parse_size, shown, shown_count
from tests import tiny
from tests.cli.models.conftest import Models
from tests.cli.test_help import modules_after
from tests.loading.headers import LLAMA_8B, llama_8b, write_model
from tests.lora.made import queries
from tests.lora.made import write as write_adapter

GIB = 1024**3


@pytest.fixture
def llama(tmp_path: Path) -> str:
    return str(llama_8b(tmp_path / "quokka-8b"))


def facts(models: Models, *args: str, code: int = 0) -> dict[str, Any]:
    ended = models("show", "--json", "--device", "cuda", *args)
    assert ended.code == code
    found: dict[str, Any] = json.loads(ended.out)
    return found


def test_the_facts_are_those_of_config_and_headers(models: Models, llama: str) -> None:
    (Path(llama) / "LICENSE").write_text("MIT License")
    found = facts(models, llama, "--memory", "24GiB")
    fit = found.pop("fit")
    assert found == {
        "name": llama,
        "folder": llama,
        "family": "quokka",
        "kind": "decoder",
        "template": "vicuna_v1.1",
        "template_source": "row",
        "architecture": "LlamaForCausalLM",
        "model_type": "llama",
        "parameters": 8_030_261_248,
        "bytes": 16_060_522_496,
        "bytes_by_dtype": {"BF16": 16_060_522_496},
        "quantisation": None,
        "layers": 32,
        "hidden_size": 4096,
        "heads": 32,
        "kv_heads": 8,
        "head_size": 128,
        "experts": None,
        "active_experts": None,
        "vocabulary": 128256,
        "context": 131072,
        "licence": "mit",
        "adapter": None,
    }
    assert (fit["fits"], fit["device"], fit["dtype"], fit["context"]) == (True, "cuda", "bfloat16", 4096)
    assert fit["cache_bytes_per_1k_tokens"] == 128 * 1024 * 1024
    assert fit["needed_bytes"] == fit["weight_bytes"] + fit["cache_bytes"] + fit["overhead_bytes"]
    assert (fit["free_bytes"], fit["remedies"]) == (24 * GIB, [])


def test_an_adapter_is_its_base_and_told_as_an_adapter(models: Models, tmp_path: Path) -> None:
    base = str(tiny.folder(tmp_path / "base"))
    folder = str(write_adapter(tmp_path / "ad", queries(), base_model_name_or_path=base))
    assert f"  adapter       LoRA of rank 4 upon {base}" in models("show", folder).out.splitlines()
    assert facts(models, folder, "--memory", "24GiB")["adapter"] == {
        "folder": folder,
        "base": base,
        "rank": 4,
    }


def test_what_does_not_fit_is_told_with_what_would(models: Models, llama: str) -> None:
    ended = models("show", llama, "--device", "cuda", "--memory", "12GiB")
    assert ended.code == 6
    assert "together      15.7 GiB of 12.0 GiB: does not fit" in ended.out
    assert ended.err.count("\n") == 1
    assert (
        "takes about 15.7 GiB (bfloat16), cuda has 12.0 GiB (--load-8bit takes 8.3 GiB and fits" in ended.err
    )
    found = facts(models, llama, "--memory", "12GiB", code=6)
    assert [sentence.partition(" takes")[0] for sentence in found["fit"]["remedies"]] == [
        "--load-8bit",
        "--load-4bit",
    ]


@pytest.mark.parametrize("args", [("--quant", "int8"), ("--quant", "int4", "--context", "16384")])
def test_what_it_proposes_fits(models: Models, llama: str, args: tuple[str, ...]) -> None:
    assert facts(models, llama, "--memory", "12GiB", *args)["fit"]["fits"] is True


def test_where_nothing_helps_a_smaller_model_does(models: Models, llama: str) -> None:
    assert "take a smaller model" in models("show", llama, "--memory", "1GiB").err


def test_people_read_facts_and_verdict(models: Models, llama: str) -> None:
    ended = models("show", llama, "--device", "cuda", "--memory", "24GiB", "--quant", "int4")
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    assert (ended.code, ended.err) == (0, "")
    for line in (
        "family quokka (decoder)",
        "parameters 8.0 B (8,030,261,248)",
        "heads 32 of 128, 8 for keys and values",
        "quantised no",
        "licence none named",
        "cache 512.0 MiB for 4096 tokens, 128.0 MiB for each 1024",
        "device cuda (not here), 24.0 GiB free",
    ):
        assert line in lines
    assert any(line.startswith("weights 4.6 GiB in bfloat16, quantised to int4") for line in lines)
    assert "experts" not in ended.out


def test_the_demo_fits_here(models: Models) -> None:
    found = json.loads(models("show", "demo", "--json").out)
    assert (found["name"], found["licence"], found["fit"]["fits"]) == ("demo", "apache-2.0", True)
    assert found["template"] == "tokenizer"


def test_a_family_without_a_cache_is_not_charged_for_one(models: Models, tmp_path: Path) -> None:
    write_model(tmp_path / "bilby", {**LLAMA_8B, "bilby": True}, {"a.weight": ("F32", (8, 8))})
    with_cache = facts(models, str(tmp_path / "bilby"), "--memory", "9GiB")
    rows = tmp_path / "rows.toml"
    rows.write_text(rows.read_text().replace("template_wins = true", 'kind = "reranker"\ngenerates = "none"'))
    without = facts(models, str(tmp_path / "bilby"), "--memory", "9GiB")
    assert (with_cache["fit"]["cache_bytes"], without["fit"]["cache_bytes"]) == (GIB, 0)


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("no/such-model",), 3, "llmctl models pull MODEL"),
        (("./no-such",), 3, "'./no-such' is not on this machine"),
        (("{file}",), 7, "is a file"),
        (("/dev/zero",), 7, "/dev/zero is a device or pipe"),
        (("{empty}:Q4_0",), 3, "has no GGUF file 'Q4_0'"),
        (("{empty}",), 7, "is empty"),
        (("demo", "--memory", "16"), 2, "--memory must be a size such as 16GiB or 24GB, not '16'"),
        (("demo", "--memory", "0GiB"), 2, "'0GiB'"),
        (("demo", "--quant", "int3"), 2, "quantization must be one of none, int8"),
        (("demo", "--context", "99999"), 2, "1024 tokens"),
        (("demo", "--context", "0"), 2, "0"),
        (("demo", "--device", "abacus"), 2, "abacus"),
        (("demo", "--device", "xpu"), 2, "'xpu' cannot be used here"),
        (("demo", "--dtype", "int8"), 2, "dtype"),
    ],
)
def test_a_mistake_is_one_line(
    models: Models, tmp_path: Path, args: tuple[str, ...], code: int, said: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    ended = models("show", *(arg.format(file=tmp_path / "file", empty=tmp_path / "empty") for arg in args))
    assert (ended.code, ended.out, ended.err.count("\n")) == (code, "", 1)
    assert said in ended.err


def test_it_imports_nothing_slow() -> None:
    modules = modules_after("models", "show", "demo")
    assert "llmctl.loading.planning.fit" in modules
    assert modules & {"torch", "transformers", "numpy", "asyncio", "jinja2", "huggingface_hub"} == set()


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("16GiB", 16 * GIB),
        ("16 gib", 16 * GIB),
        ("16G", 16 * GIB),
        ("24GB", 24 * 10**9),
        ("512MiB", 512 * 1024**2),
        ("1.5TiB", 1536 * GIB),
        ("80000kB", 80_000_000),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, num_bytes: int) -> None:
    assert parse_size(text, flag="--memory") == num_bytes


@pytest.mark.parametrize(
    "text", ["", "16", "GiB", "-1GiB", "1e9GB", "16QiB", "1,5GiB", "nanGB", f"{'9' * 40}TB"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_size(text, flag="--memory")
    assert repr(text) in caught.value.message


@pytest.mark.parametrize(
    ("num_bytes", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (15 * GIB, "15.0 GiB")]
)  # fmt: skip
def test_sizes_are_shown_in_their_largest_unit(num_bytes: int, text: str) -> None:
    assert shown(num_bytes) == text


@pytest.mark.parametrize(
    ("count", "text"), [(12, "12"), (2_295_552, "2.3 M"), (135 * 10**6, "135 M"), (8 * 10**9, "8.0 B")]
)
def test_parameters_are_counted_as_models_are_called(count: int, text: str) -> None:
    assert shown_count(count) == text
    words = {"K": "thousand", "M": "million", "B": "billion"}
    assert shown_count(count, in_words=True) == " ".join(words.get(part, part) for part in text.split())
