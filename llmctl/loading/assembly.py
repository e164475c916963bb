"""Builds a model of its checkpoint: transformers' class and loader, llmctl's own reading and quantisation.

stored tensors (`reading`) -> parts of one weight together, decoded (`quant.formats`) -> transformers'
conversion of weights -> packed as they arrive (`quantiser`) or set as they are
"""

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import EllipsisType
from typing import Any

import torch
import transformers
from torch import Tensor

from llmctl.core.errors import BadFileError, DoesNotFitError, UsageError
from llmctl.core.progress import Progress
from llmctl.loading import adapted, architecture, devices, memory, quantiser
from llmctl.loading.checkpoint import Checkpoint
from llmctl.loading.planning.plan import LoadPlan
from llmctl.loading.reading import StoredTensor, check_numbers, tensors_of
from llmctl.loading.unreadable import UNREADABLE, first_line
from llmctl.quant import prepare, select
from llmctl.quant.activations import Memo
from llmctl.quant.carried import Carried
from llmctl.quant.formats.base import Reader, bad
from llmctl.quant.weights import IntWeight

log = logging.getLogger(__name__)

_PACKED = ("F8_E4M3", "F8_E5M2", "F4", "I8", "U8", "I32")
_FLOATS = ("F64", "F32", "F16", "BF16")
_WIDER: Mapping[str, tuple[str, ...]] = {"F64": ("float32", "bfloat16"), "F32": ("bfloat16",)}
"""Types of files with numbers that others cannot hold; float16 is the smallest of all."""
_MANY_LAYERS = 1000
"""No model has more; below, the weights that are missing are named."""
_NOT_ITS_CONFIG = "the download or export is incomplete, or config.json belongs to another model"
_LAYER = re.compile(r"\.(?:layers?|h|blocks?)\.(\d+)\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """One model to be built."""

    checkpoint: Checkpoint
    config: Any
    """transformers' config."""
    plan: LoadPlan
    reader: Reader | None
    """For checkpoints whose weights are quantised."""
    kernels: str | None
    """A package whose kernels compute with the files, by transformers' own loader; None: llmctl's."""
    trust_remote_code: bool
    progress: Progress
    model_class: Any = None
    """In the place of the class that generates, for models that are made for something else."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What `model_class` is told beside the config."""

    @property
    def dtype(self) -> torch.dtype:
        """The numbers that the model computes in."""
        found: torch.dtype = getattr(torch, self.plan.dtype)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantisedTensor:
    """One weight of a quantised checkpoint; `quantised[...]` reads its parts and decodes them."""

    name: str
    parts: Mapping[str, StoredTensor]
    reader: Reader
    dtype: torch.dtype
    taken_by: "quantiser.LlmctlConfig | None" = None
    """Whoever packs it."""

    def __getitem__(self, index: EllipsisType) -> Tensor:
        """The weight, dense or carried in its canonical form. Raises `BadFileError`."""
        parts = {role: stored[...] for role, stored in self.parts.items()}
        weight = self.reader.decode(self.name, parts, self.dtype)
        if isinstance(weight, Tensor):
            self._check_orientation(weight)
            self._check_decoded(weight, parts)
            return weight
        check_numbers(self.name, weight.scale if isinstance(weight, IntWeight) else weight.absmax)
        return Carried.of(weight, self.dtype)

    def _check_decoded(self, weight: Tensor, parts: Mapping[str, Tensor]) -> None:
        """Raise `BadFileError` for numbers that are none by the file, or too large for the type."""
        try:
            check_numbers(self.name, weight)
        except BadFileError as error:
            wider = self.reader.decode(self.name, parts, torch.float32)
            assert isinstance(wider, Tensor)
            check_numbers(self.name, wider)
            raise quantiser.too_large(self.name, weight.dtype) from error

    def _check_orientation(self, weight: Tensor) -> None:
        """A weight that had to be made dense is [N, K]; where a model has [K, N], a square one hides that."""
        is_square = weight.dim() > 1 and weight.shape[-1] == weight.shape[-2]
        if is_square and self.taken_by is not None and self.taken_by.has_transposed:
            raise bad(self.name, f"llmctl cannot keep it packed ({self.reader.title})")


def build(assembly: Assembly) -> Any:
    """The model in evaluation mode, on its devices.

    Raises `BadFileError` for weights that are damaged, missing or of another model, `DoesNotFitError` when
    memory runs out.
    """
    checkpoint = assembly.checkpoint
    try:
        with memory.frugal():
            model = _from_tensors(assembly) if _is_readable(assembly) else _from_folder(assembly)
    except RuntimeError as error:
        if reason := devices.out_of_memory(error):
            raise _out_of_memory(assembly, reason) from error
        raise BadFileError(
            f"the weights of {checkpoint.name} do not load: {first_line(error)}",
            hint=architecture.no_sizes(checkpoint.config),
        ) from error
    except UNREADABLE as error:
        raise BadFileError(
            f"{checkpoint.name} does not load: {first_line(error)}",
            hint=architecture.no_sizes(checkpoint.config),
        ) from error
    return model.eval()


def _check_overflow(assembly: Assembly, model: Any) -> None:
    """Finite numbers of a file can be too large for a smaller type."""
    wider = _WIDER.keys() & assembly.checkpoint.bytes_by_dtype.keys()
    risky = {getattr(torch, narrow) for kind in wider for narrow in _WIDER[kind]} | {torch.float16}
    for name, parameter in model.named_parameters():
        if parameter.dtype in risky and bool(parameter.isinf().any()):
            raise quantiser.too_large(f"{name} of {assembly.checkpoint.name}", parameter.dtype)


def _check_layers(assembly: Assembly, num_tensors: int) -> None:
    """A model of a million layers would fill the memory before anybody missed their weights."""
    count = getattr(assembly.config.get_text_config(), "num_hidden_layers", None)
    if isinstance(count, int) and count > max(_MANY_LAYERS, num_tensors):
        raise BadFileError(
            f"the config of {assembly.checkpoint.name} asks for {count} layers, and the checkpoint has only "
            f"{num_tensors} tensors",
            hint="config.json belongs to another model",
        )


def _is_readable(assembly: Assembly) -> bool:
    """Whether these are safetensors, a class of transformers' own, and our kernels.

    A repository's code may load in any way, and GGUF is read by transformers.
    """
    is_own = assembly.kernels is not None or assembly.checkpoint.gguf is not None
    return not is_own and architecture.is_known({"model_type": assembly.config.model_type})


def _from_tensors(assembly: Assembly) -> Any:
    checkpoint, config, plan = assembly.checkpoint, assembly.config, assembly.plan
    model_class = assembly.model_class
    if model_class is None:
        model_class, config = architecture.model_class(config)
    own = _quantisation(assembly)
    tensors: dict[str, Any] = dict(_tensors(assembly, own))
    if checkpoint.adapter is not None:
        base = adapted.Base(checkpoint=checkpoint, config=config, tensors=tensors, reader=assembly.reader)
        tensors = adapted.merged(base, adapted.skeleton(model_class, config), assembly.dtype)
    _check_layers(assembly, len(tensors))
    assembly.progress.stage(f"load {checkpoint.name}", total_bytes=checkpoint.num_bytes)
    try:
        model, report = model_class.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=assembly.dtype,
            device_map=_device_map(plan),
            max_memory=dict(plan.max_memory) if plan.max_memory else None,
            quantization_config=own,
            generation_config=_generation_config(checkpoint),
            output_loading_info=True,
            # Refused by `_check_report`, which can name the tensor.
            ignore_mismatched_sizes=True,
            **assembly.options,
        )
    except RuntimeError as error:
        # transformers collects errors of single weights, and says no more than that there were some.
        raise (own.error if own is not None and own.error is not None else error) from error
    model.name_or_path = model.config.name_or_path = str(checkpoint.folder)
    if own is not None:
        if unfilled := prepare.unfilled(model):
            raise _missing(checkpoint.name, unfilled)
        quantiser.forget(model)
    _check_report(assembly, report, model.config)
    _check_types(tensors, model)
    _check_overflow(assembly, model)
    return model


