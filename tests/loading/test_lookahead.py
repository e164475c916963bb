"""What cannot be run is refused before its weights are downloaded, and what may run is not."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from llmctl.core.errors import BadFileError, DoesNotFitError, LlmctlError, UsageError
from llmctl.core.progress import SilentProgress
from llmctl.loading import devices, lookahead
from llmctl.loading.gguf.head import read_gguf
from llmctl.loading.gguf.names import bits_in_name
from llmctl.loading.hub.fetch import RemoteFile
from llmctl.loading.loader import LoadRequest, load
from llmctl.loading.planning.hardware import GIB, Device
from llmctl.loading.planning.plan import OVERHEAD_BYTES
from llmctl.loading.planning.request import PlanRequest
from tests.hub import StandInHub
from tests.loading.downloads import ID
from tests.loading.gguf_files import write_llama

WEIGHTS = "model.safetensors"


def config(**changes: Any) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": 2,
        "dtype": "bfloat16",
    } | changes


def has_memory(monkeypatch: pytest.MonkeyPatch, num_bytes: int) -> None:
    """Let this machine be a CPU with so much free memory beside what every model takes."""
    free = OVERHEAD_BYTES + num_bytes
    cpu = Device(kind="cpu", name="described", total_bytes=free, free_bytes=free, has_bf16=True)
    monkeypatch.setattr(devices, "available", lambda: [cpu])


def offer(hub: StandInHub, config: dict[str, Any], num_bytes: int = 1_000_000) -> None:
    hub.add(ID, {"config.json": json.dumps(config).encode(), WEIGHTS: bytes(num_bytes)})


def asked(**wishes: Any) -> LoadRequest:
    return LoadRequest(model=ID, plan=PlanRequest(**wishes))


def fails(hub: StandInHub, kind: type[LlmctlError], *words: str, request: LoadRequest) -> None:
    """Loading ends so, and none of the weights were asked for."""
    with pytest.raises(LlmctlError) as caught:
        load(request, SilentProgress())
    told = f"{caught.value.message} ({caught.value.hint})"
    assert type(caught.value) is kind, told
    assert [word for word in words if word not in told] == [], told
    assert not [seen for seen in hub.requests if WEIGHTS in seen.path or ".gguf" in seen.path]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "bert", "architectures": ["BertModel"]}, ["BertModel", "cannot chat"]),
        ({"model_type": "vit", "architectures": ["ViTModel"]}, ["ViTModel", "cannot chat"]),
        ({"model_type": "mistral", "architectures": ["MistralModel"]}, ["MistralModel", "cannot chat"]),
        ({"architectures": ["LlamaForSequenceClassification"]}, ["cannot chat"]),
        ({"model_type": "t5", "architectures": ["T5EncoderModel"]}, ["T5EncoderModel", "cannot chat"]),
        ({"model_type": "no_such"}, ["'no_such', which transformers", "pip install -U"]),
    ],
)
def test_a_model_that_cannot_chat_is_told_by_its_config(
    hub: StandInHub, changes: dict[str, Any], words: list[str]
) -> None:
    offer(hub, config(**changes))
    fails(hub, BadFileError, ID, *words, request=asked())


def test_a_family_that_does_not_generate_is_told_before_the_hub_is_asked(hub: StandInHub) -> None:
    num_requests = len(hub.requests)
    fails(hub, UsageError, "does not generate", request=LoadRequest(model=ID, generates="none"))
    assert len(hub.requests) == num_requests


def test_code_that_nobody_trusts_is_told_first(hub: StandInHub) -> None:
    own = {"model_type": "its_own", "auto_map": {"AutoModelForCausalLM": "m.M"}}
    offer(hub, config(**own))
    fails(hub, UsageError, "--trust-remote-code", request=asked())


def test_a_model_that_does_not_fit_is_told_with_what_would(
    hub: StandInHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_memory(monkeypatch, 400_000)
    offer(hub, config())
    hint = f"no weights were downloaded, `llmctl models pull {ID}` does it all the same"
    fails(hub, DoesNotFitError, ID, "in bfloat16", "--load-8bit takes", "fits", hint, request=asked())


@pytest.mark.parametrize(
    ("changes", "wishes"),
    [
        ({}, {"quantization": "8bit"}),
        ({"dtype": "float32"}, {"dtype": "bfloat16"}),
        # The files may be in float32 all the same.
        ({"dtype": "float16"}, {}),
        ({"dtype": None}, {}),
        ({"quantization_config": {"quant_method": "gptq"}}, {}),
    ],
    ids=["packed", "narrowed", "wider than told", "unknown numbers", "unknown bits"],
)
def test_what_may_fit_is_downloaded(
    hub: StandInHub, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], wishes: dict[str, str]
) -> None:
    has_memory(monkeypatch, 600_000)
    offer(hub, config(**changes))
    # The stand-in's weights are zeros and no safetensors: that is found out when they are here.
    with pytest.raises(BadFileError, match=WEIGHTS):
        load(asked(**wishes), SilentProgress())


@pytest.mark.parametrize(
    ("stored", "memory", "is_refused"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, 800_000, True),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, 1_000_000, False),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 1_500_000, True),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, 1_900_000, False),
    ],
)
def test_packed_weights_count_as_they_are_in_memory(
    hub: StandInHub, monkeypatch: pytest.MonkeyPatch, stored: dict[str, Any], memory: int, is_refused: bool
) -> None:
    has_memory(monkeypatch, memory)
    offer(hub, config(quantization_config=stored))
    with pytest.raises(LlmctlError) as caught:
        load(asked(), SilentProgress())
    assert isinstance(caught.value, DoesNotFitError) is is_refused


@pytest.mark.parametrize(
    ("count", "memory", "is_refused"),
    [
        (500_000, 900_000, True),
        (500_000, 1_000_000, False),
        (250_000, 600_000, False),
        # Nothing that files of so many bytes could hold.
        (50_000_000, 1_000_000, False),
        (10, 490_000, True),
        ("many", 600_000, False),
    ],
)
def test_an_index_that_counts_the_weights_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: object, memory: int, is_refused: bool
) -> None:
    has_memory(monkeypatch, memory)
    (tmp_path / "config.json").write_text(json.dumps(config()))
    index = {"metadata": {"total_parameters": count}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    weights = [RemoteFile(name=WEIGHTS, url="", num_bytes=1_000_000, digest="", is_lfs=True)]
    look = partial(lookahead.check, tmp_path, weights, name="m", trust_remote_code=False)
    if is_refused:
        with pytest.raises(DoesNotFitError):
            look(wishes=PlanRequest())
    else:
        look(wishes=PlanRequest())


@pytest.mark.parametrize(("num_bytes", "is_refused"), [(1_000_000_000, False), (3 * GIB, True)])
def test_a_small_gguf_file_may_be_wider_than_its_name_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_bytes: int, is_refused: bool
) -> None:
    has_memory(monkeypatch, int(num_bytes * 2.5))
    weights = [RemoteFile(name="m-Q2_K.gguf", url="", num_bytes=num_bytes, digest="", is_lfs=True)]
    look = partial(lookahead.check, tmp_path, weights, name="m", trust_remote_code=False)
    if is_refused:
        with pytest.raises(DoesNotFitError):
            look(wishes=PlanRequest())
    else:
        look(wishes=PlanRequest())


def test_a_gguf_file_counts_by_the_type_in_its_name(
    hub: StandInHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = write_llama(tmp_path / "m.gguf", kind="Q8_0")
    hub.add(ID, {"m-Q8_0.gguf": file, "m.gguf": file, "config.json": b"{}"})
    num_parameters = sum(entry.num_elements for entry in read_gguf(file).tensors.values())
    has_memory(monkeypatch, 2 * num_parameters - 1)
    fails(hub, DoesNotFitError, "in bfloat16", request=LoadRequest(model=f"{ID}:Q8_0"))
    # A name without a type says nothing; the head of the file does.
    with pytest.raises(DoesNotFitError) as caught:
        load(LoadRequest(model=f"{ID}/m.gguf"), SilentProgress())
    assert "no weights were downloaded" not in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        # Rows that their blocks do not divide are wider.
        ("m-Q4_K_M.gguf", 5.5),
        ("m-Q2_K.gguf", 4.5),
        ("m.IQ4_XS.gguf", 4.5),
        # Of several types the widest, whichever of them is meant.
        ("m-Q8_0-Q4_K_M.gguf", 8.5),
        ("m-Q4_K-Q8_0.gguf", 8.5),
        ("m-q8_0.gguf", 8.5),
        ("Q2-m-f16.gguf", 16),
        ("m-BF16.gguf", 16),
        ("m-Q4_0_4_4.gguf", 4.5),
    ],
)
def test_a_name_tells_the_bits_of_most_weights(name: str, bits: float) -> None:
    found = bits_in_name(name)
    assert found is not None
    assert bits <= found < bits + 1


@pytest.mark.parametrize("name", ["m.gguf", "Q4.gguf", "seq4_0m.gguf"])
def test_a_name_without_a_type_tells_nothing(name: str) -> None:
    assert bits_in_name(name) is None


def test_a_model_larger_than_each_gpu_may_be_spread_over_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Device(kind="cuda", name="gpu", total_bytes=9 * GIB, free_bytes=9 * GIB, has_bf16=True)
    cpu = Device(kind="cpu", name="cpu", total_bytes=GIB, free_bytes=GIB, has_bf16=True)
    monkeypatch.setattr(devices, "available", lambda: [first, replace(first, index=1), cpu])
    (tmp_path / "config.json").write_text(json.dumps(config(num_hidden_layers=40)))
    weights = [RemoteFile(name=WEIGHTS, url="", num_bytes=24 * GIB, digest="", is_lfs=True)]
    look = partial(lookahead.check, tmp_path, weights, name="m", trust_remote_code=False)
    look(wishes=PlanRequest(num_gpus=2))
    with pytest.raises(DoesNotFitError, match=r"cuda has 9\.0 GiB free") as caught:
        look(wishes=PlanRequest())
    assert "--num-gpus 2" in str(caught.value.hint)
