"""From a model's name to a model in memory that gives vectors or scores instead of text.

Encoders, decoders without their head, and classes with a classifier on top; which `loader` refuses, since
they cannot chat. What is done with their output is the business of `engine.pooling`.
"""

import inspect
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import transformers
from torch import nn

from llmctl.core.errors import BadFileError, UsageError
from llmctl.core.progress import Progress
from llmctl.loading import architecture, devices
from llmctl.loading.assembly import Assembly, build
from llmctl.loading.checkpoint import Checkpoint
from llmctl.loading.facts.context import context_length
from llmctl.loading.facts.describe import describe_checkpoint
from llmctl.loading.facts.pooling import LAST_TOKEN, Recipe, read_recipe
from llmctl.loading.loader import (
    LoadedModel,
    LoadRequest,
    foreign_kernels,
    forget_quantisation,
    quiet_transformers,
    read_config,
    vocabulary_size,
    wishes,
)
from llmctl.loading.planning.plan import LoadPlan, plan
from llmctl.loading.planning.request import PlanRequest
from llmctl.loading.readers import reader_of
from llmctl.loading.tokenizer import load_tokenizer

log = logging.getLogger(__name__)

Task = Literal["embed", "classify"]
Activation = Literal["sigmoid", "softmax", "none"]

_CLASSIFIES = "ForSequenceClassification"
# A few numbers decide there, and they weigh next to nothing.
_HEADS = r"(?:^|\.)(?:classifier|pre_classifier|score|classification_head|pooler|head)(?:\.|$)"
_ACTIVATIONS: Mapping[str, Activation] = {"Sigmoid": "sigmoid", "Softmax": "softmax", "Identity": "none"}
_PROBLEMS: Mapping[str, Activation] = {
    "regression": "none",
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
}
# transformers writes 1e30 for "no limit".
_SANE = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedPooled:
    """A model ready to run, and what is made of its output."""

    name: str
    model: Any
    """A transformers model in evaluation mode."""
    tokenizer: Any
    plan: LoadPlan
    task: Task
    max_tokens: int
    """Of an input, special ones included."""
    vocabulary_size: int
    recipe: Recipe
    """Of a vector; of a classifier only what it says of texts."""
    labels: tuple[str, ...] = ()
    """Of a classifier."""
    activation: Activation = "none"
    """What makes scores of a classifier's logits."""

    @property
    def is_rounded(self) -> bool:
        """Whether it computes with fewer than 32 bits somewhere."""
        plan = self.plan
        return plan.dtype != "float32" or plan.quant is not None or plan.checkpoint_format is not None

    @classmethod
    def of(cls, loaded: LoadedModel, recipe: Recipe = LAST_TOKEN) -> "LoadedPooled":
        """A model that was loaded to generate, to give vectors instead."""
        return cls(
            name=loaded.name,
            model=loaded.model,
            tokenizer=loaded.tokenizer,
            plan=loaded.plan,
            task="embed",
            max_tokens=min(loaded.context_length, recipe.max_tokens or loaded.context_length),
            vocabulary_size=loaded.vocabulary_size,
            recipe=recipe,
        )


def load(request: LoadRequest, progress: Progress, *, task: Task | None = None) -> LoadedPooled:
    """Find, check, plan and load a model for `task`; None: what its class is made for.

    Raises what `loader.load` raises, `BadFileError` for a model that cannot do the task.
    """
    if request.own_loader is not None:
        raise UsageError(
            f"the adapter of {request.model} loads by itself, which gives no model for vectors or scores",
            hint="leave the adapter out",
        )
    checkpoint = request.locate(progress)
    architecture.check_known(
        checkpoint.config, name=checkpoint.title, trust_remote_code=request.trust_remote_code
    )
    chosen_task = _task(checkpoint, task)
    recipe = read_recipe(checkpoint.folder, request.row)
    reader = reader_of(checkpoint, request.formats)
    facts = describe_checkpoint(checkpoint, request.formats)
    chosen = plan(_wishes(request), facts, devices.available())
    for reason in chosen.reasons:
        log.info("%s", reason)
    kernels = foreign_kernels(checkpoint, facts.quantisation, chosen)
    progress.stage(f"load {checkpoint.name}")
    with quiet_transformers():
        config = read_config(checkpoint, request)
        if kernels is None:
            forget_quantisation(config)
        tokenizer = load_tokenizer(
            checkpoint, config, request.row, trust_remote_code=request.trust_remote_code
        )
        model_class, config = _class_of(checkpoint, config, chosen_task)
        model = build(
            Assembly(
                checkpoint=checkpoint,
                config=config,
                plan=chosen,
                reader=reader,
                kernels=kernels,
                trust_remote_code=request.trust_remote_code,
                progress=progress,
                model_class=model_class,
                options=_options(checkpoint, model_class),
            )
        )
    loaded = LoadedPooled(
        name=checkpoint.name,
        model=model,
        tokenizer=tokenizer,
        plan=chosen,
        task=chosen_task,
        max_tokens=min(_limits(checkpoint, model, tokenizer, recipe)),
        vocabulary_size=vocabulary_size(model),
        recipe=recipe,
    )
    return _classifier(loaded, checkpoint) if chosen_task == "classify" else _told(loaded)


