"""The load plan: every rule, without hardware."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from llmctl.core.errors import DoesNotFitError, UsageError
from llmctl.loading import devices
from llmctl.loading.facts.quantisation import Quantisation
from llmctl.loading.planning import hardware
from llmctl.loading.planning.hardware import GIB, Device
from llmctl.loading.planning.plan import (
    BYTES,
    OVERHEAD_BYTES,
    Facts,
    LoadPlan,
    PlanRequest,
    plan,
    stored_dtype,
)
from llmctl.quant.methods import METHODS, Scheme

BILLION = 10**9
GPTQ = Quantisation(method="gptq", bits=4, group_size=128)
FP8 = Quantisation(method="fp8", bits=8, is_decoded=True)


def device(kind: str = "cpu", *, free_bytes: int = 64 * GIB, has_bf16: bool = True, index: int = 0) -> Device:
    return Device(
        kind=kind,
        name=f"a {kind}",
        total_bytes=free_bytes,
        free_bytes=free_bytes,
        has_bf16=has_bf16,
        index=index,
    )


def facts(
    *, stored: str = "bfloat16", num_parameters: int = BILLION, packed: Quantisation | None = None
) -> Facts:
    """A model whose tables are a tenth of it each."""
    table = num_parameters // 10
    return Facts(
        name="m",
        stored_dtype=stored,
        num_bytes=num_parameters * 2 if packed is None else num_parameters // 2 + 4 * table,
        num_parameters=num_parameters,
        num_body_parameters=num_parameters - 2 * table,
        num_head_parameters=table,
        num_embedding_parameters=table,
        num_layers=10,
        quantisation=packed,
    )


def planned(
    *places: Device,
    stored: str = "bfloat16",
    num_parameters: int = BILLION,
    packed: Quantisation | None = None,
    **wishes: Any,
) -> LoadPlan:
    known = facts(stored=stored, num_parameters=num_parameters, packed=packed)
    return plan(PlanRequest(**wishes), known, places or (device(),))


def test_the_best_device_is_taken() -> None:
    made = planned(device("cuda"), device("cpu"))
    assert made.device.kind == "cuda"
    assert made.reasons[0] == "device cuda (a cuda): the best that this torch can use"


def test_a_device_that_is_asked_for_is_taken() -> None:
    made = planned(device("cuda"), device("cpu"), device="cpu")
    assert made.device.kind == "cpu"
    assert made.reasons[0] == "device cpu (a cpu): asked for"


def test_an_absent_device_is_refused_with_those_that_are_there() -> None:
    with pytest.raises(UsageError, match="'mps' cannot be used here, only cuda, cpu") as caught:
        planned(device("cuda"), device("cpu"), device="mps")
    assert "--device" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("bytes_by_dtype", "want"),
    [
        ({"BF16": 100}, "bfloat16"),
        ({"F16": 100}, "float16"),
        ({"F32": 100}, "float32"),
        ({"F64": 100}, "float32"),
        # Most of the bytes decide; whole numbers and unknown types have no say.
        ({"F32": 10, "BF16": 100}, "bfloat16"),
        ({"F32": 100, "BF16": 10}, "float32"),
        ({"I64": 1000, "BF16": 10}, "bfloat16"),
        ({"F8_E4M3": 1000}, "float32"),
        ({}, "float32"),
    ],
)
def test_a_checkpoint_is_stored_in_what_most_of_it_is(bytes_by_dtype: dict[str, int], want: str) -> None:
    assert stored_dtype(bytes_by_dtype) == want


@pytest.mark.parametrize(
    ("stored", "has_bf16", "want"),
    [
        ("bfloat16", True, "bfloat16"),
        ("float16", True, "bfloat16"),
        ("bfloat16", False, "float32"),
        ("float16", False, "float32"),
        ("float32", True, "float32"),
        ("float32", False, "float32"),
    ],
)
def test_the_dtype_follows_the_checkpoint_and_the_processor(stored: str, has_bf16: bool, want: str) -> None:
    assert planned(device(has_bf16=has_bf16), stored=stored).dtype == want
    assert planned(device(has_bf16=has_bf16), stored=stored, packed=GPTQ).dtype == want


def test_a_familys_row_decides_where_the_user_does_not() -> None:
    assert planned(row_dtype="float16").dtype == "float16"
    assert planned(row_dtype="float16").reasons[1] == "dtype float16: its family's row says so"
    assert planned(row_dtype="float16", dtype="float32").dtype == "float32"


@pytest.mark.parametrize("dtype", BYTES)
@pytest.mark.parametrize("has_bf16", [True, False])
def test_a_dtype_that_is_asked_for_is_taken(dtype: str, has_bf16: bool) -> None:
    made = planned(device(has_bf16=has_bf16), dtype=dtype, stored="float32")
    assert made.dtype == dtype
    assert made.reasons[1] == f"dtype {dtype}: asked for"


def test_a_float32_checkpoint_names_the_faster_choice_where_there_is_one() -> None:
    fast = planned(device(has_bf16=True), stored="float32")
    slow = planned(device(has_bf16=False), stored="float32")
    assert "--dtype bfloat16 would be faster" in fast.reasons[1]
    assert "--dtype" not in slow.reasons[1]


@pytest.mark.parametrize(("kind", "smaller"), [("cpu", "bfloat16"), ("cuda", "float16")])
def test_a_device_without_bfloat16_names_the_smaller_choice(kind: str, smaller: str) -> None:
    made = planned(device(kind, has_bf16=False))
    assert f"does not compute bfloat16 natively; --dtype {smaller} halves the memory" in made.reasons[1]


@pytest.mark.parametrize(("dtype", "width"), [("float32", 4), ("bfloat16", 2), ("float16", 2)])
def test_memory_is_counted_by_parameters_and_width(dtype: str, width: int) -> None:
    made = planned(dtype=dtype)
    assert made.num_bytes == width * BILLION + OVERHEAD_BYTES
    assert (made.weight_bytes, made.free_bytes) == (width * BILLION, 64 * GIB)
    assert made.size == f"{made.num_bytes / GIB:.1f} GiB of 64.0 GiB free"


def test_small_models_and_memories_are_told_in_small_units() -> None:
    with pytest.raises(DoesNotFitError) as caught:
        planned(device(free_bytes=100 * 1024**2), num_parameters=2_295_552)
    assert caught.value.message == (
        "m (2.3 million parameters) takes about 260.4 MiB in bfloat16, cpu has 100.0 MiB free"
    )
    with pytest.raises(DoesNotFitError) as caught:
        planned(device(free_bytes=OVERHEAD_BYTES + 10**8), num_parameters=BILLION)
    assert caught.value.hint == "what fits here in bfloat16 is a model of up to 50.0 million parameters"


def test_a_model_that_just_fits_is_planned_and_one_byte_less_is_not() -> None:
    need = 2 * BILLION + OVERHEAD_BYTES
    assert planned(device(free_bytes=need)).num_bytes == need
    with pytest.raises(DoesNotFitError):
        planned(device(free_bytes=need - 1))


def test_a_model_too_large_in_float32_is_told_when_bfloat16_fits() -> None:
    with pytest.raises(DoesNotFitError) as caught:
        planned(device(free_bytes=3 * GIB), dtype="float32")
    assert caught.value.message == (
        "m (1.0 billion parameters) takes about 4.0 GiB in float32, cpu has 3.0 GiB free"
    )
    assert caught.value.hint == (
        "--dtype bfloat16 takes 2.1 GiB and fits; --dtype bfloat16 --load-8bit takes 1.2 GiB and fits; "
        "--dtype bfloat16 --load-4bit takes 877.1 MiB and fits"
    )


@pytest.mark.parametrize(
    ("free_gib", "wishes", "told"),
    [
        (10, {}, ["--load-8bit", "--load-4bit"]),
        (6, {}, ["--load-4bit"]),
        (6, {"quantization": "8bit"}, ["--load-4bit"]),
        (6, {"quantization": "int8"}, ["--load-4bit"]),
    ],
)
def test_what_would_fit_is_proposed_the_smallest_loss_first(
    free_gib: int, wishes: dict[str, Any], told: list[str]
) -> None:
    with pytest.raises(DoesNotFitError) as caught:
        planned(device(free_bytes=free_gib * GIB), num_parameters=8 * BILLION, **wishes)
    assert [remedy.partition(" takes")[0] for remedy in str(caught.value.hint).split("; ")] == told


def test_more_gpus_and_an_emptier_one_are_proposed_before_any_loss() -> None:
    gpus = [device("cuda", index=index, free_bytes=free * GIB) for index, free in enumerate((6, 20))]
    with pytest.raises(DoesNotFitError) as caught:
        planned(*gpus, device(), num_parameters=8 * BILLION)
    remedies = [remedy.partition(" takes")[0] for remedy in str(caught.value.hint).split("; ")]
    assert remedies == ["--gpus 1", "--num-gpus 2", "--load-4bit"]


def test_what_a_remedy_names_is_no_way_out_where_the_files_or_the_device_forbid_it() -> None:
    for places, packed in (
        ((device(free_bytes=GIB),), GPTQ),
        ((device("mps", free_bytes=GIB), device(free_bytes=GIB)), None),
    ):
        with pytest.raises(DoesNotFitError, match="takes about") as caught:
            planned(*places, num_parameters=8 * BILLION, packed=packed)
        assert "--load" not in str(caught.value.hint)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_too_large_for_the_machine_is_told_what_would_fit(dtype: str) -> None:
    with pytest.raises(DoesNotFitError) as caught:
        planned(device(free_bytes=8 * GIB), dtype=dtype, num_parameters=70 * BILLION)
    assert caught.value.hint == "what fits here in bfloat16 is a model of up to 4.2 billion parameters"


def test_a_full_machine_fits_nothing_and_says_so() -> None:
    with pytest.raises(DoesNotFitError) as caught:
        planned(device(free_bytes=0))
    assert caught.value.hint == "nothing fits into so little"


def test_a_limit_for_gpus_that_is_a_setting_says_nothing_of_what_fits_on_a_cpu() -> None:
    wishes = {"max_gpu_memory": GIB, "settings": {"max_gpu_memory": "LLMCTL_MAX_GPU_MEMORY"}}
    with pytest.raises(DoesNotFitError, match=r"cpu has 8\.0 GiB free") as caught:
        planned(device(free_bytes=8 * GIB), num_parameters=8 * BILLION, **wishes)
    assert "gpu" not in str(caught.value.hint).lower()
    with pytest.raises(DoesNotFitError, match=r"cuda:0 may hold 1\.0 GiB of them \(LLMCTL_MAX_GPU_MEMORY\)"):
        planned(device("cuda", free_bytes=80 * GIB), device(), num_parameters=8 * BILLION, **wishes)


def test_every_choice_has_a_reason() -> None:
    reasons: Sequence[str] = planned().reasons
    assert [reason.split()[0] for reason in reasons] == ["device", "dtype"]


@pytest.mark.parametrize(
    ("place", "asked", "dtype", "method", "why"),
    [
        (device(), "8bit", "bfloat16", "int8", "--load-8bit"),
        (device(), "4bit", "bfloat16", "int4", "faster than nf4 on this cpu"),
        (device(), "4bit", "float32", "nf4", "faster in float32 than int4"),
        (device(), "4bit", "float16", "nf4", "faster in float16 than int4"),
        (device(has_bf16=False), "4bit", "bfloat16", "nf4", "faster in bfloat16 than int4"),
        (device("cuda"), "4bit", "bfloat16", "nf4", "by the kernels of bitsandbytes on cuda"),
        (device("cuda"), "8bit", "float16", "int8", "--load-8bit"),
        *((device(), method, "bfloat16", method, "asked for") for method in METHODS),
    ],
)
def test_the_method_is_the_fastest_of_its_bits_here_and_says_so(
    place: Device, asked: str, dtype: str, method: str, why: str
) -> None:
    made = planned(place, quantization=asked, dtype=dtype, skip=("lm_head",))
    assert made.quant == Scheme(body=method, skip=("lm_head",))
    assert made.reasons[2].startswith(f"quantisation {method}")
    assert why in made.reasons[2]


@pytest.mark.parametrize(
    ("asked", "dtype", "width", "place", "slow"),
    [
        ("8bit", "bfloat16", 256, device(), "layers 256 wide are too small for int8 to be faster"),
        ("8bit", "float32", 511, device(), "layers 511 wide"),
        ("8bit", "bfloat16", 512, device(), None),
        ("8bit", "bfloat16", None, device(), None),
        ("8bit", "bfloat16", 256, device("cuda"), None),
        ("4bit", "bfloat16", 256, device(), None),
        ("4bit", "float32", 4096, device(), "in float32 this cpu is slower with 4 bits than with dense"),
        ("4bit", "float32", 4096, device("cuda"), None),
    ],
)
def test_bits_that_gain_no_speed_say_so(
    asked: str, dtype: str, width: int | None, place: Device, slow: str | None
) -> None:
    known = replace(facts(), hidden_size=width)
    made = plan(PlanRequest(quantization=asked, dtype=dtype), known, [place])
    assert ("it saves memory here, not time" in made.reasons[2]) == (slow is not None)
    assert (slow or "") in made.reasons[2]


def test_the_table_that_encoder_and_decoder_share_stays_dense() -> None:
    made = plan(PlanRequest(quantization="8bit"), replace(facts(), is_encoder_decoder=True), [device()])
    assert made.quant == Scheme(body="int8", embedding=None)
    assert "the table of tokens, which stays dense" in made.reasons[2]
    assert made.weight_bytes > planned(quantization="8bit").weight_bytes


def test_packed_weights_take_their_bits_and_a_tied_head_a_copy() -> None:
    table, body = 10**8, 8 * 10**8
    int8, int4 = METHODS["int8"].bits_per_weight / 8, METHODS["int4"].bits_per_weight / 8
    made = planned(quantization="int4")
    assert made.num_bytes == int(body * int4) + 2 * int(table * int8) + OVERHEAD_BYTES
    tied = replace(facts(), num_head_parameters=0, num_parameters=BILLION - table)
    assert plan(PlanRequest(quantization="int4"), tied, [device()]).num_bytes == made.num_bytes


@pytest.mark.parametrize("asked", ["8bit", "4bit", "int8", "nf4", "awq"])
def test_what_is_quantised_already_is_not_quantised_again(asked: str) -> None:
    with pytest.raises(UsageError, match=r"m is quantised already \(GPTQ, 4 bits, groups of 128\)") as caught:
        planned(packed=GPTQ, quantization=asked)
    assert "leave it out" in str(caught.value.hint)


@pytest.mark.parametrize("asked", [None, "none", "gptq"])
def test_a_packed_checkpoint_runs_as_it_is(asked: str | None) -> None:
    made = planned(packed=GPTQ, quantization=asked)
    assert (made.quant, made.checkpoint_format) == (None, "GPTQ, 4 bits, groups of 128")
    assert made.num_bytes == facts(packed=GPTQ).num_bytes + OVERHEAD_BYTES


SETTING = {"quantization": "LLMCTL_QUANTIZATION"}


def test_a_setting_quantises_what_is_not_quantised_and_leaves_the_rest() -> None:
    dense = planned(quantization="int8", settings=SETTING)
    assert dense.quant is not None
    assert any(reason.endswith(": LLMCTL_QUANTIZATION") for reason in dense.reasons)
    packed = planned(packed=GPTQ, quantization="int8", settings=SETTING)
    assert packed.quant is None
    assert "not quantization = int8 (LLMCTL_QUANTIZATION)" in " ".join(packed.reasons)
    assert planned(packed=FP8, quantization="int8", settings=SETTING).quant == dense.quant


def test_a_setting_that_a_device_has_no_kernels_for_is_named() -> None:
    with pytest.raises(
        UsageError, match=r"^quantization = int8 \(LLMCTL_QUANTIZATION\): llmctl has no"
    ) as caught:
        planned(device("mps"), device(), quantization="int8", settings=SETTING)
    assert caught.value.hint == "give --quantization none, or run it on the CPU with --device cpu"


@pytest.mark.parametrize(
    ("packed", "asked", "summary"),
    [
        (None, None, "bfloat16 on cpu"),
        (None, "8bit", "bfloat16 -> int8 on cpu"),
        (GPTQ, None, "GPTQ, 4 bits, groups of 128, in bfloat16 on cpu"),
        (FP8, None, "bfloat16 on cpu"),
        (FP8, "4bit", "bfloat16 -> int4 on cpu"),
    ],
)
def test_a_plan_has_a_short_form(packed: Quantisation | None, asked: str | None, summary: str) -> None:
    assert planned(packed=packed, quantization=asked).summary == summary


def test_fewer_bits_than_a_kernel_has_are_widened() -> None:
    three, four = (planned(packed=replace(GPTQ, bits=bits)).num_bytes for bits in (3, 4))
    packed = facts(packed=GPTQ).num_bytes - 2 * 2 * 10**8
    assert three - four == packed * 4 // 3 - packed


def test_small_floats_are_decoded_and_may_be_packed_anew() -> None:
    made = planned(packed=FP8)
    assert (made.num_bytes, made.checkpoint_format) == (2 * BILLION + OVERHEAD_BYTES, "FP8, 8 bits")
    assert made.reasons[2] == "quantisation: none here, the FP8, 8 bits file is decoded to bfloat16"
    packed = planned(packed=FP8, quantization="8bit").quant
    assert packed is not None
    assert packed.body == "int8"


@pytest.mark.parametrize(
    ("asked", "packed", "said"),
    [
        ("gptq", None, "--quantization gptq does not agree with m: it is not quantised"),
        ("gptq", FP8, "--quantization gptq does not agree with m: its config says fp8"),
        ("int3", None, "quantization must be one of none, int8"),
        ("exllama", None, "quantization 'exllama' is not offered"),
        ("xft", None, "quantization 'xft' is not offered"),
    ],
)
def test_a_format_that_the_checkpoint_does_not_have_is_refused(
    asked: str, packed: Quantisation | None, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        planned(packed=packed, quantization=asked)


@pytest.mark.parametrize("kind", ["mps", "xpu", "npu"])
def test_a_device_without_kernels_is_named(kind: str) -> None:
    with pytest.raises(UsageError, match=f"--load-4bit: llmctl has no kernels for nf4 on {kind}"):
        planned(device(kind), device(), quantization="4bit")
    with pytest.raises(UsageError, match=f"llmctl has no kernels for that on {kind}"):
        planned(device(kind), device(), packed=GPTQ)


def test_the_devices_of_this_machine_end_with_its_cpu() -> None:
    found = devices.available()
    assert found[-1].kind == "cpu"
    assert len({each.place for each in found}) == len(found)
    assert all(0 < each.free_bytes <= each.total_bytes and each.name for each in found)


def test_bfloat16_is_native_only_where_the_processor_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, has_bf16 in (({"avx2"}, False), ({"amx_bf16"}, True), ({"avx512_bf16"}, True)):
        monkeypatch.setattr(hardware, "cpu_flags", lambda flags=flags: frozenset(flags))
        assert hardware.cpu().has_bf16 is has_bf16


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 is full", "CUDA out of memory"),
        (
            "MPS backend out of memory (MPS allocated: 1 GB)",
            "MPS backend out of memory (MPS allocated: 1 GB)",
        ),
        ("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.", None),
        ("shapes do not match", None),
    ],
)
def test_lack_of_memory_is_told_from_other_failures(message: str, said: str | None) -> None:
    found = devices.out_of_memory(RuntimeError(message))
    assert found == (message if "not enough" in message else said)


def test_planning_needs_no_torch() -> None:
    code = "import sys, llmctl.loading.planning.plan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
