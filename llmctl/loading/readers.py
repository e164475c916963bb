"""Who reads the weights of a quantised checkpoint: its configuration or an older tool's file says it, or the
user. No torch until `reader_of` opens a reader.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from llmctl.core.errors import BadFileError, UsageError
from llmctl.loading.checkpoint import Checkpoint
from llmctl.loading.facts.quantisation import QUANT_KEYS, older_settings_of, quantisation_of, settings_of
from llmctl.quant.formats.settings import newest_names
from llmctl.quant.formats.table import method_of, open_reader

if TYPE_CHECKING:
    from llmctl.quant.formats.base import Reader


def reader_of(
    checkpoint: Checkpoint, overrides: Mapping[str, Any], otherwise: Mapping[str, Any] = MappingProxyType({})
) -> "Reader | None":
    """The reader of a quantised checkpoint; None for a dense one, and for GGUF, which transformers reads.

    `overrides` are the user's own words on how it is quantised, `otherwise` what holds where neither these
    nor the files say it. Raises all that `told_of` and `open_reader` raise.
    """
    told = told_of(checkpoint, overrides)
    if told is None:
        return None
    said = newest_names(told)
    told = {**told, **{key: value for key, value in otherwise.items() if key not in said}}
    names = [name for name, _ in checkpoint.entries()]
    reader = open_reader(told, names, {key: overrides[key] for key in overrides if key != "quant_method"})
    if not any(reader.part(name) for name in names):
        raise BadFileError(
            f"the config of {checkpoint.name} says that it is quantised ({reader.title}), and none of its "
            "weights is",
            hint="take quantization_config out of config.json if the weights are right as they are",
        )
    if checkpoint.adapter is not None:
        from llmctl.loading.adapted import DenseReader

        return DenseReader(reader)
    return reader


def told_of(checkpoint: Checkpoint, overrides: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """How the weights are quantised by a method that llmctl reads; None where `reader_of` has none.

    What the files say, under the user's method; the other `overrides` are for the reader. Raises
    `BadFileError` for a method that llmctl does not read, for files that contradict each other, and for
    weights that are packed in a way that nothing explains; `UsageError` for overrides on dense weights and
    on GGUF files.
    """
    if checkpoint.gguf is not None:
        if overrides:
            raise UsageError(
                f"--quant-config {_word_of(overrides)}: {checkpoint.name} is a GGUF file, which "
                "says itself how it is quantised",
                hint="leave it out",
            )
        return None
    told = settings_of(checkpoint.config, checkpoint.folder)
    if told is not None and not isinstance(told, Mapping):
        raise BadFileError(
            f"{checkpoint.name}: the quantization_config of its config.json is {told!r}, not an object",
            hint="take it out of config.json if the weights are not quantised",
        )
    method = overrides.get("quant_method")
    if told is None:
        if not method:
            _refuse_unexplained(checkpoint)
        if overrides and quantisation_of(None, checkpoint.bytes_by_dtype) is None:
            raise _not_quantised(checkpoint, overrides)
        if not method:
            return None
    _refuse_contradiction(checkpoint, told or {}, overrides)
    told = {**(told or {}), **({"quant_method": method} if method else {})}
    method_of(told)
    return told


def _not_quantised(checkpoint: Checkpoint, overrides: Mapping[str, Any]) -> UsageError:
    return UsageError(
        f"--quant-config {_word_of(overrides)}: {checkpoint.name} is not quantised",
        hint="leave it out; --load-8bit and --load-4bit quantise while loading",
    )


def _word_of(overrides: Mapping[str, Any]) -> str:
    # Python's configs say the method by their class, so that another word is the one that was given.
    key = next((key for key in overrides if key != "quant_method"), "quant_method")
    return f"{key}={overrides[key]}"


def _refuse_unexplained(checkpoint: Checkpoint) -> None:
    packed = quantisation_of(None, checkpoint.bytes_by_dtype)
    if packed is not None:
        is_fp8 = any(kind.startswith("F8") for kind in checkpoint.bytes_by_dtype)
        words = "quant_method=fp8" if is_fp8 else "quant_method=gptq --quant-config bits=4"
        raise BadFileError(
            f"{checkpoint.name} is quantised ({packed.method})",
            hint=f"say how, as in --quant-config {words}, or take the model's 16-bit checkpoint",
        )


def _refuse_contradiction(
    checkpoint: Checkpoint, told: Mapping[str, Any], overrides: Mapping[str, Any]
) -> None:
    """Tools wrote one thing into two files; where they differ, nobody but the user knows which is right."""
    older = older_settings_of(checkpoint.folder)
    if older is None:
        return
    file, said = older[0], newest_names(older[1])
    told, own = newest_names(told), newest_names(overrides)
    for key in QUANT_KEYS:
        one, other = told.get(key, said.get(key)), said.get(key, told.get(key))
        if key not in own and str(one).lower() != str(other).lower():
            raise BadFileError(
                f"{checkpoint.name}: its config.json says {key}={one}, its {file} {key}={other}",
                hint=f"say what is right: --quant-config {key}=...",
            )
