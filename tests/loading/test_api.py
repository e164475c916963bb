"""FastChat's names: what they take, what they refuse, and that they load as `llmctl chat` does."""

import inspect
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import llmctl.loading
from llmctl.adapters import BaseModelAdapter, register_model_adapter, surface
from llmctl.adapters.registered import REGISTERED
from llmctl.core.errors import BadFileError, ContextOverflowError, NotFoundError, UsageError
from llmctl.core.progress import SilentProgress
from llmctl.engine.api import get_generate_stream_function
from llmctl.loading import (
    AWQConfig,
    ExllamaConfig,
    GptqConfig,
    XftConfig,
    api,
    arguments,
    get_context_length,
    load_model,
)
from llmctl.loading.apart import joined
from llmctl.loading.loader import LoadedModel, LoadRequest
from tests import tiny
from tests.quant.formats import packers_gptq

PARAMETERS = [
    *("model_path", "device", "num_gpus", "max_gpu_memory", "dtype", "load_8bit", "cpu_offloading"),
    *("gptq_config", "awq_config", "exllama_config", "xft_config", "revision", "debug"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.folder(tmp_path_factory.mktemp("models") / "tiny", hidden_size=64, intermediate_size=128))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[LoadRequest]:
    """The requests that come to the loader, which loads nothing."""
    requests: list[LoadRequest] = []

    def load(request: LoadRequest, progress: object) -> LoadedModel:
        requests.append(request)
        return LoadedModel.__new__(LoadedModel)

    monkeypatch.setattr("llmctl.loading.loader.load", load)
    monkeypatch.setattr(LoadedModel, "model", "model", raising=False)
    monkeypatch.setattr(LoadedModel, "tokenizer", "tokenizer", raising=False)
    return requests


def test_the_signature_is_fastchats_and_what_is_ours_goes_by_name() -> None:
    parameters = inspect.signature(load_model).parameters.values()
    assert [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD] == PARAMETERS
    ours = {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}
    assert ours == {"load_4bit", "quantization", "gpus", "trust_remote_code", "progress"}
    assert GptqConfig() == GptqConfig(None, 16, -1, True)
    assert AWQConfig() == AWQConfig(None, 16, -1)


def test_importing_the_names_brings_no_torch() -> None:
    script = (
        "import sys; from llmctl.loading import *; load_model, GptqConfig\n"
        "print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("set()\n", "")


def test_there_are_no_other_names() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'unload_model'"):
        llmctl.loading.unload_model  # noqa: B018


def test_a_model_is_loaded_and_answers(folder: str) -> None:
    model, tokenizer = load_model(folder, "cpu", dtype=torch.float32)
    assert model.dtype == torch.float32
    assert not model.training
    ids = torch.tensor([tokenizer.encode("Hello")])
    assert model(ids).logits.shape == (1, ids.shape[1], tiny.VOCABULARY_SIZE)


@pytest.mark.parametrize("wish", [{"load_8bit": True}, {"load_4bit": True}, {"quantization": "nf4"}])
def test_a_quantised_model_answers_much_like_the_whole_one(folder: str, wish: dict[str, Any]) -> None:
    whole, tokenizer = load_model(folder, "cpu", dtype="float32")
    packed, _ = load_model(folder, "cpu", dtype="float32", **wish)
    ids = torch.tensor([tokenizer.encode("What is the capital of France?")])
    with torch.inference_mode():
        expected, found = (model(ids).logits.flatten() for model in (whole, packed))
    likeness = float(torch.nn.functional.cosine_similarity(expected, found, dim=0))
    assert (0.99 if "load_8bit" in wish else 0.8) < likeness < 1 - 1e-7


def test_all_wishes_reach_the_plan(asked: list[LoadRequest]) -> None:
    found = load_model(
        "demo",
        "cuda",
        2,
        "20GiB",
        torch.float16,
        True,
        True,
        revision="v1",
        gpus=(0, 2),
        trust_remote_code=True,
    )
    assert found == ("model", "tokenizer")
    (request,) = asked
    assert (request.model, request.revision, request.trust_remote_code) == ("demo", "v1", True)
    plan = request.plan
    assert (plan.device, plan.dtype, plan.num_gpus, plan.gpus) == ("cuda", "float16", 2, (0, 2))
    assert (plan.max_gpu_memory, plan.quantization, plan.cpu_offloading) == (20 * 1024**3, "8bit", True)


def test_the_main_revision_is_what_a_model_has_anyway(asked: list[LoadRequest]) -> None:
    load_model("demo", gpus=(1, 2), max_gpu_memory=10**9)
    assert asked[0].revision is None
    assert (asked[0].plan.num_gpus, asked[0].plan.max_gpu_memory) == (None, 10**9)


@pytest.mark.parametrize(
    ("config", "formats"),
    [
        ({}, {}),
        # FastChat's worker says this much with every model.
        ({"gptq_config": GptqConfig("demo", act_order=False), "awq_config": AWQConfig("demo")}, {}),
        ({"gptq_config": GptqConfig(wbits=4)}, {"quant_method": "gptq", "bits": 4}),
        (
            {"gptq_config": GptqConfig(wbits=3, groupsize=128, act_order=False)},
            {"quant_method": "gptq", "bits": 3, "group_size": 128, "desc_act": False},
        ),
        (
            {"awq_config": AWQConfig(wbits=4, groupsize=64)},
            {"quant_method": "awq", "bits": 4, "group_size": 64},
        ),
    ],
)
def test_what_is_said_of_a_checkpoint_goes_before_its_files_and_defaults_do_not(
    asked: list[LoadRequest], config: dict[str, Any], formats: dict[str, object]
) -> None:
    load_model("demo", **config)
    assert asked[0].formats == formats


@pytest.mark.parametrize(
    ("device", "gpus", "wanted"),
    [
        ("cpu:0", None, ("cpu", None, 1)),
        (torch.device("cpu"), None, ("cpu", None, 1)),
        ("cuda", None, ("cuda", None, 1)),
        ("cuda:1", None, ("cuda", (1,), None)),
        (torch.device("cuda", 0), None, ("cuda", (0,), None)),
        (torch.device("mps", 0), None, ("mps", None, 1)),
        ("cuda", [0, 2], ("cuda", (0, 2), None)),
        ("cuda", range(2), ("cuda", (0, 1), None)),
    ],
)
def test_a_device_may_be_torchs_and_have_a_number(
    asked: list[LoadRequest], device: Any, gpus: Any, wanted: tuple[object, ...]
) -> None:
    load_model("demo", device, gpus=gpus)
    assert (asked[0].plan.device, asked[0].plan.gpus, asked[0].plan.num_gpus) == wanted


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16", "torch.bfloat16"])
def test_a_dtype_may_be_torchs_or_its_name(asked: list[LoadRequest], dtype: Any) -> None:
    load_model("demo", dtype=dtype)
    assert asked[0].plan.dtype == "bfloat16"


def test_a_path_is_a_folder_and_nothing_else(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = load_model(Path(folder), Path("cpu").name)
    assert model.name_or_path == folder
    monkeypatch.chdir(Path(folder).parent)
    assert load_model(Path(Path(folder).name), "cpu")[0].name_or_path == folder
    for name in ("demo", "Qwen/Qwen3-0.6B"):
        with pytest.raises(NotFoundError, match="no such folder"):
            load_model(Path(name))


def test_a_familys_row_says_how_its_models_are_loaded(asked: list[LoadRequest]) -> None:
    load_model("lmsys/vicuna-7b-v1.5")
    assert asked[0].generates == "causal"
    load_model("cllm/consistency-llm-7b-math")
    assert asked[1].generates == "jacobi"


def test_a_registered_class_loads_in_its_own_way(
    asked: list[LoadRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(REGISTERED, "_families", {})

    class Ours(BaseModelAdapter):
        def match(self, model_path: str) -> bool:
            return "bilby" in model_path

        def load_model(self, model_path: str, from_pretrained_kwargs: Any) -> tuple[Any, Any]:
            return model_path, None

    register_model_adapter(Ours)
    load_model("bilby-7b")
    surface._registry.cache_clear()
    assert asked[0].own_loader is not None
    assert asked[0].own_loader("x", {}) == ("x", None)


@pytest.mark.parametrize(
    ("wishes", "said", "hint"),
    [
        ({"exllama_config": ExllamaConfig(4096)}, "ExLlamaV2", "max_gpu_memory"),
        ({"xft_config": XftConfig()}, "xFasterTransformer", "leave xft_config out"),
        ({"load_8bit": True, "load_4bit": True}, "do not go together", "give one"),
        ({"load_8bit": True, "quantization": "int8"}, "do not go together", "give one"),
        ({"gptq_config": GptqConfig(wbits=4), "awq_config": AWQConfig(wbits=4)}, "do not go", "give one"),
        ({"max_gpu_memory": "20"}, "max_gpu_memory must be a size", None),
        ({"device": "cpu", "num_gpus": 2}, "^num_gpus 2 is for cuda", "leave num_gpus out"),
        ({"quantization": "int3"}, "quantization must be one of", None),
    ],
)
def test_wishes_that_cannot_be_are_refused_before_anything_is_loaded(
    wishes: dict[str, Any], said: str, hint: str | None
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        load_model("demo", **wishes)
    assert hint is None or hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({"model_path": None}, "model_path must be a folder, `demo`, or a hub id .*, not None"),
        ({"device": None}, "device must be a name such as 'cpu' or a torch.device, not None"),
        ({"device": "cpu:1"}, "device 'cpu:1' cannot be used here"),
        ({"device": "cuda:0", "gpus": (0,)}, "gpus must be left out where device is 'cuda:0'"),
        ({"num_gpus": "2"}, "num_gpus must be a whole number >= 1, not '2'"),
        ({"num_gpus": 0}, "num_gpus must be a whole number >= 1, not 0"),
        ({"num_gpus": True}, "num_gpus must be a whole number >= 1, not True"),
        ({"gpus": "0,2"}, r"gpus must be a list of whole numbers such as \[0, 2\], not '0,2'"),
        ({"gpus": 0}, "gpus must be a list of whole numbers .*, not 0"),
        ({"gpus": []}, r"gpus must be a list of whole numbers .*, not \[\]"),
        ({"gpus": ["0"]}, r"gpus must be a list of whole numbers .*, not \['0'\]"),
        ({"gpus": [-1]}, r"gpus must be a list of whole numbers .*, not \[-1\]"),
        ({"max_gpu_memory": 0}, "max_gpu_memory must be a size such as '20GiB', or whole bytes >= 1, not 0"),
        ({"max_gpu_memory": -5}, "max_gpu_memory must be a size .*, not -5"),
        ({"max_gpu_memory": 1.5}, "max_gpu_memory must be a size .*, not 1.5"),
        ({"dtype": 16}, "dtype must be a torch.dtype or its name, such as 'bfloat16', not 16"),
        ({"dtype": float}, "dtype must be a torch.dtype or its name, .*, not <class 'float'>"),
        ({"dtype": torch.float64}, "dtype must be one of auto, float32, .*, not 'float64'"),
        ({"load_8bit": "no"}, "load_8bit must be True or False, not 'no'"),
        ({"trust_remote_code": "false"}, "trust_remote_code must be True or False, not 'false'"),
        ({"quantization": 8}, "quantization must be text or None, not 8"),
        ({"quantization": ""}, "quantization must be one of .*, not ''"),
        ({"revision": 3}, "revision must be text or None, not 3"),
        (
            {"gptq_config": {"wbits": 4}},
            "gptq_config must be an llmctl.loading.GptqConfig, not {'w",
        ),
        ({"gptq_config": True}, "gptq_config must be an llmctl.loading.GptqConfig, not True"),
        (
            {"awq_config": GptqConfig(wbits=4)},
            "awq_config must be an llmctl.loading.AWQConfig, not an object",
        ),
        ({"cpu_offloading": True, "device": "cpu"}, "^cpu_offloading is for cuda"),
        (
            {"gptq_config": GptqConfig(wbits=4)},
            "wbits=4 in gptq_config or awq_config: demo is not quantised",
        ),
        ({"progress": 3}, "progress must be None or an object with the methods stage and advance, not 3"),
        ({"progress": SilentProgress}, "progress must be .*, not <class"),
    ],
)
def test_what_is_of_a_wrong_type_is_refused_by_the_name_of_its_parameter(
    wishes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        load_model(**{"model_path": "demo", **wishes})
    assert str(caught.value) == caught.value.message
    assert "--" not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("kind", [GptqConfig, AWQConfig])
@pytest.mark.parametrize("field", ["wbits", "groupsize", "ckpt"])
def test_a_config_is_refused_where_it_is_made(kind: Any, field: str) -> None:
    with pytest.raises(UsageError, match=f"{field} must be a .*, not 1.5"):
        kind(**{field: 1.5})


def test_an_empty_place_of_weights_is_refused() -> None:
    with pytest.raises(UsageError, match="ckpt must be a file or folder, not ''"):
        GptqConfig(ckpt="")


def test_a_folder_has_no_revisions(folder: str) -> None:
    with pytest.raises(UsageError, match=f"^revision x is for models of the hub, and {folder} is on this"):
        load_model(folder, revision="x")


@pytest.mark.parametrize("is_apart", [False, True])
def test_groups_at_their_default_are_none_where_the_files_do_not_say(
    folder: str, tmp_path: Path, is_apart: bool
) -> None:
    place = tmp_path / "gptq"
    dense = packers_gptq.pack_folder(Path(folder), place, group_size=-1)
    tiny.edit_json(place / "config.json", quantization_config=None)
    wanted = dense["model.layers.0.mlp.up_proj.weight"]
    config = GptqConfig(place, wbits=4) if is_apart else GptqConfig(wbits=4)
    model, _ = load_model(folder if is_apart else place, "cpu", dtype="float32", gptq_config=config)
    unit = torch.eye(wanted.shape[1])
    assert torch.allclose(model.model.layers[0].mlp.up_proj(unit).T, wanted, atol=0.05)


def test_groups_of_the_weights_that_nobody_said_are_asked_for(folder: str, tmp_path: Path) -> None:
    place = tmp_path / "gptq"
    packers_gptq.pack_folder(Path(folder), place, group_size=32)
    tiny.edit_json(place / "config.json", quantization_config=None)
    with pytest.raises(BadFileError, match=r"group_size is -1, but it has \d groups") as caught:
        load_model(place, "cpu", gptq_config=GptqConfig(wbits=4))
    assert "groupsize=... in gptq_config" in str(caught.value.hint)
    model, _ = load_model(place, "cpu", gptq_config=GptqConfig(wbits=4, groupsize=32))
    assert model.model.layers[0].mlp.up_proj.num_packed == 64 * 128


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (
            "--cpu-offloading goes with --load-8bit or --load-4bit",
            "cpu_offloading goes with load_8bit or load_4bit",
        ),
        (
            "--dtype bfloat16 --load-4bit takes 1.0 GiB and fits",
            "dtype bfloat16 load_4bit takes 1.0 GiB and fits",
        ),
        (
            "say how, as in --quant-config quant_method=gptq --quant-config bits=4, or take",
            "say how, as in wbits=4 in gptq_config or awq_config, or take",
        ),
        (
            "say it: --quant-config group_size=...",
            "say it: groupsize=... in gptq_config or awq_config",
        ),
        (
            "--quant-config checkpoint_format=gptq",
            "checkpoint_format=gptq in the quantization_config of config.json",
        ),
        ("leave --gpus out, or see llmctl doctor", "leave gpus out, or see llmctl doctor"),
        ("with llmctl chat --url", "with llmctl chat --url"),
    ],
)
def test_errors_name_parameters_where_they_name_flags(flags: str, names: str) -> None:
    with pytest.raises(BadFileError) as caught, arguments.in_python_words():
        raise BadFileError(flags, hint=flags)
    assert (str(caught.value), caught.value.message, caught.value.hint) == (names, names, names)


def test_an_error_without_a_hint_gets_none() -> None:
    with pytest.raises(UsageError) as caught, arguments.in_python_words():
        raise UsageError("--gpus")
    assert (caught.value.message, caught.value.hint) == ("gpus", None)


def test_the_flags_that_errors_name_are_parameters() -> None:
    assert set(arguments.PARAMETERS) <= set(inspect.signature(load_model).parameters)


def test_weights_that_lie_apart_are_laid_beside_config_and_tokenizer(folder: str, tmp_path: Path) -> None:
    apart = tmp_path / "elsewhere"
    apart.mkdir()
    shutil.copy(Path(folder) / "model.safetensors", apart / "gptq-4bit.safetensors")
    with joined(Path(folder), str(apart), {"quant_method": "gptq", "bits": 4}) as place:
        names = {path.name for path in place.iterdir()}
        config = json.loads((place / "config.json").read_text())
        assert place.name == "tiny"
    assert {"gptq-4bit.safetensors", "tokenizer.json", "config.json"} <= names
    assert "model.safetensors" not in names
    assert config["quantization_config"] == {"quant_method": "gptq", "bits": 4}
    assert not place.exists()
    # The model's own files are as they were.
    assert "quantization_config" not in json.loads((Path(folder) / "config.json").read_text())


def test_a_file_beside_such_weights_says_how_they_are_packed(folder: str, tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    shutil.copy(Path(folder) / "model.safetensors", file)
    (tmp_path / "quantize_config.json").write_text('{"bits": 4, "group_size": 32}')
    with joined(Path(folder), str(file), {"quant_method": "gptq", "bits": 3}) as place:
        config = json.loads((place / "config.json").read_text())
    assert config["quantization_config"] == {"quant_method": "gptq", "bits": 4, "group_size": 32}


@pytest.mark.parametrize(
    ("name", "error"), [("absent", NotFoundError), ("w.pt", BadFileError), ("empty", BadFileError)]
)
def test_weights_that_are_none_are_refused(
    folder: str, tmp_path: Path, name: str, error: type[Exception]
) -> None:
    (tmp_path / "w.pt").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(error), joined(Path(folder), str(tmp_path / name), {}):
        pass


@pytest.mark.parametrize("method", ["gptq", "awq"])
@pytest.mark.parametrize("is_of_worker", [False, True])
def test_ckpt_counts_where_nothing_else_is_said(
    folder: str, tmp_path: Path, asked: list[LoadRequest], method: str, is_of_worker: bool
) -> None:
    shutil.copy(Path(folder) / "model.safetensors", tmp_path / "w.safetensors")
    # FastChat's worker gives both configs, and names the model itself where nobody says another place.
    names: dict[str, Any] = {"gptq": folder, "awq": folder} if is_of_worker else {}
    names[method] = tmp_path
    kinds: dict[str, Any] = {"gptq": GptqConfig, "awq": AWQConfig}
    load_model(Path(folder), **{f"{name}_config": kinds[name](ckpt) for name, ckpt in names.items()})
    assert asked[0].model != folder
    assert asked[0].formats == {"quant_method": method}


def test_packed_weights_that_lie_apart_are_loaded_by_what_lies_beside_them(
    folder: str, tmp_path: Path
) -> None:
    packers_gptq.pack_folder(Path(folder), tmp_path / "gptq", is_legacy=True)
    model, _ = load_model(folder, "cpu", gptq_config=GptqConfig(tmp_path / "gptq"))
    assert model.model.layers[0].mlp.up_proj.num_packed == 64 * 128


def test_ckpt_needs_a_model_that_is_here() -> None:
    with pytest.raises(NotFoundError, match="ckpt only has its weights"):
        load_model("no/such-model", gptq_config=GptqConfig("x", wbits=4))


def test_the_context_length_is_read_from_a_config_or_a_mapping() -> None:
    assert get_context_length({"max_position_embeddings": 4096}) == 4096
    assert get_context_length(tiny.config()) == 256
    assert get_context_length({}) == 2048
    for none in (None, 4096, "demo", transformers.LlamaConfig):
        with pytest.raises(UsageError, match="config must be a transformers config or a mapping, not"):
            get_context_length(none)


@pytest.fixture(scope="module")
def demo() -> tuple[Any, Any]:
    return load_model("demo", "cpu")


def frames(demo: tuple[Any, Any], context_len: int = 1024, **params: Any) -> Iterator[dict[str, Any]]:
    model, tokenizer = demo
    stream = get_generate_stream_function(model, "demo")
    given = {"prompt": "What is the capital of", "temperature": 0.0, "max_new_tokens": 8, **params}
    return stream(model, tokenizer, given, "cpu", context_len)


def test_a_stream_gives_the_whole_text_each_time_and_ends_with_a_reason(demo: tuple[Any, Any]) -> None:
    found = list(frames(demo))
    texts = [frame["text"] for frame in found]
    assert all(later.startswith(text) for text, later in itertools.pairwise(texts))
    assert texts[0].startswith("What is the capital of")
    assert [frame["finish_reason"] for frame in found][-2:] == [None, found[-1]["finish_reason"]]
    assert found[-1]["finish_reason"] in ("stop", "length")
    usage = found[-1]["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_without_echo_a_stream_gives_the_answer_alone(demo: tuple[Any, Any]) -> None:
    *_, whole = frames(demo)
    *_, answer = frames(demo, echo=False)
    assert whole["text"] == "What is the capital of" + answer["text"]


def test_a_stop_string_ends_a_stream(demo: tuple[Any, Any]) -> None:
    *_, last = frames(demo, echo=False, max_new_tokens=40)
    word = last["text"].split()[0][1:]
    *_, stopped = frames(demo, echo=False, max_new_tokens=40, stop=word)
    assert (stopped["finish_reason"], word in stopped["text"]) == ("stop", False)


def test_a_prompt_that_is_too_long_loses_its_beginning(
    demo: tuple[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    *_, last = frames(demo, context_len=12, max_new_tokens=8, prompt="What is the capital of France? " * 9)
    assert last["usage"]["prompt_tokens"] == 3
    assert "only its last 3 are read" in caplog.text
    with pytest.raises(ContextOverflowError, match="leave no room"):
        list(frames(demo, context_len=8))


@pytest.mark.parametrize("params", [{"logprobs": 1}, {"top_p": 2.0}])
def test_a_stream_refuses_what_it_does_not_do(demo: tuple[Any, Any], params: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        list(frames(demo, **params))


def test_the_way_to_generate_follows_model_and_name(demo: tuple[Any, Any]) -> None:
    model, tokenizer = demo
    given = {"prompt": "What is", "temperature": 0.0, "max_new_tokens": 8}
    plain, jacobi = (
        list(get_generate_stream_function(model, name)(model, tokenizer, given, "cpu", 1024))[-1]["text"]
        for name in ("demo", "consistency-llm-7b")
    )
    assert plain == jacobi


def test_a_model_is_logged_when_debugging(folder: str, caplog: pytest.LogCaptureFixture) -> None:
    load_model(folder, "cpu", debug=True)
    assert "LlamaForCausalLM(" in caplog.text
    assert api.log.name == "llmctl.loading.api"
