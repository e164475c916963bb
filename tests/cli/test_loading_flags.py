"""The flags of loading: how they are read, which go together, and that each reaches the plan."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmctl.cli import loading_flags
from llmctl.cli.loading_flags import LoadingFlags
from llmctl.core import settings
from llmctl.core.errors import UsageError
from llmctl.core.settings import Settings
from tests.conftest import Llmctl
from tests.loading.headers import LLAMA_8B, llama_8b, write_model

GIB = 1024**3


def test_flags_and_settings_become_one_request() -> None:
    flags = loading_flags.read(
        {
            "load_4bit": True,
            "num_gpus": 2,
            "gpus": "0, 2",
            "max_gpu_memory": "13Gib",
            "cpu_offloading": True,
            "quant_config": ["bits=4", "desc_act=true", "checkpoint_format=gptq_v2", "group_size=-1"],
        }
    )
    request = flags.request(Settings(device="cuda", dtype="float16"))
    assert (request.device, request.dtype, request.num_gpus, request.gpus) == ("cuda", "float16", 2, (0, 2))
    assert (request.max_gpu_memory, request.quantization, request.cpu_offloading) == (13 * GIB, "4bit", True)
    assert flags.formats == {
        "bits": 4,
        "desc_act": True,
        "checkpoint_format": "gptq_v2",
        "group_size": -1,
    }


def test_nothing_is_asked_for_where_nothing_is_given() -> None:
    assert loading_flags.read({}) == LoadingFlags()
    assert LoadingFlags().given == []


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"load_8bit": True, "load_4bit": True}, "--load-8bit and --load-4bit do not go together"),
        ({"num_gpus": 0}, "--num-gpus must be between 1 and 1024, not 0"),
        ({"gpus": "0,a"}, "--gpus must be numbers of GPUs such as 0,2, not '0,a'"),
        ({"gpus": ""}, "--gpus must be numbers"),
        ({"gpus": "-1"}, "--gpus must be numbers"),
        ({"gpus": "²"}, "--gpus must be numbers"),
        ({"max_gpu_memory": "20"}, "--max-gpu-memory must be a size such as 16GiB or 24GB, not '20'"),
        ({"quant_config": ["bits"]}, "--quant-config must be KEY=VALUE such as bits=4, not 'bits'"),
        ({"quant_config": ["bits="]}, "--quant-config must be KEY=VALUE"),
        ({"quant_config": ["bit=4"]}, "--quant-config: no key is called 'bit'"),
        ({"quant_config": ["bits=4", "bits=8"]}, "--quant-config gives bits twice"),
    ],
)
def test_a_value_that_cannot_be_read_is_named(params: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        loading_flags.read(params)
    assert caught.value.message.startswith(said)


def test_a_flag_goes_before_a_setting_and_contradicts_a_flag() -> None:
    environ = {"LLMCTL_QUANTIZATION": "int8"}
    eight, four = LoadingFlags(), LoadingFlags(bits=4)
    found = settings.load(environ)
    assert (eight.request(found).quantization, four.request(found).quantization) == ("int8", "4bit")
    with pytest.raises(UsageError, match="--load-4bit and --quantization int8 do not go together"):
        four.request(found.with_flags({"quantization": "int8"}))


def test_a_wrong_name_says_where_it_stands() -> None:
    found = settings.load({"LLMCTL_QUANTIZATION": "int3"})
    with pytest.raises(UsageError, match="LLMCTL_QUANTIZATION: quantization must be one of none, int8"):
        LoadingFlags().request(found)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--load-8bit", "--load-4bit"), "do not go together"),
        (("--load-8bit", "--quantization", "nf4"), "--load-8bit and --quantization nf4 do not go together"),
        (("--quantization", "exllama"), "llmctl reads GPTQ files itself"),
        (("--quantization", "xft"), "--load-8bit"),
        (("--num-gpus", "2"), "--num-gpus 2 is for cuda"),
        (("--gpus", "0"), "--gpus 0 is for cuda"),
        (("--max-gpu-memory", "8GiB"), "--max-gpu-memory is for cuda"),
        (("--load-8bit", "--cpu-offloading"), "--cpu-offloading is for cuda"),
        (("--quantization", "gptq"), "does not agree with demo: it is not quantised"),
        (("--device", "npu"), "torch_npu"),
    ],
)
def test_chat_refuses_what_cannot_be_in_one_line(llmctl: Llmctl, args: tuple[str, ...], said: str) -> None:
    ended = llmctl("chat", "demo", "-p", "hello", "--device", "cpu", *args)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert said in ended.err


@pytest.mark.parametrize(
    "args",
    [
        ("--load-8bit",),
        ("--load-4bit",),
        ("--quantization", "int8"),
        ("--num-gpus", "2"),
        ("--gpus", "0"),
        ("--max-gpu-memory", "8GiB"),
        ("--cpu-offloading",),
        ("--quant-config", "bits=4"),
    ],
)
def test_a_server_decides_by_itself_how_it_loads(llmctl: Llmctl, args: tuple[str, ...]) -> None:
    ended = llmctl("chat", "-p", "hello", "--url", "http://127.0.0.1:9", *args)
    assert (ended.code, ended.out) == (2, "")
    assert f"{args[0]} is for a model in this process" in ended.err


@pytest.mark.parametrize("flag", ["--load-8bit", "--load-4bit"])
def test_the_demo_answers_in_few_bits_and_says_which(llmctl: Llmctl, flag: str) -> None:
    ended = llmctl("chat", "demo", "-v", "-p", "What is the capital of France?", "--temperature", "0", flag)
    assert ended.code == 0
    assert "Paris" in ended.out
    assert f": {flag}" in ended.err


@pytest.fixture
def llama(tmp_path: Path) -> str:
    return str(llama_8b(tmp_path / "llama-8b"))


def shown(llmctl: Llmctl, *args: str) -> dict[str, Any]:
    ended = llmctl("models", "show", "--plan", "--json", *args)
    assert (ended.code, ended.err) == (0, "")
    found: dict[str, Any] = json.loads(ended.out)
    return found


def test_a_plan_is_shown_for_a_machine_that_is_not_here(llmctl: Llmctl, llama: str) -> None:
    found = shown(llmctl, llama, "--device", "cuda", "--memory", "12GiB", "--num-gpus", "2")["plan"]
    assert (found["device"], found["dtype"], found["device_map"]) == ("cuda:0", "bfloat16", "sequential")
    assert list(found["max_memory"]) == ["0", "1"]
    assert list(found["bytes_by_device"]) == ["cuda:0", "cuda:1"]
    assert sum(found["bytes_by_device"].values()) == found["bytes"]
    assert found["quantisation"] is None


def test_a_plan_in_few_bits_says_which_module_is_packed_how(llmctl: Llmctl, llama: str) -> None:
    found = shown(llmctl, llama, "--device", "cuda", "--memory", "9GiB", "--load-4bit")["plan"]
    assert found["quantisation"] == {"layers": "nf4", "output": "int8", "tokens": "int8"}
    assert any("bitsandbytes" in reason for reason in found["reasons"])


def test_people_read_a_plan_as_rows(llmctl: Llmctl, tmp_path: Path) -> None:
    told = {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}
    tensors = {"model.layers.0.up.qweight": ("I32", (512, 4096)), "model.norm.weight": ("F16", (4096,))}
    folder = write_model(tmp_path / "packed", {**LLAMA_8B, **told}, tensors)
    ended = llmctl("models", "show", "--plan", str(folder), "--device", "cpu", "--memory", "16GiB")
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    assert (ended.code, ended.err) == (0, "")
    for line in ("files GPTQ, 4 bits, groups of 128", "layers as stored", "attention sdpa"):
        assert line in lines
    assert "reason quantisation: the checkpoint's own (GPTQ, 4 bits, groups of 128)" in lines


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("--num-gpus", "2"), 2, "--num-gpus is for the plan (add --plan)"),
        (("--cpu-offloading",), 2, "--cpu-offloading is for the plan"),
        (("--plan", "--context", "9"), 2, "--context does not go with --plan"),
        (("--plan", "--device", "cpu", "--num-gpus", "2"), 2, "--num-gpus 2 is for cuda"),
        (("--plan", "--quantization", "awq"), 2, "is not quantised"),
        (("--plan", "--memory", "4GiB", "--device", "cuda"), 6, "takes about"),
    ],
)
def test_show_refuses_in_one_line(
    llmctl: Llmctl, llama: str, args: tuple[str, ...], code: int, said: str
) -> None:
    ended = llmctl("models", "show", llama, *args)
    assert (ended.code, ended.out, ended.err.count("\n")) == (code, "", 1)
    assert said in ended.err


def test_show_judges_by_the_same_flags(llmctl: Llmctl, llama: str) -> None:
    args = ("models", "show", llama, "--json", "--device", "cuda", "--memory", "24GiB")
    by_flag, by_name = (llmctl(*args, *way) for way in (("--load-8bit",), ("--quant", "int8")))
    fit = json.loads(by_flag.out)["fit"]
    assert (by_flag.code, fit["quant"]) == (0, "int8")
    assert fit["weight_bytes"] == json.loads(by_name.out)["fit"]["weight_bytes"]
