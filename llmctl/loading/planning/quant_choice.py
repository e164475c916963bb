"""By which method a model is quantised while it loads: by the request, the files and the device. No torch."""

from collections.abc import Mapping
from dataclasses import replace

from llmctl.core.errors import UsageError
from llmctl.loading.planning.hardware import Device
from llmctl.loading.planning.request import Facts, PlanRequest
from llmctl.quant import foreign
from llmctl.quant.formats.table import READERS
from llmctl.quant.methods import METHODS, Scheme

NONE = "none"
BEST_OF = {"8bit": ("int8",), "4bit": ("int4", "nf4")}
"""Requests for so many bits, and the methods that have them."""
FLAGS: Mapping[str, str] = {"8bit": "--load-8bit", "4bit": "--load-4bit"}
FORMATS = (*READERS, "gguf")
"""Formats of files."""
QUANTIZATIONS = (NONE, *METHODS, *BEST_OF, *FORMATS)
"""All that may be asked for."""
_PATHS: Mapping[str, tuple[str, ...]] = {"cpu": tuple(METHODS), "cuda": tuple(METHODS)}
"""Methods whose kernels somebody has run, by the kind of device."""
_NARROW = 512
"""Rows of fewer numbers take a CPU no longer dense than as int8, by `llmctl bench layers`."""
_GONE = {
    "exllama": "llmctl reads GPTQ files itself: leave it out; --context limits the context, "
    "--max-gpu-memory splits the model",
    "exllamav2": "EXL2 files need that package: take the 16-bit checkpoint and --load-4bit",
    "xft": "the ordinary checkpoint runs on the CPU, faster with --load-8bit",
}


def check_name(quantization: str, device: str = "cpu") -> None:
    """Raise `UsageError` for a name that is none of `QUANTIZATIONS`."""
    if quantization in foreign.PACKAGES and quantization not in _GONE:
        raise foreign.refuse(quantization, device)
    if quantization in _GONE:
        raise UsageError(f"quantization {quantization!r} is not offered", hint=_GONE[quantization])
    if quantization not in QUANTIZATIONS:
        raise UsageError(f"quantization must be one of {', '.join(QUANTIZATIONS)}, not {quantization!r}")


def choose(
    request: PlanRequest, facts: Facts, device: Device, dtype: str
) -> tuple[Scheme | None, str | None]:
    """How dense weights are packed, and why; None leaves them, with a reason where there is something to say.

    Raises `UsageError` for a name that is none, that contradicts the checkpoint, or that `device` has no
    kernels for.
    """
    asked, stored = request.quantization, facts.quantisation
    if asked is not None:
        check_name(asked, device.kind)
    if stored is not None and not stored.is_decoded:
        is_setting = "quantization" in request.settings
        _check_packed(None if is_setting else asked, facts, device)
        passed = f", not {_called(request)}" if is_setting and asked != NONE else ""
        return None, f"quantisation: the checkpoint's own ({stored.title}){passed}"
    if asked in FORMATS:
        _check_format(asked, facts)
    if asked is None or asked == NONE or asked in FORMATS:
        told = f"quantisation: none here, the {stored.title} file is decoded to {dtype}" if stored else None
        return None, told
    said = request.settings.get("quantization") or FLAGS.get(asked, "asked for")
    method, reason = _method(asked, device, dtype, said=said)
    _check_path(request, method, device)
    if slow := _why_slow(method, facts, device, dtype):
        reason = f"{reason}; it saves memory here, not time: {slow}"
    scheme = Scheme(body=method, skip=request.skip)
    if facts.is_encoder_decoder:
        reason = f"{reason}; encoder and decoder look up in the table of tokens, which stays dense"
        scheme = replace(scheme, embedding=None)
    return scheme, reason


def flag_of(asked: str) -> str:
    """How a user asks for it on the command line."""
    return FLAGS.get(asked, f"--quantization {asked}")


def methods_for(device: Device) -> tuple[str, ...]:
    """The keys of `METHODS` that a device has kernels for."""
    return _PATHS.get(device.kind, ())


def _method(asked: str, device: Device, dtype: str, *, said: str) -> tuple[str, str]:
    """The method that `asked` means on this device, and why; `said` is who asked."""
    if asked not in BEST_OF:
        return asked, f"quantisation {asked}, {METHODS[asked].title}: {said}"
    if asked == "8bit":
        return "int8", f"quantisation int8, {METHODS['int8'].title}: {said}"
    if device.kind == "cpu" and device.has_bf16 and dtype == "bfloat16":
        why = "faster than nf4 on this cpu, which computes bfloat16 natively"
        return "int4", f"quantisation int4: {said}, {why}"
    if device.kind == "cpu":
        why = f"faster in {dtype} than int4, which needs bfloat16 computed natively"
    else:
        why = f"by the kernels of bitsandbytes on {device.kind}"
    return "nf4", f"quantisation nf4: {said}, {why}"


def _why_slow(method: str, facts: Facts, device: Device, dtype: str) -> str | None:
    """Why a method gains no speed over dense weights; None where it does, or nobody has measured it."""
    if device.kind != "cpu":
        return None
    if dtype == "float32" and METHODS[method].bits == 4:
        return "in float32 this cpu is slower with 4 bits than with dense weights"
    width = facts.hidden_size
    if method == "int8" and width is not None and width < _NARROW:
        return f"layers {width} wide are too small for int8 to be faster, those of {_NARROW} are not"
    return None


def _called(request: PlanRequest) -> str:
    asked = request.quantization or NONE
    return request.called("quantization", asked) if "quantization" in request.settings else flag_of(asked)


def _check_path(request: PlanRequest, method: str, device: Device) -> None:
    if method in methods_for(device):
        return
    called = _called(request)
    undo = f"give --quantization {NONE}" if "quantization" in request.settings else f"leave {called} out"
    raise UsageError(
        f"{called}: llmctl has no kernels for {method} on {device.kind}, only on {', '.join(_PATHS)}",
        hint=f"{undo}, or run it on the CPU with --device cpu",
    )


def _check_packed(asked: str | None, facts: Facts, device: Device) -> None:
    stored = facts.quantisation
    assert stored is not None
    own = (NONE, stored.method, stored.method.replace("_", "-"))
    if asked is not None and asked not in own:
        raise UsageError(
            f"{flag_of(asked)}: {facts.name} is quantised already ({stored.title})",
            hint="leave it out",
        )
    if device.kind not in _PATHS:
        raise UsageError(
            f"{facts.name} is quantised ({stored.title}), and llmctl has no kernels for that on "
            f"{device.kind}, only on {', '.join(_PATHS)}",
            hint="run it on the CPU with --device cpu, or take its 16-bit checkpoint",
        )


def _check_format(asked: str, facts: Facts) -> None:
    stored = facts.quantisation
    if stored is not None and asked == stored.method:
        return
    found = f"its config says {stored.method}" if stored is not None else "it is not quantised"
    raise UsageError(
        f"--quantization {asked} does not agree with {facts.name}: {found}",
        hint=f"leave it out; to quantise while loading there are {', '.join(METHODS)}",
    )
