"""Loads a located checkpoint as its plan says: transformers' own modeling code, safetensors weights."""

import contextlib
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from llmctl.adapters.foreign import named
from llmctl.core import sampling
from llmctl.core.errors import BadFileError, DoesNotFitError, UsageError
from llmctl.core.progress import Progress
from llmctl.core.types import SamplingParams
from llmctl.loading import architecture, devices
from llmctl.loading.architecture import Generates
from llmctl.loading.checkpoint import Checkpoint, locate
from llmctl.loading.context import context_length
from llmctl.loading.plan import LoadPlan, plan

log = logging.getLogger(__name__)

_LAYER = re.compile(r"\.(?:layers?|h|blocks?)\.(\d+)\.")
FALLBACK_TEMPERATURE = 0.7
"""For models whose makers recommend nothing, as in FastChat."""
_NOT_FOLLOWED = {
    "num_beams": 1,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
}
"""Recommendations that change an answer and that llmctl has no way to follow, with what means "off"."""
# What transformers raises over files that are missing, damaged or at odds with each other.
_UNREADABLE = (OSError, ValueError, TypeError, LookupError, AttributeError, ImportError, ArithmeticError)


OwnLoader = Callable[[str, Mapping[str, Any]], tuple[Any, Any]]
"""From a folder and transformers' keywords to model and tokenizer, as in FastChat's adapters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """What the user wants in memory."""

    model: str
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    trust_remote_code: bool = False
    generates: str | None = None
    """What the family's row says; None: what the config says."""
    block_length: int | None = None
    """Tokens that Jacobi decoding works on at a time; None: the usual number."""
    own_loader: OwnLoader | None = None
    """A class of the user's that loads in its own way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model ready to run, and what the engine must know of it."""

    name: str
    model: Any
    """A transformers model in evaluation mode, a causal one or one with encoder and decoder."""
    tokenizer: Any
    plan: LoadPlan
    context_length: int
    """Tokens of prompt and answer together; of the prompt alone when `answer_length` is given."""
    vocabulary_size: int
    end_ids: frozenset[int]
    """Tokens that end an answer."""
    default_sampling: SamplingParams
    generates: Generates = "causal"
    """The way to generate, a name of `engine.generate.choose`."""
    answer_length: int | None = None
    """Most tokens of an answer when it does not share the context with the prompt."""
    block_length: int | None = None
    """As in `LoadRequest`."""


def load(request: LoadRequest, progress: Progress) -> LoadedModel:
    """Find, check, plan and load a model.

    Raises every kind of `LlmctlError` that `checkpoint.locate` and `plan.plan` raise; `BadFileError` for
    an architecture that cannot be run, a missing tokenizer or weights that do not belong to the config.
    """
    checkpoint = locate(request.model, revision=request.revision, progress=progress)
    architecture.check(checkpoint, trust_remote_code=request.trust_remote_code)
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
        generates = architecture.generates(config, name=checkpoint.name, asked=request.generates)
        if request.own_loader is not None:
            model, tokenizer = _by_class(checkpoint, request.own_loader, chosen)
        else:
            tokenizer = _tokenizer(checkpoint, request, config)
            model = _model(checkpoint, request, chosen, config)
    loaded = _loaded(checkpoint, chosen, model, tokenizer)
    if generates == "encoder-decoder":
        loaded = _with_own_lengths(loaded, checkpoint)
    _tell_not_followed(checkpoint)
    return replace(loaded, generates=generates, block_length=request.block_length)


def _by_class(checkpoint: Checkpoint, own_loader: OwnLoader, chosen: LoadPlan) -> tuple[Any, Any]:
    with named(f"the load_model of the adapter for {checkpoint.name}"):
        model, tokenizer = own_loader(str(checkpoint.folder), {"torch_dtype": getattr(torch, chosen.dtype)})
        return model.to(chosen.device.kind).eval(), tokenizer


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
            raise architecture.own_code(checkpoint) from error
        raise BadFileError(
            f"{checkpoint.name} has no tokenizer that can be read: {_first_line(error)}",
            hint=f"put tokenizer.json and tokenizer_config.json into {checkpoint.folder}",
        ) from error
    if not len(tokenizer):
        raise BadFileError(f"the tokenizer of {checkpoint.name} is empty")
    return tokenizer


def _model(checkpoint: Checkpoint, request: LoadRequest, chosen: LoadPlan, config: Any) -> Any:
    auto_class = architecture.auto_class(config, is_pair=config.is_encoder_decoder)
    try:
        model, report = auto_class.from_pretrained(
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
    _check_report(checkpoint, report, model.config)
    return model.eval()


def _check_report(checkpoint: Checkpoint, report: Mapping[str, Any], config: Any) -> None:
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
        layer, num_layers = _LAYER.search(name), architecture.num_layers(config, name)
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


def _with_own_lengths(loaded: LoadedModel, checkpoint: Checkpoint) -> LoadedModel:
    """`loaded`, with the lengths of encoder and decoder apart, and made for one right answer."""
    lengths = {}
    for side in ("encoder", "decoder"):
        own = checkpoint.config.get(side)
        config = {**checkpoint.config, **(own if isinstance(own, Mapping) else {})}
        limit = config.get(f"max_{side}_position_embeddings")
        config = {**config, "max_position_embeddings": limit} if limit else config
        lengths[side] = context_length(config, tokenizer_limit=loaded.tokenizer.model_max_length)
    is_shared = architecture.repeats_prompt(loaded.model.config)
    return replace(
        loaded,
        context_length=lengths["encoder"],
        answer_length=None if is_shared else lengths["decoder"],
        default_sampling=_recommended({"do_sample": False, **checkpoint.generation_config}),
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


def _tell_not_followed(checkpoint: Checkpoint) -> None:
    # Older checkpoints have these in config.json.
    settings = {**checkpoint.config, **checkpoint.generation_config}
    given = {key: settings.get(key) for key in _NOT_FOLLOWED}
    told = [f"{key} {value}" for key, value in given.items() if value not in (None, _NOT_FOLLOWED[key])]
    if told:
        log.info("%s recommends %s, which llmctl does not do", checkpoint.name, ", ".join(told))


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
