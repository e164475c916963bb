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
from llmctl.loading.planning.request import PlanRequest
from tests import tiny
from tests.conftest import Llmctl
from tests.loading.headers import LLAMA_8B, llama_8b, write_model
from tests.quant.formats import packers_gptq

GIB = 1024**3


def given(**flags: object) -> Settings:
    """The settings of a command line that has these flags."""
    return Settings().with_flags(flags)


def test_flags_and_settings_become_one_request() -> None:
    flags = loading_flags.read(
        {
            "load_4bit": True,
            "cpu_offloading": True,
            "quant_config": ["bits=4", "desc_act=true", "checkpoint_format=gptq_v2", "group_size=-1"],
        }
    )
    found = given(device="cuda", dtype="float16", num_gpus=2, gpus="0, 2", max_gpu_memory="13Gib")
    request = flags.request(found)
    assert (request.device, request.dtype, request.num_gpus, request.gpus) == ("cuda", "float16", 2, (0, 2))
    assert (request.max_gpu_memory, request.quantization, request.cpu_offloading) == (13 * GIB, "4bit", True)
    assert request.settings == {}
    assert flags.given(found)[1:4] == ["--num-gpus", "--gpus", "--max-gpu-memory"]
    assert flags.formats == {
        "bits": 4,
        "desc_act": True,
        "checkpoint_format": "gptq_v2",
        "group_size": -1,
    }


def test_nothing_is_asked_for_where_nothing_is_given() -> None:
    assert loading_flags.read({}) == LoadingFlags()
    assert LoadingFlags().given(Settings()) == []
    assert LoadingFlags().request(Settings()) == PlanRequest()


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"load_8bit": True, "load_4bit": True}, "--load-8bit and --load-4bit do not go together"),
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


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("num_gpus", "0", "num_gpus must be at least 1 and at most 1024, not 0"),
        ("gpus", "0,a", "gpus must be numbers such as 0,2, not '0,a'"),
        ("gpus", "-1", "gpus must be numbers"),
        ("gpus", "²", "gpus must be numbers"),
        ("max_gpu_memory", "20", "max_gpu_memory must be a size such as 16GiB or 24GB, not '20'"),
        ("quantization", "int3", "quantization must be one of none, int8"),
        ("quantization", "exllama", "quantization 'exllama' is not offered"),
    ],
)
def test_a_wrong_value_says_where_it_stands(key: str, text: str, said: str) -> None:
    value = settings.from_text(key, text)
    for origin, load in (
        (f"LLMCTL_{key.upper()}", lambda: settings.load({f"LLMCTL_{key.upper()}": text})),
        (f"--{key.replace('_', '-')}", lambda: given(**{key: value})),
    ):
        with pytest.raises(UsageError) as caught:
            LoadingFlags().request(load())
        assert caught.value.message.startswith(f"{origin}: {said}")


def test_a_flag_goes_before_a_setting_and_contradicts_a_flag() -> None:
    environ = {"LLMCTL_QUANTIZATION": "int8"}
    eight, four = LoadingFlags(), LoadingFlags(bits=4)
    found = settings.load(environ)
    assert (eight.request(found).quantization, four.request(found).quantization) == ("int8", "4bit")
    with pytest.raises(UsageError, match="--load-4bit and --quantization int8 do not go together") as caught:
        four.request(found.with_flags({"quantization": "int8"}))
    assert caught.value.hint == "give one"


@pytest.mark.parametrize(("bits", "named"), [(8, "int8"), (8, "8bit"), (4, "int4"), (4, "nf4"), (4, "4bit")])
def test_two_flags_that_mean_the_same_are_one(bits: int, named: str) -> None:
    assert LoadingFlags(bits=bits).request(given(quantization=named)).quantization == named


def test_what_a_setting_says_is_told_from_what_a_flag_says() -> None:
    found = settings.load({"LLMCTL_QUANTIZATION": "int8", "LLMCTL_GPUS": "1", "LLMCTL_DEVICE": "cuda"})
    origins = {"quantization": "LLMCTL_QUANTIZATION", "gpus": "LLMCTL_GPUS"}
    assert LoadingFlags().request(found).settings == origins
    assert LoadingFlags().given(found) == []
    assert "quantization" not in LoadingFlags(bits=8).request(found).settings
    assert LoadingFlags().request(found.with_flags({"gpus": "0", "quantization": "nf4"})).settings == {}


def test_a_setting_asks_for_no_format_of_files() -> None:
    with pytest.raises(UsageError, match=r"^LLMCTL_QUANTIZATION: quantization 'gptq' is a format of files"):
        LoadingFlags().request(settings.load({"LLMCTL_QUANTIZATION": "gptq"}))


def test_what_was_asked_of_one_model_is_a_wish_for_the_next() -> None:
    packed = LoadingFlags(bits=8, is_for_another=True).request(Settings())
    assert packed.quantization == "8bit"
    assert packed.settings == {"quantization": "llmctl chat --load-8bit"}
    assert LoadingFlags(is_for_another=True).request(given(quantization="gptq")).quantization is None


