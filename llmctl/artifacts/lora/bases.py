"""A base as both commands need it: open for reading, dense, its class known on the meta device."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import transformers

from llmctl.artifacts.stream.carry import Carried, carried
from llmctl.artifacts.stream.source import Source
from llmctl.core.errors import BadFileError
from llmctl.loading import adapted, architecture
from llmctl.loading.facts.quantisation import quantisation_of, settings_of
from llmctl.loading.loader import forget_quantisation, quiet_transformers
from llmctl.loading.unreadable import UNREADABLE, first_line

FLOATS = ("F64", "F32", "F16", "BF16")
_OF_TOKENIZER = (
    "tokenizer",
    "special_tokens_map",
    "added_tokens",
    "vocab",
    "merges",
    "chat_template",
    "spiece",
)


def refuse_packed(source: Source) -> None:
    """Raise `BadFileError` for a quantised checkpoint."""
    sizes: dict[str, int] = {}
    for entry in source.entries.values():
        sizes[entry.dtype] = sizes.get(entry.dtype, 0) + entry.num_bytes
    packed = quantisation_of(settings_of(source.config, source.folder), sizes)
    if packed is not None:
        raise BadFileError(
            f"{source.name} is quantised ({packed.title}), and its numbers cannot be changed a little",
            hint="take its 16-bit checkpoint; what comes out can be quantised again (llmctl compress)",
        )


def refuse_no_floats(source: Source, names: Iterable[str]) -> None:
    """Raise `BadFileError` for one of the tensors `names` whose numbers cannot be changed a little."""
    for name in names:
        if (dtype := source.entry(name).dtype) not in FLOATS:
            raise BadFileError(
                f"the tensor {name} of {source.name} is of the type {dtype}; one that is changed must be of "
                f"{', '.join(FLOATS)}",
                hint="take the model's 16-bit checkpoint",
            )


def skeleton(source: Source) -> Any:
    """The model of a checkpoint without its numbers. Raises `BadFileError` for a class that is not known."""
    if not architecture.is_known(source.config):
        raise BadFileError(
            f"{source.name} ({architecture.class_names(source.config)}) runs on code that transformers does "
            "not have, so llmctl does not know its layers",
            hint="merge it with peft's merge_and_unload",
        )
    with quiet_transformers():
        try:
            config = transformers.AutoConfig.from_pretrained(source.folder, local_files_only=True)
        except UNREADABLE as error:
            raise BadFileError(
                f"the config.json of {source.name} does not load: {first_line(error)}",
                hint="download or copy it again",
            ) from error
        forget_quantisation(config)
        named = next(
            (
                getattr(transformers, name, None)
                for name in getattr(config, "architectures", None) or ()
                if isinstance(name, str)
            ),
            None,
        )
        try:
            if named is not None and getattr(named, "config_class", None) is type(config):
                return adapted.skeleton(named, config)
            return adapted.skeleton(*architecture.model_class(config))
        except UNREADABLE as error:
            raise BadFileError(
                f"{source.name} has no model that can be built: {first_line(error)}",
                hint="download or copy its config.json again",
            ) from error


def with_tokenizer_of(source: Path, other: Path, *, without: tuple[str, ...] = ()) -> tuple[Carried, ...]:
    """What goes along of `source`, the tokenizer from `other` where that has one."""
    theirs = tokenizer_of(other)
    ours = carried(source, without=without)
    if not theirs:
        return ours
    return tuple(
        sorted([*(each for each in ours if not _is_tokenizer(each)), *theirs], key=lambda each: each.name)
    )


def tokenizer_of(folder: Path) -> tuple[Carried, ...]:
    """The files of a tokenizer; none unless they are a whole one."""
    found = tuple(each for each in carried(folder) if _is_tokenizer(each))
    names = {each.name for each in found}
    return found if names & {"tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model"} else ()


def same_bytes(one: tuple[Carried, ...], other: tuple[Carried, ...]) -> bool:
    """Whether both are the same files."""
    return _contents(one) == _contents(other)


def _contents(files: tuple[Carried, ...]) -> Mapping[str, bytes]:
    return {each.name: each.path.read_bytes() for each in files}


def _is_tokenizer(file: Carried) -> bool:
    return file.name.startswith(_OF_TOKENIZER) or file.name.endswith((".tiktoken", "tokenizer.model"))


def changed_config(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`config.json` with `changes`, in the part that is about the text where there is one."""
    made = dict(config)
    for part in ("text_config", "llm_config", "language_config"):
        if isinstance(made.get(part), Mapping):
            made[part] = {**made[part], **changes}
            # The whole says it once more where it says it at all, and of ties it always must.
            changes = {key: value for key, value in changes.items() if key in made or key.startswith("tie_")}
    return {**made, **changes}


def shapes(source: Source) -> dict[str, tuple[int, ...] | None]:
    """The shapes of all tensors."""
    return {name: entry.shape for name, entry in source.entries.items()}
