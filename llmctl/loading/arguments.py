"""What Python programs may give to `load_model`, checked and brought into the words of a load plan.

Errors of loading name flags of the command line; `in_python_words` makes these the parameters that they mean.
Light to import: torch's own objects are known by their names.
"""

import contextlib
import os
import re
import reprlib
from collections.abc import Iterator, Sequence
from typing import Any

from llmctl.core.errors import LlmctlError, UsageError
from llmctl.core.places import expanded
from llmctl.core.sizes import parse_size
from llmctl.loading.planning.placement import GPU_KINDS

PARAMETERS = (
    *("device", "num_gpus", "gpus", "max_gpu_memory", "dtype", "load_8bit", "load_4bit", "quantization"),
    *("cpu_offloading", "revision", "trust_remote_code"),
)
"""Those of `load_model` that the command line has as flags."""
_FLAG = re.compile(rf"--({'|'.join(PARAMETERS).replace('_', '-')})\b")
_QUANT_CONFIG = re.compile(
    r"--quant-config (?:quant_method=\w+ --quant-config )?(?P<key>\w+)=(?P<value>[\w.]+)"
)
_CONFIG_FIELDS = {"bits": "wbits", "group_size": "groupsize", "desc_act": "act_order"}


@contextlib.contextmanager
def in_python_words() -> Iterator[None]:
    """Let errors name the parameters of `load_model` where they name flags."""
    try:
        yield
    except LlmctlError as error:
        error.message = _translated(error.message)
        error.hint = _translated(error.hint) if error.hint is not None else None
        error.args = (error.message,)
        raise


def _translated(text: str) -> str:
    text = _QUANT_CONFIG.sub(_config_field, text)
    return _FLAG.sub(lambda found: found[1].replace("-", "_"), text)


def _config_field(found: re.Match[str]) -> str:
    field = _CONFIG_FIELDS.get(found["key"])
    place = "gptq_config or awq_config" if field is not None else "the quantization_config of config.json"
    return f"{field or found['key']}={found['value']} in {place}"


def must_be(is_right: bool, name: str, wanted: str, given: object) -> None:
    """Raise `UsageError` over the parameter `name` where what was given is not right."""
    if not is_right:
        is_plain = type(given).__module__ == "builtins"
        shown = reprlib.repr(given) if is_plain else f"an object of {type(given).__name__}"
        raise UsageError(f"{name} must be {wanted}, not {shown}")


def is_whole(value: object) -> bool:
    """Whether it is a number as whole numbers are written, which True is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def check_switches(**switches: object) -> None:
    """Raise `UsageError` for one that is neither True nor False: "false" would switch it on."""
    for name, value in switches.items():
        must_be(isinstance(value, bool), name, "True or False", value)


def check_texts(**texts: object) -> None:
    """Raise `UsageError` for one that is neither text nor None."""
    for name, value in texts.items():
        must_be(value is None or isinstance(value, str), name, "text or None", value)


def check_progress(given: object) -> None:
    """Raise `UsageError` for what cannot be told of stages."""
    has_methods = all(callable(getattr(given, name, None)) for name in ("stage", "advance"))
    is_right = given is None or (has_methods and not isinstance(given, type))
    must_be(is_right, "progress", "None or an object with the methods stage and advance", given)


def model_name(given: object) -> str:
    """The name of a model; a path object is a folder, and never an embedded model or a hub id."""
    path = os.fspath(given) if isinstance(given, os.PathLike) else given
    must_be(
        isinstance(path, str), "model_path", "a folder, `demo`, or a hub id such as Qwen/Qwen3-0.6B", given
    )
    return str(expanded(str(path)).absolute() if path is not given else path)


def devices(device: object, gpus: object) -> tuple[str, tuple[int, ...] | None]:
    """The kind of device and the numbers of GPUs that "cuda:1", a `torch.device` and `gpus` say."""
    is_torchs = _is_of_torch(device, "device")
    must_be(isinstance(device, str) or is_torchs, "device", "a name such as 'cpu' or a torch.device", device)
    named = str(device)
    numbers = _gpu_numbers(gpus)
    kind, _, index = named.partition(":")
    if kind in GPU_KINDS and re.fullmatch("[0-9]{1,4}", index):
        must_be(numbers is None, "gpus", f"left out where device is {named!r}", gpus)
        return kind, (int(index),)
    # Of the others there is one.
    return (kind if index == "0" else named), numbers


def _gpu_numbers(gpus: object) -> tuple[int, ...] | None:
    if gpus is None:
        return None
    is_list = isinstance(gpus, Sequence) and not isinstance(gpus, str) and len(gpus) > 0
    numbers: Sequence[Any] = gpus if is_list and isinstance(gpus, Sequence) else ("",)
    is_right = all(is_whole(number) and number >= 0 for number in numbers)
    must_be(is_right, "gpus", "a list of whole numbers such as [0, 2]", gpus)
    return tuple(numbers)


def num_gpus(given: object) -> int:
    """How many GPUs are asked for."""
    number = given if isinstance(given, int) and is_whole(given) else 0
    must_be(number >= 1, "num_gpus", "a whole number >= 1", given)
    return number


def num_bytes(given: object) -> int | None:
    """What "20GiB" and a number of bytes come to; None: there is no limit."""
    if given is None:
        return None
    if isinstance(given, str):
        return parse_size(given, flag="max_gpu_memory")
    number = given if isinstance(given, int) and is_whole(given) else 0
    must_be(number >= 1, "max_gpu_memory", "a size such as '20GiB', or whole bytes >= 1", given)
    return number


def dtype_name(given: object) -> str:
    """The name of a torch dtype; None is "auto"."""
    if given is None:
        return "auto"
    is_right = isinstance(given, str) or _is_of_torch(given, "dtype")
    must_be(is_right, "dtype", "a torch.dtype or its name, such as 'bfloat16'", given)
    return str(given).removeprefix("torch.")


def _is_of_torch(value: object, name: str) -> bool:
    return (type(value).__module__, type(value).__name__) == ("torch", name)
