"""`load_model` and its kin with the names, the order and the meaning that they have in FastChat.

Light to import: torch comes with the first model.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmctl.core.errors import AmbiguousError, NotFoundError, UsageError
from llmctl.core.lazy import load
from llmctl.core.places import expanded
from llmctl.core.progress import Progress, SilentProgress
from llmctl.loading import arguments
from llmctl.loading.apart import joined
from llmctl.loading.facts.context import context_length
from llmctl.loading.hub.local_models import find_here
from llmctl.loading.planning.request import PlanRequest

log = logging.getLogger(__name__)

_DENSE_BITS = 16
_ANY_GROUP = -1


@dataclass
class GptqConfig:
    """Of a GPTQ checkpoint; what is left at its default is read from the files."""

    ckpt: str | os.PathLike[str] | None = None
    """File or folder of the weights, where they lie apart from config and tokenizer."""
    wbits: int = 16
    """2, 3, 4 or 8; 16 says nothing."""
    groupsize: int = -1
    act_order: bool = True

    def __post_init__(self) -> None:
        _check_fields(self)
        arguments.check_switches(act_order=self.act_order)


@dataclass
class AWQConfig:
    """Of an AWQ checkpoint; what is left at its default is read from the files."""

    ckpt: str | os.PathLike[str] | None = None
    """File or folder of the weights, where they lie apart from config and tokenizer."""
    wbits: int = 16
    """4; 16 says nothing."""
    groupsize: int = -1

    def __post_init__(self) -> None:
        _check_fields(self)


@dataclass
class ExllamaConfig:
    """Of FastChat's ExLlamaV2 engine, which llmctl does not use: `load_model` says what to do instead."""

    max_seq_len: int
    gpu_split: str | None = None
    cache_8bit: bool = False


@dataclass
class XftConfig:
    """Of FastChat's xFasterTransformer engine, which llmctl does not use."""

    max_seq_len: int = 4096
    data_type: str = "bf16_fp16"


