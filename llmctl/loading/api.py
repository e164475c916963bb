"""`load_model` and its kin with the names, the order and the meaning that they have in FastChat.

Light to import: torch comes with the first model.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llmctl.core.errors import AmbiguousError, NotFoundError, UsageError
from llmctl.core.lazy import load
from llmctl.core.places import expanded
from llmctl.core.progress import Progress, SilentProgress
from llmctl.core.sizes import parse_size
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

    ckpt: str | None = None
    """File or folder of the weights, where they lie apart from config and tokenizer."""
    wbits: int = 16
    """2, 3, 4 or 8; 16 is: no GPTQ."""
    groupsize: int = -1
    act_order: bool = True


@dataclass
class AWQConfig:
    """Of an AWQ checkpoint; what is left at its default is read from the files."""

    ckpt: str | None = None
    """File or folder of the weights, where they lie apart from config and tokenizer."""
    wbits: int = 16
    """4; 16 is: no AWQ."""
    groupsize: int = -1


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
    model_path: str,
    device: str = "auto",
    num_gpus: int = 1,
    max_gpu_memory: str | int | None = None,
    dtype: Any = None,
    load_8bit: bool = False,
    cpu_offloading: bool = False,
    gptq_config: GptqConfig | None = None,
    awq_config: AWQConfig | None = None,
    exllama_config: ExllamaConfig | None = None,
    xft_config: XftConfig | None = None,
    revision: str = "main",
    debug: bool = False,
    *,
    load_4bit: bool = False,
    quantization: str | None = None,
    gpus: tuple[int, ...] | None = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> tuple[Any, Any]:
    """The model in evaluation mode, and its tokenizer.

    `dtype` is torch's or its name; `max_gpu_memory` is for each GPU, as "20GiB" or in bytes; `gpus` are their
    numbers, of which the first `num_gpus` are used, or all where that is 1. `debug` logs the model's layers.
    Raises what `loader.load` raises, and `UsageError` for wishes that contradict each other.
    """
    _refuse_gone(exllama_config, xft_config)
    formats = _formats(gptq_config, awq_config)
    memory = (
        parse_size(max_gpu_memory, flag="max_gpu_memory")
        if isinstance(max_gpu_memory, str)
        else max_gpu_memory
    )
    wishes = PlanRequest(
        device=device,
        dtype="auto" if dtype is None else str(dtype).removeprefix("torch."),
        num_gpus=None if gpus is not None and num_gpus == 1 else num_gpus,
        gpus=gpus,
        max_gpu_memory=memory,
        quantization=_quantization(load_8bit=load_8bit, load_4bit=load_4bit, named=quantization),
        cpu_offloading=cpu_offloading,
    )
    with _place(model_path, gptq_config or awq_config, formats) as folder:
        request = load("llmctl.loading.loader:LoadRequest")(
            model=folder,
            # FastChat says "main" for folders too, which have no revisions.
            revision=None if revision == "main" else revision,
            plan=wishes,
            formats=formats,
            trust_remote_code=trust_remote_code,
            **_of_family(model_path),
        )
        loaded = load("llmctl.loading.loader:load")(request, progress or SilentProgress())
    if debug:
        log.warning("%s", loaded.model)
    return loaded.model, loaded.tokenizer


def get_context_length(config: Any) -> int:
    """Tokens of prompt and answer together that a model takes, by its transformers config or a mapping."""
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
    wishes = (("8bit", load_8bit), ("4bit", load_4bit), (named, bool(named)))
    asked = [name for name, is_asked in wishes if is_asked]
    if len(asked) > 1:
        raise UsageError("load_8bit, load_4bit and quantization do not go together", hint="give one")
    return asked[0] if asked else None


def _formats(gptq: GptqConfig | None, awq: AWQConfig | None) -> dict[str, object]:
    """The user's words on a quantised checkpoint, as its config spells them; defaults are no words."""
    found: dict[str, object] = {}
    for config, method in ((gptq, "gptq"), (awq, "awq")):
        if config is None or config.wbits >= _DENSE_BITS:
            continue
        if found:
            raise UsageError("gptq_config and awq_config do not go together", hint="give one")
        found = {"quant_method": method, "bits": config.wbits}
        if config.groupsize != _ANY_GROUP:
            found["group_size"] = config.groupsize
        if isinstance(config, GptqConfig) and not config.act_order:
            found["desc_act"] = False
    return found


@contextlib.contextmanager
def _place(
    model_path: str, config: GptqConfig | AWQConfig | None, formats: Mapping[str, object]
) -> Iterator[str]:
    """The name or folder that loading is asked for."""
    ckpt = config.ckpt if config is not None and formats else None
    # FastChat's worker names the model's own folder where nobody says another.
    if ckpt is None or expanded(ckpt) == expanded(model_path):
        yield model_path
        return
    folder = find_here(model_path, os.environ)
    if folder is None:
        raise NotFoundError(
            f"{model_path!r} is not on this machine, and ckpt only has its weights",
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