def _quantisation(assembly: Assembly) -> "quantiser.LlmctlConfig | None":
    reader, scheme = assembly.reader, assembly.plan.quant
    choose: Callable[[Any], select.Selection]
    if reader is not None and reader.gives_quantised:
        choose = select.for_checkpoint
    elif scheme is not None:
        choose = partial(select.select, scheme=scheme)
    else:
        return None
    quantiser.register()
    return quantiser.LlmctlConfig(
        lambda model: _told(choose(model)), consumes=True, is_packed=choose is select.for_checkpoint
    )


def _tensors(
    assembly: Assembly, own: "quantiser.LlmctlConfig | None"
) -> Iterator[tuple[str, StoredTensor | QuantisedTensor]]:
    """What the checkpoint holds, the parts of one quantised weight as one tensor by its dense name."""
    stored = tensors_of(assembly.checkpoint, assembly.progress.advance)
    reader = assembly.reader
    if reader is None:
        for name, tensor in stored.items():
            if _is_no_float(tensor):
                raise bad(
                    name, f"it is of the type {tensor.entry.dtype}, and the config says of no quantisation"
                )
            yield name, tensor
        return
    parts: dict[str, dict[str, StoredTensor]] = defaultdict(dict)
    for name, tensor in stored.items():
        part = reader.part(name)
        if part is not None:
            parts[part.weight][part.role] = replace(tensor, is_packed=True)
            continue
        if _is_no_float(tensor) or (tensor.entry.dtype in _PACKED and len(tensor.entry.shape) > 1):
            raise bad(name, f"it is of the type {tensor.entry.dtype} and has no scales ({reader.title})")
        yield name, tensor
    for name, found in parts.items():
        if name in stored and reader.part(name) is None:
            raise bad(name, f"the checkpoint has it twice, dense and quantised ({reader.title})")
        yield (
            name,
            QuantisedTensor(name=name, parts=found, reader=reader, dtype=assembly.dtype, taken_by=own),
        )


