"""Loads a located checkpoint as its plan says: transformers' own modeling code, safetensors weights."""

import contextlib
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from llmctl.core import sampling
from llmctl.core.errors import BadFileError, DoesNotFitError, UsageError
from llmctl.core.progress import Progress
from llmctl.core.types import SamplingParams
from llmctl.loading import devices
from llmctl.loading.checkpoint import Checkpoint, locate
from llmctl.loading.context import context_length
from llmctl.loading.plan import LoadPlan, plan

log = logging.getLogger(__name__)

_LAYER = re.compile(r"\.(?:layers?|h|blocks)\.(\d+)\.")
PACKED_SHARE = 0.1
FALLBACK_TEMPERATURE = 0.7
"""For models whose makers recommend nothing, as in FastChat."""
# What transformers raises over files that are missing, damaged or at odds with each other.
_UNREADABLE = (OSError, ValueError, TypeError, LookupError, AttributeError, ImportError, ArithmeticError)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """What the user wants in memory."""

    model: str
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model ready to run, and what the engine must know of it."""

    name: str
    model: Any
    """A transformers causal language model in evaluation mode."""
    tokenizer: Any
    plan: LoadPlan
    context_length: int
    vocabulary_size: int
    end_ids: frozenset[int]
    """Tokens that end an answer."""
    default_sampling: SamplingParams


def load(request: LoadRequest, progress: Progress) -> LoadedModel:
    """Find, check, plan and load a model.

    Raises every kind of `LlmctlError` that `checkpoint.locate` and `plan.plan` raise; `BadFileError` for
    an architecture that cannot be run, a missing tokenizer or weights that do not belong to the config.
    """
    checkpoint = locate(request.model, revision=request.revision, progress=progress)
    _check_architecture(checkpoint, request)
    chosen = plan(
        device=request.device,
        dtype=request.dtype,
        devices=devices.available(),
        bytes_by_dtype=checkpoint.bytes_by_dtype,
        num_parameters=checkpoint.num_parameters,
        name=checkpoint.name,
    )
    for reason in chosen.reasons:
        log.info("%s", reason)
    progress.stage(f"load {checkpoint.name}")
    with _quiet_transformers():
        config = _config(checkpoint, request)
        tokenizer = _tokenizer(checkpoint, request, config)
        model = _model(checkpoint, request, chosen, config)
    return _loaded(checkpoint, chosen, model, tokenizer)


def _check_architecture(checkpoint: Checkpoint, request: LoadRequest) -> None:
    """Refuse what transformers could not run, before any weight is read."""
    config, name = checkpoint.config, checkpoint.name
    kind = config.get("model_type")
    is_known = isinstance(kind, str) and kind in CONFIG_MAPPING
    if "auto_map" in config and not is_known:
        if not request.trust_remote_code:
            raise _own_code(checkpoint)
        return
    if not is_known:
        version = transformers.__version__
        raise BadFileError(
            f"{name} has the architecture {kind!r}, which transformers {version} does not know",
            hint="a newer transformers may: pip install -U transformers",
        )
    if not _continues_text(config):
        told = config.get("architectures")
        names = ", ".join(map(str, told)) if isinstance(told, list) else kind
        raise BadFileError(f"{name} ({names}) is not a model that continues text, so it cannot chat")
    if method := _quantised_by(checkpoint):
        raise BadFileError(
            f"{name} is quantised ({method}), which this version of llmctl does not read yet",
            hint="take the model's 16-bit checkpoint",
        )


def _quantised_by(checkpoint: Checkpoint) -> str | None:
    """The method of a quantised checkpoint, or what its tensors betray when the config says nothing of it."""
    told = checkpoint.config.get("quantization_config")
    if told:
        return str(told.get("quant_method", "unknown")) if isinstance(told, Mapping) else str(told)
    packed = {
        kind: size
        for kind, size in checkpoint.bytes_by_dtype.items()
        if kind.startswith(("F8", "F4")) or kind in ("I8", "U8", "I32")
    }
    # Masks and position tables are integers too, but small beside the weights.
    if sum(packed.values()) > PACKED_SHARE * checkpoint.num_bytes:
        return f"{', '.join(sorted(packed))} weights, and the config does not say how"
    return None


def _continues_text(config: Mapping[str, Any]) -> bool:
    """Whether the architecture is made to go on from a text.

    transformers also loads encoders, and the decoder alone of a pair; both would answer nonsense.
    """
    kind = config["model_type"]
    is_pair = config.get("is_encoder_decoder", getattr(CONFIG_MAPPING[kind], "is_encoder_decoder", False))
    is_encoder = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.get("is_decoder")
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not is_pair and not is_encoder


def _own_code(checkpoint: Checkpoint) -> UsageError:
    return UsageError(
        f"{checkpoint.name} runs on code from its own repository, which llmctl does not run unasked",
        hint="read that code, then add --trust-remote-code",
    )


def _config(checkpoint: Checkpoint, request: LoadRequest) -> Any:
    try:
        return transformers.AutoConfig.from_pretrained(
            checkpoint.folder, local_files_only=True, trust_remote_code=request.trust_remote_code
        )
    except (*_UNREADABLE, StrictDataclassError) as error:
        raise BadFileError(
            f"the config.json of {checkpoint.name} does not load: {_first_line(error)}"
        ) from error


def _tokenizer(checkpoint: Checkpoint, request: LoadRequest, config: Any) -> Any:
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            checkpoint.folder,
            config=config,
            local_files_only=True,
            trust_remote_code=request.trust_remote_code,
        )
    except _UNREADABLE as error:
        if "trust_remote_code" in str(error):
            raise _own_code(checkpoint) from error
        raise BadFileError(
            f"{checkpoint.name} has no tokenizer that can be read: {_first_line(error)}",
            hint=f"put tokenizer.json and tokenizer_config.json into {checkpoint.folder}",
        ) from error
    if not len(tokenizer):
        raise BadFileError(f"the tokenizer of {checkpoint.name} is empty")
    return tokenizer


def _model(checkpoint: Checkpoint, request: LoadRequest, chosen: LoadPlan, config: Any) -> Any:
    try:
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            checkpoint.folder,
            config=config,
            dtype=getattr(torch, chosen.dtype),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=request.trust_remote_code,
            output_loading_info=True,
            # Refused by `_check_report`, which can name the tensor.
            ignore_mismatched_sizes=True,
        )
        model = model.to(chosen.device.kind)
    except RuntimeError as error:
        if reason := devices.out_of_memory(error):
            raise _out_of_memory(checkpoint, chosen, reason) from error
        raise BadFileError(f"the weights of {checkpoint.name} do not load: {_first_line(error)}") from error
    except (*_UNREADABLE, SafetensorError) as error:
        raise BadFileError(f"{checkpoint.name} does not load: {_first_line(error)}") from error
    _check_report(checkpoint, report, num_layers=_num_layers(model.config))
    return model.eval()


def _num_layers(config: Any) -> int | None:
    """Layers that a checkpoint may hold, those included that only predict several tokens at once."""
    text_config = config.get_text_config()
    count = getattr(text_config, "num_hidden_layers", None)
    return count + (getattr(text_config, "num_nextn_predict_layers", None) or 0) if count else None


def _check_report(checkpoint: Checkpoint, report: Mapping[str, Any], *, num_layers: int | None) -> None:
    """Missing weights would be random numbers, and a model without its last layers talks nonsense."""
    for kind in ("missing_keys", "mismatched_keys"):
        if names := sorted(map(str, report.get(kind, ()))):
            raise BadFileError(
                f"the checkpoint {checkpoint.name} lacks weights that its config asks for: "
                f"{len(names)} {kind.replace('_', ' ')}, the first {names[0]}",
                hint="the download or export is incomplete, or config.json belongs to another model",
            )
    spare = sorted(map(str, report.get("unexpected_keys", ())))
    for name in spare:
        layer = _LAYER.search(name)
        if layer and num_layers is not None and int(layer[1]) >= num_layers:
            raise BadFileError(
                f"the checkpoint {checkpoint.name} has a layer {layer[1]} ({name}), "
                f"its config only {num_layers} layers",
                hint="config.json belongs to another model",
            )
    if spare:
        log.warning("%d tensors of the checkpoint are not used, the first is %s", len(spare), spare[0])


def _loaded(checkpoint: Checkpoint, chosen: LoadPlan, model: Any, tokenizer: Any) -> LoadedModel:
    embeddings = model.get_input_embeddings()
    return LoadedModel(
        name=checkpoint.name,
        model=model,
        tokenizer=tokenizer,
        plan=chosen,
        context_length=context_length(checkpoint.config, tokenizer_limit=tokenizer.model_max_length),
        vocabulary_size=embeddings.weight.shape[0],
        end_ids=_end_ids(checkpoint, tokenizer),
        default_sampling=_recommended(checkpoint.generation_config),
    )


def _end_ids(checkpoint: Checkpoint, tokenizer: Any) -> frozenset[int]:
    found = {tokenizer.eos_token_id}
    for config in (checkpoint.generation_config, checkpoint.config):
        ids = config.get("eos_token_id")
        found.update(ids if isinstance(ids, list) else [ids])
    return frozenset(token_id for token_id in found if isinstance(token_id, int) and token_id >= 0)


def _recommended(generation_config: Mapping[str, Any]) -> SamplingParams:
    """What `generation_config.json` recommends; a value outside its range is left out and told."""
    is_greedy = generation_config.get("do_sample") is False
    params = SamplingParams(temperature=0.0 if is_greedy else FALLBACK_TEMPERATURE)
    drawing = () if is_greedy else ("temperature", "top_p", "top_k", "min_p")
    for key in (*drawing, "repetition_penalty"):
        try:
            params = sampling.update(params, {key: generation_config.get(key)})
        except UsageError as error:
            log.warning("generation_config.json: %s; left out", error.message)
    return params


def _out_of_memory(checkpoint: Checkpoint, chosen: LoadPlan, reason: str) -> DoesNotFitError:
    return DoesNotFitError(
        f"memory ran out while loading {checkpoint.name} in {chosen.dtype}: {reason}",
        hint="free memory, take --dtype bfloat16 or a smaller model",
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep transformers' bars and reports off the terminal while a model loads."""
    library = transformers.utils.logging
    had_bars, verbosity = library.is_progress_bar_enabled(), library.get_verbosity()
    library.disable_progress_bar()
    # transformers chose its level when it was imported, whatever `core.log` had set.
    if not log.isEnabledFor(logging.DEBUG):
        library.set_verbosity_error()
    try:
        # stdout is for answers; remote code may print.
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        library.set_verbosity(verbosity)
        if had_bars:
            library.enable_progress_bar()
