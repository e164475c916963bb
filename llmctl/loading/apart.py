"""Quantised weights that lie apart from their model: a folder of links has both while the model loads."""

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmctl.core.errors import BadFileError, NotFoundError
from llmctl.core.places import expanded
from llmctl.loading import contents

_WEIGHTS = ".safetensors"
_CONFIG_KEY = "quantization_config"


@contextlib.contextmanager
def joined(folder: Path, weights: str, told: Mapping[str, Any]) -> Iterator[Path]:
    """A folder with the files of `folder`, but the weights of `weights`, a file or a folder.

    `told` is the quantisation's config, taken where neither place has one. Raises `NotFoundError` for weights
    that are not there, `BadFileError` for those that are no safetensors files.
    """
    files = _weight_files(expanded(weights))
    own = [path for path in folder.iterdir() if path.is_file() and not _is_weight(path)]
    # Beside the weights may lie what tells how they are packed.
    beside = [path for path in files[0].parent.iterdir() if path.suffix == ".json" and not _is_weight(path)]
    with tempfile.TemporaryDirectory(prefix="llmctl-") as parent:
        # The name of the folder is the name of the model.
        place = Path(parent) / folder.resolve().name
        place.mkdir()
        for path in (*own, *files):
            (place / path.name).symlink_to(path.resolve())
        config = _config(folder, beside, told)
        (place / contents.CONFIG).unlink(missing_ok=True)
        (place / contents.CONFIG).write_text(json.dumps(config), encoding="utf-8")
        yield place


def _weight_files(path: Path) -> list[Path]:
    if path.is_file():
        if path.suffix != _WEIGHTS:
            raise BadFileError(
                f"{path} is no safetensors file, which llmctl would need",
                hint="take a checkpoint in safetensors; pickle files run code when they are read",
            )
        return [path]
    if not path.is_dir():
        raise NotFoundError(f"no such file or folder of weights: {path}")
    files = sorted(each for each in path.iterdir() if each.suffix == _WEIGHTS or each.name == contents.INDEX)
    if not any(each.suffix == _WEIGHTS for each in files):
        raise BadFileError(f"{path} holds no {_WEIGHTS} files")
    return files


def _is_weight(path: Path) -> bool:
    return path.suffix in (_WEIGHTS, ".bin", ".pt", ".pth") or path.name.endswith(".index.json")


def _config(folder: Path, beside: list[Path], told: Mapping[str, Any]) -> dict[str, Any]:
    """The model's config with the way in which the other weights are quantised."""
    config = contents.read_json(folder / contents.CONFIG)
    for path in beside:
        found = contents.read_json(path)
        if path.name == contents.CONFIG and isinstance(found.get(_CONFIG_KEY), dict):
            return {**config, _CONFIG_KEY: found[_CONFIG_KEY]}
        if path.name in ("quantize_config.json", "quant_config.json"):
            return {**config, _CONFIG_KEY: {"quant_method": told.get("quant_method"), **found}}
    return {**config, _CONFIG_KEY: config.get(_CONFIG_KEY) or dict(told)}