def test_a_setting_leaves_a_packed_checkpoint_as_it_is(
    llmctl: Llmctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.folder(tmp_path / "dense")
    packers_gptq.pack_folder(tmp_path / "dense", tmp_path / "packed", group_size=32)
    monkeypatch.setenv("LLMCTL_QUANTIZATION", "int8")
    args = ("chat", str(tmp_path / "packed"), "-p", "hi", "--max-new-tokens", "1")
    ended = llmctl(*args, "-v")
    assert ended.code == 0
    assert "the checkpoint's own (GPTQ, 4 bits, groups of 32), not quantization = int8" in ended.err
    ended = llmctl(*args, "--quantization", "int8")
    assert (ended.code, ended.out) == (2, "")
    assert "--quantization int8: packed is quantised already" in ended.err


def test_settings_of_gpus_do_not_keep_a_model_from_the_cpu(
    llmctl: Llmctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, text in (("NUM_GPUS", "2"), ("GPUS", "0,1"), ("MAX_GPU_MEMORY", "1kB")):
        monkeypatch.setenv(f"LLMCTL_{key}", text)
    ended = llmctl("chat", "demo", "--device", "cpu", "-p", "hello", "--max-new-tokens", "1")
    assert ended.code == 0


def test_a_wrong_name_of_a_kernel_is_told_without_a_gpu_too(
    llmctl: Llmctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMCTL_UNTRIED_KERNELS", "banana")
    ended = llmctl("chat", "demo", "--device", "cpu", "-p", "hello")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: LLMCTL_UNTRIED_KERNELS must be 1 or of ")


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
    for line in (
        "numbers bfloat16",
        "files GPTQ, 4 bits, groups of 128, kept packed",
        "weights 8.0 MiB",
        "overhead 256.0 MiB for activations, a short context and the libraries",
        "together 264.0 MiB of 16.0 GiB free; a long conversation's cache comes on top",
        "attention sdpa",
    ):
        assert line in lines
    start = lines.index("why")
    assert "quantisation: the checkpoint's own (GPTQ, 4 bits, groups of 128)" in lines[start:]


@pytest.mark.parametrize("method", ["hqq", "quanto"])
def test_what_no_reader_takes_is_neither_said_to_fit_nor_planned(
    llmctl: Llmctl, tmp_path: Path, method: str
) -> None:
    config = {**LLAMA_8B, "quantization_config": {"quant_method": method}}
    folder = str(write_model(tmp_path / "m", config, {"model.layers.0.up.weight": ("U8", (8, 8))}))
    for args in ((), ("--plan",), ("--json",)):
        ended = llmctl("models", "show", folder, *args)
        assert ended.code == 7
        assert f"quantised by '{method}', which llmctl does not read" in ended.err
    assert json.loads(ended.out)["fit"] is None
    assert (
        llmctl("models", "show", folder, "--plan").out,
        "fits" in llmctl("models", "show", folder).out,
    ) == (
        "",
        False,
    )


def test_a_plan_hears_what_the_user_says_of_the_files(llmctl: Llmctl, tmp_path: Path) -> None:
    config = {**LLAMA_8B, "quantization_config": {"quant_method": "gptq", "group_size": 128}}
    tensors = {"model.layers.0.up.qweight": ("I32", (512, 4096))}
    folder = str(write_model(tmp_path / "m", config, tensors))
    made = shown(llmctl, folder, "--quant-config", "bits=4")["plan"]
    assert made["checkpoint_format"] == "GPTQ, 4 bits, groups of 128"
    ended = llmctl("models", "show", "demo", "--plan", "--quant-config", "bits=4")
    assert (ended.code, "demo is not quantised" in ended.err) == (2, True)


def test_a_plan_for_code_of_a_repository_wants_trust_as_loading_does(llmctl: Llmctl, tmp_path: Path) -> None:
    config = {**LLAMA_8B, "model_type": "own", "auto_map": {"AutoModelForCausalLM": "own.Model"}}
    folder = str(write_model(tmp_path / "m", config, {"model.layers.0.up.weight": ("BF16", (8, 8))}))
    ended = llmctl("models", "show", "--plan", folder)
    assert (ended.code, "then add --trust-remote-code" in ended.err) == (2, True)
    assert shown(llmctl, folder, "--trust-remote-code")["plan"]["dtype"] == "bfloat16"


def test_a_plan_is_for_the_revision_that_is_named(
    llmctl: Llmctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--a--b"
    for commit, dtype in (("0123", "F32"), ("4567", "BF16")):
        write_model(repository / "snapshots" / commit, LLAMA_8B, {"a.weight": (dtype, (8, 8))})
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("4567")
    (repository / "refs" / "v1").write_text("0123")
    dtypes = [shown(llmctl, "a/b", *args)["plan"]["dtype"] for args in ((), ("--revision", "v1"))]
    assert dtypes == ["bfloat16", "float32"]
    ended = llmctl("models", "show", "a/b", "--revision", "v2")
    assert (ended.code, "not on this machine at the revision 'v2'" in ended.err) == (3, True)
    ended = llmctl("models", "show", "demo", "--revision", "v2")
    assert (ended.code, "--revision v2 is for models of the hub" in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("--num-gpus", "2"), 2, "--num-gpus is for the plan (add --plan)"),
        (("--cpu-offloading",), 2, "--cpu-offloading is for the plan"),
        (("--trust-remote-code",), 2, "--trust-remote-code is for the plan or"),
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
