"""What a set of files must hold to be a model, judged by their names and the index of shards.

The same rules hold for a folder and for a hub listing. Only the root counts, and only safetensors are
weights, since a pickle runs code when it is opened.
"""

import json
import re
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from llmctl.core.errors import BadFileError
from llmctl.lora.config import SAFETENSORS as ADAPTER_FILE
from llmctl.lora.config import WEIGHTS as ADAPTER_FILES

CONFIG = "config.json"
MODULES = "modules.json"
"""Of sentence-transformers: what makes vectors of a model's output."""
ADAPTER_CONFIG = "adapter_config.json"
DELTA = "llmctl_delta.json"
"""Of a delta: what makes one model of another, and none by itself."""
SINGLE_FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"

# Python files are data here: they run under --trust-remote-code alone, but then from this folder.
_SMALL = ("*.json", "*.jinja", "*.model", "tokenizer*", "*.txt", "*.tiktoken", "*.py")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
# Training leftovers, and a second copy of the weights in the maker's own format.
_UNWANTED = (
    "training_args.bin",
    "trainer_state.json",
    "optimizer.*",
    "scheduler.pt",
    "rng_state*",
    "consolidated*",
    "adapter_model.*",
)
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_MODULE = re.compile(r"\d+_\w+/(?:config\.json|model\.safetensors)")
_NUM_NAMES_SHOWN = 4


def weight_names(names: Iterable[str]) -> tuple[str, ...]:
    """The safetensors files that make up the model; of several copies the one that transformers takes."""
    found = sorted(name for name in names if name.endswith(".safetensors") and _is_wanted(name))
    if SINGLE_FILE in found:
        return (SINGLE_FILE,)
    return tuple(name for name in found if _SHARD.fullmatch(name)) or tuple(found)


def small_names(names: Iterable[str]) -> tuple[str, ...]:
    """Configuration, tokenizer, templates and the model's own code."""
    return tuple(
        sorted(name for name in names if _is_wanted(name) and any(fnmatchcase(name, glob) for glob in _SMALL))
    )


def module_names(names: Iterable[str]) -> tuple[str, ...]:
    """Files of what sentence-transformers puts behind a model: each module has a folder with a number."""
    return tuple(sorted(name for name in names if _MODULE.fullmatch(name)))


def is_adapter(names: Collection[str]) -> bool:
    """Whether files of these names are a PEFT adapter, and no model that some tool left one beside."""
    if ADAPTER_CONFIG not in names:
        return False
    return CONFIG not in names or (INDEX not in names and not weight_names(names))


def adapter_names(names: Collection[str]) -> tuple[str, ...]:
    """The file with an adapter's weights, safetensors before older kinds; none where there is none."""
    return tuple(name for name in ADAPTER_FILES if name in names)[:1]


def refuse_unusable(model: str, names: Collection[str]) -> None:
    """Raise `BadFileError` when files of these names cannot be a model that llmctl runs.

    An adapter is whole with its own weights: its base is looked at by itself.
    """
    if not names:
        raise BadFileError(f"{model} is empty", hint=f"a model has {CONFIG} and *.safetensors files")
    if DELTA in names:
        raise BadFileError(
            f"{model} is a delta, not a model",
            hint=f"run its base with --delta {model}, or write its target: llmctl delta apply",
        )
    if is_adapter(names):
        if not adapter_names(names):
            raise BadFileError(
                f"{model} is a PEFT adapter without weights: {ADAPTER_FILE} is missing",
                hint="copy or download the whole adapter",
            )
        return
    if CONFIG not in names:
        _refuse_without_config(model, names)
    if INDEX not in names:
        if not weight_names(names):
            _refuse_without_weights(model, names)
        if SINGLE_FILE not in names:
            raise BadFileError(
                f"{model} has weights ({shown(weight_names(names))}) and neither {SINGLE_FILE} nor {INDEX}",
                hint=f"rename a single file to {SINGLE_FILE}; for several shards the index is needed",
            )


def shown(names: Collection[str]) -> str:
    """A few of `names` for a message."""
    ordered = sorted(names)
    more = len(ordered) - _NUM_NAMES_SHOWN
    return ", ".join(ordered[:_NUM_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def indexed_shards(folder: Path) -> tuple[str, ...]:
    """The weight files that the folder's index names, empty without an index.

    Raises `BadFileError` for a damaged index.
    """
    path = folder / INDEX
    if not path.exists():
        return ()
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadFileError(f"{path} has no weight_map")
    return tuple(sorted({str(file) for file in weight_map.values()}))


def missing_shards(folder: Path, names: Collection[str]) -> tuple[str, ...]:
    """Files of weights, safetensors or older, that an index of the folder names and that are not `names`."""
    indexes = (name for name in names if name.endswith(".index.json"))
    told = {
        str(file)
        for name in indexes
        for file in dict(read_json(folder / name).get("weight_map", {})).values()
    }
    return tuple(sorted(told - set(names)))


def read_json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """A JSON object; with `optional` a missing file counts as empty. Raises `BadFileError`."""
    if optional and not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadFileError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BadFileError(
            f"{path} is not valid JSON: {error}", hint="download or copy the file again"
        ) from error
    if not isinstance(value, dict):
        raise BadFileError(f"{path} must hold a JSON object, not {type(value).__name__}")
    return value


def _is_wanted(name: str) -> bool:
    return "/" not in name and not any(fnmatchcase(name, glob) for glob in _UNWANTED)


def _refuse_without_config(model: str, names: Collection[str]) -> None:
    hint = f"a model has {CONFIG} and *.safetensors files"
    if "params.json" in names:
        hint = "this is the maker's own format; take the repository whose files are for transformers"
    if "model_index.json" in names:
        hint = "this is an image pipeline; llmctl runs language models"
    raise BadFileError(f"{model} is not a model folder: no {CONFIG}, only {shown(names)}", hint=hint)


def _refuse_without_weights(model: str, names: Collection[str]) -> None:
    pickles = [name for name in names if name.endswith(_PICKLES) and _is_wanted(name)]
    if not pickles:
        raise BadFileError(f"{model} has no weights: no *.safetensors, only {shown(names)}")
    # Trainers write those, with much that is no tensor.
    is_checkpoint = all(name.endswith(".ckpt") for name in pickles)
    convert = f"`llmctl models convert {model} --out DIR` writes safetensors of them and runs no code; "
    way = "" if is_checkpoint else convert
    raise BadFileError(
        f"{model} has only pickle weights ({shown(pickles)}), which can run code; llmctl reads safetensors",
        hint=f"{way}many repositories have safetensors in a pull request too (--revision refs/pr/N)",
    )