def _is_no_float(tensor: StoredTensor) -> bool:
    """Whether it is called a weight, and holds whole numbers, truths or packed floats."""
    return tensor.entry.dtype not in _FLOATS and tensor.name.endswith(("weight", "_proj"))


def _check_types(tensors: Mapping[str, Any], model: Any) -> None:
    """Masks and tables of positions are whole numbers; a tensor of another name may be a parameter."""
    parameters = dict(model.named_parameters())
    for name, tensor in tensors.items():
        if not isinstance(tensor, StoredTensor) or tensor.entry.dtype in _FLOATS:
            continue
        # Files may leave out the name of the part that holds the layers, or have it beyond the model's own.
        own = f"{model.base_model_prefix}."
        spelled = (name, own + name, name.removeprefix(own))
        parameter = next((parameters[each] for each in spelled if each in parameters), None)
        if parameter is not None and parameter.is_floating_point():
            raise bad(name, f"it is of the type {tensor.entry.dtype}, and the model needs floats there")


def _device_map(plan: LoadPlan) -> Any:
    if plan.device_map is not None:
        return plan.device_map
    return None if plan.device.kind == "cpu" else {"": plan.device.place}


def _generation_config(checkpoint: Checkpoint) -> Any:
    if not checkpoint.generation_config:
        return None
    return transformers.GenerationConfig.from_dict(dict(checkpoint.generation_config))


def _from_folder(assembly: Assembly) -> Any:
    """By transformers alone: GGUF files, classes that come with the model, kernels of others."""
    checkpoint, plan = assembly.checkpoint, assembly.plan
    _refuse_what_a_folder_cannot(assembly)
    auto_class = assembly.model_class or architecture.auto_class(
        assembly.config, is_pair=assembly.config.is_encoder_decoder
    )
    assembly.progress.stage(f"load {checkpoint.name}")
    model, report = auto_class.from_pretrained(
        checkpoint.folder,
        config=assembly.config,
        dtype=assembly.dtype,
        device_map=_device_map(plan),
        max_memory=dict(plan.max_memory) if plan.max_memory else None,
        local_files_only=True,
        trust_remote_code=assembly.trust_remote_code,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **_source(checkpoint),
        **assembly.options,
    )
    _check_report(assembly, report, model.config)
    if checkpoint.adapter is not None:
        adapted.merge_into(checkpoint, model)
    _check_overflow(assembly, model)
    for name, parameter in model.named_parameters():
        check_numbers(f"{checkpoint.gguf or checkpoint.name}: {name}", parameter.detach())
    if plan.quant is not None:
        _told(prepare.quantise(model, plan.quant, dtype=assembly.dtype, memo=Memo()))
    return model