def _wishes(request: LoadRequest) -> PlanRequest:
    asked = wishes(request)
    return replace(asked, skip=(*asked.skip, _HEADS))


def _task(checkpoint: Checkpoint, asked: Task | None) -> Task:
    names = architecture.class_names(checkpoint.config)
    can_classify = _CLASSIFIES in names
    if asked == "classify" and not can_classify:
        raise BadFileError(
            f"{checkpoint.name} ({names}) has no classifier, so it gives no scores",
            hint="take a reranker or a classifier: its config.json names a class for sequence classification",
        )
    return asked or ("classify" if can_classify else "embed")


def _class_of(checkpoint: Checkpoint, config: Any, task: Task) -> tuple[Any, Any]:
    """The class that does the task, and the config that it takes. Raises `BadFileError`."""
    if not architecture.is_known({"model_type": config.model_type}):
        auto = (
            transformers.AutoModelForSequenceClassification if task == "classify" else transformers.AutoModel
        )
        return auto, config
    if task == "classify":
        table = transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    elif config.is_encoder_decoder or getattr(type(config), "is_encoder_decoder", False):
        # T5's encoder alone says of itself that it is no pair.
        table = transformers.MODEL_FOR_TEXT_ENCODING_MAPPING
    else:
        table, config = transformers.MODEL_MAPPING, config.get_text_config(decoder=True)
    found = table.get(type(config), None)
    if found is None:
        names = architecture.class_names(checkpoint.config)
        what = "scores" if task == "classify" else "vectors of texts"
        raise BadFileError(f"{checkpoint.name} ({names}) has no class in transformers that gives {what}")
    return (found[0] if isinstance(found, tuple | list) else found), config


def _options(checkpoint: Checkpoint, model_class: Any) -> dict[str, Any]:
    """Some classes have a layer that only the pretraining used, and many checkpoints come without it."""
    if "add_pooling_layer" not in inspect.signature(model_class.__init__).parameters or checkpoint.gguf:
        return {}
    return {"add_pooling_layer": any("pooler." in name for name, _ in checkpoint.entries())}


def _limits(checkpoint: Checkpoint, model: Any, tokenizer: Any, recipe: Recipe) -> Iterator[int]:
    """All limits to the length of an input that somebody or something sets."""
    by_tokenizer = tokenizer.model_max_length
    yield context_length(checkpoint.config, tokenizer_limit=by_tokenizer)
    if 0 < by_tokenizer < _SANE:
        yield int(by_tokenizer)
    if recipe.max_tokens is not None:
        yield recipe.max_tokens
    for path, module in model.named_modules():
        if path.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa and its kin count positions from the one behind that of padding.
            skipped = 0 if module.padding_idx is None else module.padding_idx + 1
            yield module.num_embeddings - skipped


def _told(loaded: LoadedPooled) -> LoadedPooled:
    level = logging.INFO if loaded.recipe.is_told else logging.WARNING
    log.log(level, "%s: vectors by %s", loaded.name, loaded.recipe)
    return loaded


def _classifier(loaded: LoadedPooled, checkpoint: Checkpoint) -> LoadedPooled:
    config = loaded.model.config
    labels = tuple(str(config.id2label[index]) for index in range(config.num_labels))
    activation, reason = _activation(checkpoint, len(labels))
    log.info("%s: scores of %d labels by %s (%s)", loaded.name, len(labels), activation, reason)
    return replace(loaded, labels=labels, activation=activation)


def _activation(checkpoint: Checkpoint, num_labels: int) -> tuple[Activation, str]:
    config = checkpoint.config
    section = config.get("sentence_transformers")
    told = section.get("activation_fn") if isinstance(section, Mapping) else None
    told = told or config.get("sbert_ce_default_activation_function")
    if told:
        name = str(told).rpartition(".")[2]
        if name not in _ACTIVATIONS:
            raise BadFileError(
                f"{checkpoint.name} makes scores by {told}; llmctl knows {', '.join(_ACTIVATIONS)}"
            )
        return _ACTIVATIONS[name], "its config says so"
    problem = str(config.get("problem_type"))
    if num_labels > 1 and problem in _PROBLEMS:
        return _PROBLEMS[problem], f"{problem} in its config"
    return ("sigmoid" if num_labels == 1 else "softmax"), "as usual with so many labels"