def load_model(
    model_path: str | os.PathLike[str],
    device: Any = "auto",
    num_gpus: int = 1,
    max_gpu_memory: str | int | None = None,
    dtype: Any = None,
    load_8bit: bool = False,
    cpu_offloading: bool = False,
    gptq_config: GptqConfig | None = None,
    awq_config: AWQConfig | None = None,
    exllama_config: ExllamaConfig | None = None,
    xft_config: XftConfig | None = None,
    revision: str | None = "main",
    debug: bool = False,
    *,
    load_4bit: bool = False,
    quantization: str | None = None,
    gpus: Sequence[int] | None = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> tuple[Any, Any]:
    """The model in evaluation mode, and its tokenizer.

    `device` and `dtype` are torch's or their names; `max_gpu_memory` is for each GPU, as "20GiB" or in bytes;
    `gpus` are their numbers, of which the first `num_gpus` are used, or all where that is 1. `debug` logs the
    model's layers. Raises what `loader.load` raises, and `UsageError` for wishes of a wrong type or that
    contradict each other.
    """
    switches = {"load_8bit": load_8bit, "load_4bit": load_4bit, "cpu_offloading": cpu_offloading}
    with arguments.in_python_words():
        arguments.check_switches(**switches, debug=debug, trust_remote_code=trust_remote_code)
        arguments.check_texts(quantization=quantization, revision=revision)
        arguments.check_progress(progress)
        _refuse_gone(exllama_config, xft_config)
        name, count = arguments.model_name(model_path), arguments.num_gpus(num_gpus)
        kind, numbers = arguments.devices(device, gpus)
        formats, ckpt = _words(name, gptq_config, awq_config)
        wishes = PlanRequest(
            device=kind,
            dtype=arguments.dtype_name(dtype),
            num_gpus=None if numbers is not None and count == 1 else count,
            gpus=numbers,
            max_gpu_memory=arguments.num_bytes(max_gpu_memory),
            quantization=_quantization(load_8bit=load_8bit, load_4bit=load_4bit, named=quantization),
            cpu_offloading=cpu_offloading,
        )
        with _place(name, ckpt, formats) as folder:
            request = load("llmctl.loading.loader:LoadRequest")(
                model=folder,
                # FastChat says "main" for folders too, which have no revisions.
                revision=None if revision == "main" else revision,
                plan=wishes,
                formats=formats,
                formats_otherwise=_otherwise(formats),
                trust_remote_code=trust_remote_code,
                **_of_family(name),
            )
            loaded = load("llmctl.loading.loader:load")(request, progress or SilentProgress())
    if debug:
        log.warning("%s", loaded.model)
    return loaded.model, loaded.tokenizer


def get_context_length(config: Any) -> int:
    """Tokens of prompt and answer together that a model takes, by its transformers config or a mapping."""
    is_object = hasattr(config, "to_dict") and not isinstance(config, type)
    is_config = isinstance(config, Mapping) or is_object
    arguments.must_be(is_config, "config", "a transformers config or a mapping", config)
    return context_length(config if isinstance(config, Mapping) else config.to_dict())


def _refuse_gone(exllama: ExllamaConfig | None, xft: XftConfig | None) -> None:
    for config, engine, hint in (
        (
            exllama,
            "ExLlamaV2",
            "leave exllama_config out: llmctl reads GPTQ files itself, takes the context from the model, and "
            "splits by max_gpu_memory and gpus",
        ),
        (xft, "xFasterTransformer", "leave xft_config out: the ordinary checkpoint runs on the CPU"),
    ):
        if config is not None:
            raise UsageError(f"llmctl does not use the {engine} package", hint=hint)


def _quantization(*, load_8bit: bool, load_4bit: bool, named: str | None) -> str | None:
    wishes = (("8bit", load_8bit), ("4bit", load_4bit), (named, named is not None))
    asked = [name for name, is_asked in wishes if is_asked]
    if len(asked) > 1:
        raise UsageError("load_8bit, load_4bit and quantization do not go together", hint="give one")
    return asked[0] if asked else None


def _check_fields(config: GptqConfig | AWQConfig) -> None:
    for name, number in (("wbits", config.wbits), ("groupsize", config.groupsize)):
        arguments.must_be(arguments.is_whole(number), name, "a whole number", number)
    # An empty name would be the current folder.
    is_place = config.ckpt is None or (isinstance(config.ckpt, str | os.PathLike) and config.ckpt != "")
    arguments.must_be(is_place, "ckpt", "a file or folder", config.ckpt)


def _words(model: str, gptq: object, awq: object) -> tuple[dict[str, object], str | None]:
    """What the user says of a quantised checkpoint, as its config spells it, and where its weights lie apart.

    Defaults are no words: FastChat's worker gives both configs with every model.
    """
    found: list[tuple[dict[str, object], str | None]] = []
    for config, kind, method in ((gptq, GptqConfig, "gptq"), (awq, AWQConfig, "awq")):
        if config is None:
            continue
        wanted = f"an llmctl.loading.{kind.__name__}"
        arguments.must_be(isinstance(config, kind), f"{method}_config", wanted, config)
        assert isinstance(config, GptqConfig | AWQConfig)
        words, ckpt = _formats(config), _apart(config, model)
        if words or ckpt is not None:
            found.append(({"quant_method": method, **words}, ckpt))
    if len(found) > 1:
        raise UsageError("gptq_config and awq_config do not go together", hint="give one")
    return found[0] if found else ({}, None)


def _formats(config: GptqConfig | AWQConfig) -> dict[str, object]:
    found: dict[str, object] = {}
    if config.wbits != _DENSE_BITS:
        found["bits"] = config.wbits
    if config.groupsize != _ANY_GROUP:
        found["group_size"] = config.groupsize
    # FastChat's worker says so by default, and means nothing by it where it says no more.
    if found and isinstance(config, GptqConfig) and not config.act_order:
        found["desc_act"] = False
    return found


def _otherwise(formats: Mapping[str, object]) -> dict[str, object]:
    """Who says the bits and leaves the groups at their default has none, unless the files say better."""
    return {"group_size": _ANY_GROUP} if "bits" in formats and "group_size" not in formats else {}


def _apart(config: GptqConfig | AWQConfig, model: str) -> str | None:
    """Where the weights lie; None for the model's own folder, which FastChat's worker names too."""
    if config.ckpt is None or expanded(os.fspath(config.ckpt)).absolute() == expanded(model).absolute():
        return None
    return os.fspath(config.ckpt)


@contextlib.contextmanager
def _place(model: str, ckpt: str | None, formats: Mapping[str, object]) -> Iterator[str]:
    """The name or folder that loading is asked for."""
    if ckpt is None:
        yield model
        return
    folder = find_here(model, os.environ)
    if folder is None:
        raise NotFoundError(
            f"{model!r} is not on this machine, and ckpt only has its weights",
            hint="give a folder with config.json and the tokenizer, or download the model first",
        )
    with joined(folder, ckpt, formats) as place:
        yield str(place)


def _of_family(model_path: str) -> dict[str, Any]:
    """What the adapter of the model, built in or registered, asks of loading."""
    from llmctl.adapters import BaseModelAdapter, get_model_adapter
    from llmctl.adapters.base import FamilyAdapter

    try:
        adapter = get_model_adapter(model_path)
    except (NotFoundError, AmbiguousError) as error:
        log.info("%s", error.message)
        return {}
    if isinstance(adapter, FamilyAdapter):
        return {"row": adapter.family.loading, "generates": adapter.family.generates}
    is_own = getattr(type(adapter), "load_model", None) is not BaseModelAdapter.load_model
    return {"own_loader": adapter.load_model} if is_own else {}
