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

import llmctl.loading
from llmctl.adapters import BaseModelAdapter, register_model_adapter, surface
from llmctl.adapters.registered import REGISTERED
from llmctl.core.errors import BadFileError, ContextOverflowError, NotFoundError, UsageError
from llmctl.engine.api import get_generate_stream_function
from llmctl.loading import (
    AWQConfig,
    ExllamaConfig,
    GptqConfig,
    XftConfig,
    api,
    get_context_length,
    load_model,
)
from llmctl.loading.apart import joined
from llmctl.loading.loader import LoadedModel, LoadRequest
from tests import tiny

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
        ({"gptq_config": GptqConfig(ckpt="elsewhere")}, {}),
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
        ({"device": "cpu", "num_gpus": 2}, "--num-gpus 2 is for cuda", "leave"),
        ({"quantization": "int3"}, "quantization must be one of", None),
    ],
)
def test_wishes_that_cannot_be_are_refused_before_anything_is_loaded(
    wishes: dict[str, Any], said: str, hint: str | None
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        load_model("demo", **wishes)
    assert hint is None or hint in str(caught.value.hint)


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


def test_ckpt_needs_a_model_that_is_here() -> None:
    with pytest.raises(NotFoundError, match="ckpt only has its weights"):
        load_model("no/such-model", gptq_config=GptqConfig("x", wbits=4))


def test_the_context_length_is_read_from_a_config_or_a_mapping() -> None:
    assert get_context_length({"max_position_embeddings": 4096}) == 4096
    assert get_context_length(tiny.config()) == 256
    assert get_context_length({}) == 2048


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
