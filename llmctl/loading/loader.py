"""From a model's name to a model in memory: find, check, plan, build."""

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import transformers

from llmctl.adapters.foreign import named
from llmctl.core.errors import BadFileError, UsageError
from llmctl.core.progress import Progress
from llmctl.core.types import SamplingParams
from llmctl.loading import architecture, devices, lookahead, recommended
from llmctl.loading.architecture import Generates
from llmctl.loading.assembly import Assembly, build
from llmctl.loading.checkpoint import Checkpoint, locate
from llmctl.loading.facts.context import context_length
from llmctl.loading.facts.describe import describe_checkpoint
from llmctl.loading.facts.quantisation import Quantisation
from llmctl.loading.gguf_reader import handed_over
from llmctl.loading.planning.plan import LoadPlan, PlanRequest, plan
from llmctl.loading.readers import reader_of
from llmctl.loading.tokenizer import load_tokenizer
from llmctl.loading.unreadable import UNREADABLE, first_line
from llmctl.quant import cuda, foreign, packed_model, prepare
from llmctl.quant.activations import Memo

if TYPE_CHECKING:
    from llmctl.loading.hub.download import BeforeWeights

log = logging.getLogger(__name__)

OwnLoader = Callable[[str, Mapping[str, Any]], tuple[Any, Any]]
"""From a folder and transformers' keywords to model and tokenizer, as in FastChat's adapters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """What the user wants in memory."""

    model: str
    revision: str | None = None
    plan: PlanRequest = field(default_factory=PlanRequest)
    """On which devices, in which numbers."""
    formats: Mapping[str, object] = field(default_factory=dict)
    """The user's own words on how the checkpoint is quantised, over those of its files."""
    formats_otherwise: Mapping[str, object] = field(default_factory=dict)
    """What holds of that where neither the user nor the files say it."""
    row: Mapping[str, Any] = field(default_factory=dict)
    """The loading keys of the family's row."""
    trust_remote_code: bool = False
    """Granted by the user alone, whatever a row asks for."""
    generates: str | None = None
    """What the family's row says; None: what the config says."""
    own_loader: OwnLoader | None = None
    """A class of the user's that loads in its own way."""
    patched: Callable[[Checkpoint], Checkpoint] | None = None
    """What becomes of the checkpoint when it is found, before anything of it is read."""

    def locate(self, progress: Progress, *, before_weights: "BeforeWeights | None" = None) -> Checkpoint:
        """The checkpoint to load; raises what `checkpoint.locate` and `patched` raise."""
        found = locate(self.model, revision=self.revision, progress=progress, before_weights=before_weights)
        return found if self.patched is None else self.patched(found)


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
    """Tokens that Jacobi decoding works on at a time; None: the usual number."""


def load(request: LoadRequest, progress: Progress) -> LoadedModel:
    """Find, check, plan and load a model.

    Raises every kind of `LlmctlError` that `checkpoint.locate` and `plan.plan` raise; `BadFileError` for
    an architecture that cannot be run, a missing tokenizer or weights that do not belong to the config.
    """
    # A wrong name in it is told wherever a model is loaded, not only where it would matter.
    cuda.untried_wanted(os.environ)
    architecture.check_family(request.model, request.generates)
    wanted, trust = wishes(request), request.trust_remote_code
    look = partial(lookahead.check, name=request.model, wishes=wanted, trust_remote_code=trust)
    checkpoint = request.locate(progress, before_weights=look)
    architecture.check(checkpoint.config, name=checkpoint.title, trust_remote_code=trust)
    reader = reader_of(checkpoint, request.formats, request.formats_otherwise)
    facts = describe_checkpoint(checkpoint, request.formats)
    chosen = plan(wanted, facts, devices.available())
    for reason in chosen.reasons:
        log.info("%s", reason)
    log.info("%s takes about %s", checkpoint.name, chosen.size)
    progress.stage(f"load {checkpoint.name}")
    kernels = foreign_kernels(checkpoint, facts.quantisation, chosen)
    with quiet_transformers(), handed_over(checkpoint.gguf):
        config = read_config(checkpoint, request)
        if kernels is None:
            forget_quantisation(config)
        generates = architecture.generates(config, name=checkpoint.name, asked=request.generates)
        if request.own_loader is not None:
            model, tokenizer = _by_class(checkpoint, request.own_loader, chosen)
        else:
            tokenizer = load_tokenizer(
                checkpoint, config, request.row, trust_remote_code=request.trust_remote_code
            )
            model = build(
                Assembly(
                    checkpoint=checkpoint,
                    config=config,
                    plan=chosen,
                    reader=reader,
                    kernels=kernels,
                    trust_remote_code=request.trust_remote_code,
                    progress=progress,
                )
            )
    packed_model.adopt(model)
    # A pair is made for one right answer, unless its makers say otherwise.
    is_greedy = generates == "encoder-decoder"
    loaded = _loaded(checkpoint, chosen, model, tokenizer, is_greedy=is_greedy)
    if generates == "encoder-decoder":
        loaded = _with_own_lengths(loaded, checkpoint)
    recommended.tell_not_followed(checkpoint)
    return replace(loaded, generates=generates, block_length=request.row.get("jacobi_tokens"))