def _refuse_what_a_folder_cannot(assembly: Assembly) -> None:
    name, plan, patch = assembly.checkpoint.name, assembly.plan, assembly.checkpoint.patch
    if patch is not None:
        raise BadFileError(
            f"{name} runs on code of its own repository, which loads by itself and knows nothing of "
            f"{patch.title}",
            hint="apply it first: llmctl delta apply",
        )
    if plan.quant is not None and plan.device_map is not None:
        raise UsageError(
            f"{name} is loaded by transformers alone, which cannot spread it and quantise it at once",
            hint="leave out --num-gpus, --gpus and --cpu-offloading, or the bits",
        )
    if assembly.reader is not None and assembly.kernels is None:
        raise BadFileError(
            f"{name} is quantised ({assembly.reader.title}) and runs on code of its own repository, which "
            "llmctl cannot give packed weights",
            hint="take its 16-bit checkpoint; --load-8bit and --load-4bit quantise it while it loads",
        )


def _source(checkpoint: Checkpoint) -> dict[str, Any]:
    if checkpoint.gguf is None:
        return {"use_safetensors": True}
    words: dict[str, Any] = {"gguf_file": checkpoint.gguf.name}
    # A few architectures have a reader that would keep the blocks packed, for kernels of its own.
    if hasattr(transformers, "GgufConfig"):
        words["quantization_config"] = transformers.GgufConfig(dequantize=True)
    return words


def _check_report(assembly: Assembly, report: Mapping[str, Any], config: Any) -> None:
    """Missing weights would be random numbers, and a model without its last layers talks nonsense."""
    name = assembly.checkpoint.name
    if names := sorted(map(str, report.get("missing_keys", ()))):
        raise _missing(name, names)
    if wrong := sorted(report.get("mismatched_keys", ())):
        tensor, found, wanted = wrong[0]
        more = f" ({len(wrong) - 1} more are wrong)" if len(wrong) > 1 else ""
        raise BadFileError(
            f"{tensor} of the checkpoint {name} has the shape {list(found)}, its config asks for "
            f"{list(wanted)}{more}",
            hint=_NOT_ITS_CONFIG,
        )
    spare = sorted(map(str, report.get("unexpected_keys", ())))
    for tensor in spare:
        layer, num_layers = _LAYER.search(tensor), architecture.num_layers(config, tensor)
        if layer and num_layers is not None and int(layer[1]) >= num_layers:
            raise BadFileError(
                f"the checkpoint {name} has a layer {layer[1]} ({tensor}), its config {num_layers} layers",
                hint="config.json belongs to another model",
            )
    if spare:
        # Heads are left over where a model is to give vectors.
        level = logging.WARNING if assembly.model_class is None else logging.INFO
        log.log(level, "%d tensors of the checkpoint are not used, the first is %s", len(spare), spare[0])


def _missing(name: str, tensors: list[str]) -> BadFileError:
    return BadFileError(
        f"the checkpoint {name} lacks weights that its config asks for: {len(tensors)} missing, the first "
        f"{tensors[0]}",
        hint=_NOT_ITS_CONFIG,
    )


def _told(selection: select.Selection) -> select.Selection:
    """Say what became of the modules, those that stay dense for one reason in one line."""
    log.info("quantised %d modules", len(selection.places))
    by_reason: dict[str, list[str]] = defaultdict(list)
    for path, reason in selection.dense.items():
        by_reason[reason].append(path)
    for reason, paths in by_reason.items():
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        log.info("%s%s: dense, since %s", paths[0], more, reason)
    return selection


def _out_of_memory(assembly: Assembly, reason: str) -> DoesNotFitError:
    return DoesNotFitError(
        f"memory ran out while loading {assembly.checkpoint.name} in {assembly.plan.dtype}: {reason}",
        hint="free memory, take --load-8bit, --load-4bit or a smaller model",
    )
