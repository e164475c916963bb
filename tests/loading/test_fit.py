"""Whether a model fits: the sums, the conditions that a user may set, what is proposed instead."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.errors import UsageError
from llmctl.demo import MODELS
from llmctl.loading.facts.describe import Description, describe
from llmctl.loading.planning import accelerators
from llmctl.loading.planning.fit import Fit, FitRequest, described, estimate, remedies
from llmctl.loading.planning.hardware import GIB, Device
from llmctl.loading.planning.plan import OVERHEAD_BYTES, PlanRequest, plan
from llmctl.loading.planning.quant_choice import NONE
from llmctl.quant.methods import METHODS
from tests.loading.headers import LLAMA_8B, MATRIX, TABLE, llama_8b, write_model

NUM_PARAMETERS = 8_030_261_248
KIB = 1024


def device(kind: str = "cpu", *, free_gib: float = 100, has_bf16: bool = True) -> Device:
    free = int(free_gib * GIB)
    return Device(kind=kind, name=f"a {kind}", total_bytes=free, free_bytes=free, has_bf16=has_bf16)


CPU, GPU = device(), device("cuda", free_gib=24)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Description:
    return describe(llama_8b(tmp_path_factory.mktemp("models") / "llama"))


def ask(model: Description, *, device: str = "auto", **conditions: object) -> Fit:
    return estimate(model, FitRequest(device=device, **conditions), [GPU, CPU])  # type: ignore[arg-type]


def test_the_parts_add_up(model: Description) -> None:
    fit = ask(model, context=8192)
    assert fit.weight_bytes == 2 * NUM_PARAMETERS
    assert fit.cache_bytes == 8192 * 128 * KIB
    assert fit.cache_bytes_per_1k == 1024 * 128 * KIB
    assert fit.needed_bytes == fit.weight_bytes + fit.cache_bytes + OVERHEAD_BYTES
    assert (fit.device.kind, fit.dtype, fit.quant, fit.fits) == ("cuda", "bfloat16", "none", True)


def test_without_a_context_the_usual_length_or_the_models_own_is_counted(model: Description) -> None:
    assert ask(model).context == 4096
    demo = describe(MODELS["demo"])
    assert estimate(demo, FitRequest(), [CPU]).context == 1024


@pytest.mark.parametrize("quant", METHODS)
def test_quantising_packs_the_matrices_by_its_method_and_the_tables_into_bytes(
    model: Description, quant: str
) -> None:
    fit = ask(model, quant=quant)
    tables = 2 * int(TABLE * METHODS["int8"].bits_per_weight / 8)
    rest = 2 * (NUM_PARAMETERS - MATRIX - 2 * TABLE)
    assert fit.weight_bytes == int(MATRIX * METHODS[quant].bits_per_weight / 8) + tables + rest
    assert (fit.quant, any(quant in note for note in fit.notes)) == (quant, True)


@pytest.mark.parametrize("quant", [None, "int8", "nf4", "4bit"])
@pytest.mark.parametrize("dtype", ["auto", "float32", "float16"])
@pytest.mark.parametrize("place", [CPU, device(has_bf16=False), device("cuda", free_gib=48)])
def test_it_agrees_with_the_plan(model: Description, quant: str | None, dtype: str, place: Device) -> None:
    places = [place] if place.kind == "cpu" else [place, CPU]
    fit = estimate(model, FitRequest(dtype=dtype, quant=quant), places)
    made = plan(PlanRequest(dtype=dtype, quantization=quant), model.facts, places)
    assert (fit.device, fit.dtype) == (made.device, made.dtype)
    assert fit.quant == (made.quant.body if made.quant is not None else NONE)
    assert fit.weight_bytes + OVERHEAD_BYTES == made.num_bytes


def test_a_kind_of_device_is_described_by_its_memory() -> None:
    assert described([GPU, CPU], kind="auto", memory_bytes=None) == [GPU, CPU]
    ours, cpu = described([GPU, CPU], kind="cuda", memory_bytes=GIB)
    assert (ours.free_bytes, cpu) == (GIB, CPU)
    absent = described([CPU], kind="cuda", memory_bytes=GIB, count=3)
    assert [each.place for each in absent] == ["cuda:0", "cuda:1", "cuda:2", "cpu"]


def test_a_processor_without_bfloat16_computes_and_remembers_in_float32(model: Description) -> None:
    fit = estimate(model, FitRequest(), [device(has_bf16=False)])
    assert (fit.dtype, fit.weight_bytes) == ("float32", 4 * NUM_PARAMETERS)
    assert fit.cache_bytes_per_1k == 1024 * 256 * KIB


def test_memory_that_is_told_goes_before_memory_that_is_there(model: Description) -> None:
    fit = ask(model, memory_bytes=8 * GIB)
    assert (fit.device.kind, fit.device.free_bytes, fit.fits) == ("cuda", 8 * GIB, False)


def test_a_device_that_is_not_here_needs_its_memory_told(model: Description) -> None:
    assert ask(model, device="xpu", memory_bytes=32 * GIB).fits
    with pytest.raises(UsageError, match="'xpu' cannot be used here, only cuda, cpu"):
        ask(model, device="xpu")


def test_the_longest_context_is_the_last_that_fits(model: Description) -> None:
    most = ask(model).max_context
    assert 0 < most < model.context_length
    assert ask(model, context=most).fits
    assert not ask(model, context=most + 1).fits


def test_the_longest_context_is_never_more_than_the_models(model: Description) -> None:
    assert ask(model, device="cpu").max_context == model.context_length == 131072


def test_weights_alone_that_do_not_fit_leave_no_context(model: Description) -> None:
    assert ask(model, memory_bytes=12 * GIB).max_context == 0


@pytest.mark.parametrize("context", [131073, 10**9])
def test_a_context_beyond_the_models_is_refused(model: Description, context: int) -> None:
    with pytest.raises(UsageError, match=f"--context {context} is more than llama takes, 131072 tokens"):
        ask(model, context=context)


def test_a_quantised_checkpoint_takes_what_its_files_hold(tmp_path: Path) -> None:
    config = {**LLAMA_8B, "quantization_config": {"quant_method": "gptq", "bits": 4}}
    tensors = {"model.layers.0.up.qweight": ("I32", (512, 4096))}
    packed = describe(write_model(tmp_path / "packed", config, tensors))
    fit = estimate(packed, FitRequest(), [CPU])
    assert (fit.weight_bytes, packed.num_parameters) == (512 * 4096 * 4, 512 * 4096 * 8)
    with pytest.raises(UsageError, match="--quantization int4: packed is quantised already"):
        estimate(packed, FitRequest(quant="int4"), [CPU])
    assert remedies(packed, FitRequest(memory_bytes=1000), [CPU]) == ()


def test_a_model_without_a_cache_takes_none(model: Description) -> None:
    fit = ask(model, has_cache=False)
    assert (fit.cache_bytes, fit.max_context) == (0, model.context_length)
    assert "a model of this kind keeps no cache" in fit.notes


def test_a_cache_that_cannot_be_known_is_told_not_guessed(tmp_path: Path) -> None:
    odd = describe(write_model(tmp_path / "odd", {"model_type": "new"}, {"a": ("F32", (2, 2))}))
    fit = estimate(odd, FitRequest(), [CPU])
    assert fit.cache_bytes == 0
    assert any("is not counted" in note for note in fit.notes)


@pytest.mark.parametrize(
    ("memory_gib", "told"),
    [
        (16, ["--context 6491 fits", "--load-8bit takes", "--load-4bit takes"]),
        (12, ["--load-8bit takes", "--load-4bit takes"]),
        (8, ["--load-4bit takes"]),
        (3, []),
    ],
)
def test_what_would_fit_is_proposed_least_loss_first(
    model: Description, memory_gib: int, told: list[str]
) -> None:
    found = remedies(model, FitRequest(context=16384, memory_bytes=memory_gib * GIB), [CPU])
    assert [sentence[: len(start)] for sentence, start in zip(found, told, strict=True)] == told


def test_a_smaller_dtype_is_proposed_where_the_device_runs_a_larger_one(model: Description) -> None:
    found = remedies(model, FitRequest(), [device(free_gib=20, has_bf16=False)])
    assert [sentence.partition(" takes")[0] for sentence in found] == [
        "--dtype bfloat16",
        "--dtype bfloat16 --load-8bit",
        "--dtype bfloat16 --load-4bit",
    ]


@given(st.integers(1, 10**12), st.integers(1, 131072), st.sampled_from([NONE, *METHODS]))
def test_a_remedy_that_names_a_context_is_true(
    model: Description, memory_bytes: int, context: int, quant: str
) -> None:
    request = FitRequest(memory_bytes=memory_bytes, context=context, quant=quant)
    fit = estimate(model, request, [CPU])
    assert fit.fits == (fit.context <= fit.max_context)
    if fit.max_context:
        fewer = FitRequest(memory_bytes=memory_bytes, context=fit.max_context, quant=quant)
        assert estimate(model, fewer, [CPU]).fits


def fake_smi(folder: Path, answer: str, code: int = 0) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\nexit {code}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize(
    ("answer", "kinds"),
    [
        ("NVIDIA A10, 23028, 22000, 8.6", ["cuda", "cpu"]),
        ("Tesla T4, 15360, 15000, 7.5\nTesla T4, 15360, 1, 7.5", ["cuda", "cuda", "cpu"]),
        ("NVIDIA-SMI has failed because it couldn't communicate", ["cpu"]),
        ("NVIDIA GB10, [N/A], [N/A], 12.1", ["cpu"]),
        ("", ["cpu"]),
    ],
)
def test_a_graphics_card_is_seen_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, kinds: list[str]
) -> None:
    fake_smi(tmp_path, answer)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.13.0+cu130")
    found = accelerators.visible()
    assert [each.kind for each in found] == kinds
    if kinds[0] == "cuda":
        name, total, free, capability = answer.partition("\n")[0].split(", ")
        expected = (name, int(total) * KIB**2, int(free) * KIB**2, float(capability) >= 8)
        assert (found[0].name, found[0].total_bytes, found[0].free_bytes, found[0].has_bf16) == expected


def test_a_card_is_not_counted_where_torch_cannot_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_smi(tmp_path, "NVIDIA A10, 23028, 22000, 8.6")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.13.0+cpu")
    assert [each.kind for each in accelerators.visible()] == ["cpu"]


@pytest.mark.parametrize(
    ("visible", "free"), [("1,0", [2, 1]), ("1", [2]), ("", []), ("-1", []), ("0,7", [1]), ("GPU-ab", [1, 2])]
)
def test_cards_are_numbered_as_torch_will_number_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str, free: list[int]
) -> None:
    fake_smi(tmp_path, "NVIDIA A10, 23028, 1, 8.6\nNVIDIA A10, 23028, 2, 8.6")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.13.0+cu130")
    *cards, _ = accelerators.visible()
    assert [card.free_bytes // KIB**2 for card in cards] == free
    assert [card.index for card in cards] == list(range(len(free)))