def wishes(request: LoadRequest) -> PlanRequest:
    """The plan that was asked for, in the numbers that the family's row knows to be right."""
    own = request.row.get("dtype")
    return replace(request.plan, row_dtype=own) if own else request.plan


def _by_class(checkpoint: Checkpoint, own_loader: OwnLoader, chosen: LoadPlan) -> tuple[Any, Any]:
    if chosen.device_map is not None:
        raise UsageError(
            f"the adapter of {checkpoint.name} loads by itself, and cannot spread the model",
            hint="leave out --num-gpus, --gpus and --cpu-offloading",
        )
    if checkpoint.adapter is not None:
        raise UsageError(
            f"the adapter class of {checkpoint.name} loads by itself, and knows no LoRA upon its model",
            hint="merge it first: llmctl lora merge",
        )
    if checkpoint.patch is not None:
        raise UsageError(
            f"the adapter class of {checkpoint.name} loads by itself, and knows nothing of "
            f"{checkpoint.patch.title}",
            hint="apply it first: llmctl delta apply",
        )
    dtype = getattr(torch, chosen.dtype)
    with named(f"the load_model of the adapter for {checkpoint.name}"):
        model, tokenizer = own_loader(str(checkpoint.folder), {"torch_dtype": dtype})
        model = model.to(chosen.device.place).eval()
    if chosen.quant is not None:
        prepare.quantise(model, chosen.quant, dtype=dtype, memo=Memo())
    return model, tokenizer


def read_config(checkpoint: Checkpoint, request: LoadRequest) -> Any:
    """transformers' config of a checkpoint. Raises `BadFileError`."""
    file = {"gguf_file": checkpoint.gguf.name} if checkpoint.gguf is not None else {}
    try:
        config = transformers.AutoConfig.from_pretrained(
            checkpoint.folder, local_files_only=True, trust_remote_code=request.trust_remote_code, **file
        )
    except UNREADABLE as error:
        raise BadFileError(
            f"the config.json of {checkpoint.name} does not load: {first_line(error)}",
            hint=architecture.no_sizes(checkpoint.config),
        ) from error
    return config


def foreign_kernels(checkpoint: Checkpoint, stored: Quantisation | None, chosen: LoadPlan) -> str | None:
    """The package that computes with the weights as they are stored, where there is one for this device."""
    if checkpoint.adapter is not None or checkpoint.patch is not None:
        return None
    kernels = foreign.choose(stored.method, chosen.device.kind) if stored is not None else None
    if stored is not None and kernels is not None:
        log.info("kernels of %s compute with the weights (%s)", kernels, stored.title)
    return kernels


def forget_quantisation(config: Any) -> None:
    """llmctl reads quantised weights itself; transformers would look for the packages of their makers."""
    for part in (config, config.get_text_config()):
        if hasattr(part, "quantization_config"):
            del part.quantization_config


def _loaded(
    checkpoint: Checkpoint, chosen: LoadPlan, model: Any, tokenizer: Any, *, is_greedy: bool
) -> LoadedModel:
    settings = {**({"do_sample": False} if is_greedy else {}), **checkpoint.generation_config}
    return LoadedModel(
        name=checkpoint.name,
        model=model,
        tokenizer=tokenizer,
        plan=chosen,
        context_length=context_length(checkpoint.config, tokenizer_limit=tokenizer.model_max_length),
        vocabulary_size=vocabulary_size(model),
        end_ids=recommended.end_ids(checkpoint, tokenizer),
        default_sampling=recommended.recommended_sampling(settings),
    )


def vocabulary_size(model: Any) -> int:
    """Tokens that the model has rows for."""
    embeddings = model.get_input_embeddings()
    size: int = getattr(embeddings, "num_embeddings", None) or embeddings.weight.shape[0]
    return size


def _with_own_lengths(loaded: LoadedModel, checkpoint: Checkpoint) -> LoadedModel:
    """`loaded`, with the lengths of encoder and decoder apart."""
    encoder, decoder = recommended.lengths(checkpoint, loaded.tokenizer)
    return replace(
        loaded,
        context_length=encoder,
        answer_length=None if architecture.repeats_prompt(loaded.model.config) else decoder,
    )


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
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
