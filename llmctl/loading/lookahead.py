"""Refuses by its config and the sizes of its files, before any weights come, a model that could not be run.

What these do not tell passes: it is looked at again when the weights are here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmctl.core.errors import DoesNotFitError
from llmctl.loading import architecture, contents, devices
from llmctl.loading.facts.quantisation import GGUF, Quantisation, quantisation_of, settings_of
from llmctl.loading.facts.shape import shape_of, text_config
from llmctl.loading.gguf.head import SUFFIX as GGUF_SUFFIX
from llmctl.loading.gguf.names import bits_in_name
from llmctl.loading.hub.fetch import RemoteFile
from llmctl.loading.planning.plan import plan
from llmctl.loading.planning.request import Facts, PlanRequest
from llmctl.loading.planning.weight_bytes import BYTES

_SURE = 0.9
"""Of what packed files would be by their bits alone: not all of their weights are packed."""
_MOST_BITS = 32
"""Of a dense number in a file, whatever the config says that the model computes in."""
_SMALL, _BITS_OF_SMALL = 2**30, 9.25
"""GGUF files below so many bytes are mostly tables, and rows that their type's blocks do not divide: up to
Q8_0, whatever the name says."""


def check(
    folder: Path,
    weights: Sequence[RemoteFile],
    *,
    name: str,
    wishes: PlanRequest,
    trust_remote_code: bool,
) -> None:
    """Look at the model `name`, of which `folder` holds all but the `weights`.

    Raises what `architecture.check` and `plan` raise.
    """
    is_gguf = weights[0].name.endswith(GGUF_SUFFIX)
    config = {} if is_gguf else contents.read_json(folder / contents.CONFIG)
    if not is_gguf:
        architecture.check(config, name=name, trust_remote_code=trust_remote_code)
    facts = _facts(name, config, folder, weights)
    if facts is None:
        return
    try:
        plan(wishes, facts, devices.available())
    except DoesNotFitError as error:
        error.hint = (
            f"{error.hint}; no weights were downloaded, `llmctl models pull {name}` does it all the same"
        )
        raise


def _facts(name: str, config: Mapping[str, Any], folder: Path, weights: Sequence[RemoteFile]) -> Facts | None:
    """As much as can be said without the headers, rather too small than too large; None for nothing sure."""
    quantisation, bits = _quantisation(config, folder, weights)
    num_bytes = sum(file.num_bytes for file in weights)
    text = text_config(config)
    dtype = str(text.get("dtype") or text.get("torch_dtype")).removeprefix("torch.")
    if quantisation is None and dtype in BYTES:
        bits = _dense_bits(folder, num_bytes, told=BYTES[dtype] * 8)
    if not bits:
        return None
    num_parameters = int(num_bytes * 8 / bits * (1 if quantisation is None else _SURE))
    return Facts(
        name=name,
        stored_dtype=dtype if quantisation is None else "bfloat16",
        num_bytes=num_bytes,
        num_parameters=num_parameters,
        num_body_parameters=num_parameters,
        num_layers=shape_of(config).num_layers or 1,
        quantisation=quantisation,
    )


def _dense_bits(folder: Path, num_bytes: int, *, told: int) -> float:
    """At least the bits of a number in dense files, of which an index may have the count."""
    about = contents.read_json(folder / contents.INDEX, optional=True).get("metadata")
    count = about.get("total_parameters") if isinstance(about, Mapping) else None
    if isinstance(count, int) and count > 0:
        return min(max(told, num_bytes * 8 / count), _MOST_BITS)
    return _MOST_BITS


def _quantisation(
    config: Mapping[str, Any], folder: Path, weights: Sequence[RemoteFile]
) -> tuple[Quantisation | None, float | None]:
    """How the weights are packed, and bits of each; None and None for dense ones."""
    if weights[0].name.endswith(GGUF_SUFFIX):
        bits = bits_in_name(weights[0].name)
        if bits and weights[0].num_bytes < _SMALL:
            bits = max(bits, _BITS_OF_SMALL)
        return Quantisation(method=GGUF, bits=None, is_decoded=True), bits
    packed = quantisation_of(settings_of(config, folder), {})
    return packed, packed.bits if packed is not None else None
