"""What the weights of a checkpoint take in memory once they are loaded: an estimate, without torch."""

from llmctl.loading.planning.request import Facts
from llmctl.quant.methods import METHODS, Scheme

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_STORED_BYTES = 2
"""Of a dense number in a quantised checkpoint, nearly always."""
_INT_BITS = (4, 8)
"""Bits that whole numbers are kept in; fewer are widened."""
_OWN_TABLE_BITS = {"mxfp4": 8}
"""Formats whose numbers are wider in memory than on disk."""


def weight_bytes(facts: Facts, dtype: str, scheme: Scheme | None) -> int:
    """Bytes of the weights in `dtype` (a key of `BYTES`), packed as `scheme` says."""
    packed = facts.quantisation
    if packed is not None and not packed.is_decoded:
        return _packed_bytes(facts, dtype, packed.method, packed.bits)
    if scheme is None:
        return facts.num_parameters * BYTES[dtype]
    return _scheme_bytes(facts, dtype, scheme)


def block_bytes(facts: Facts, num_bytes: int) -> int:
    """The largest part of `num_bytes` that has to be on one device: a layer or a table of tokens."""
    if not facts.num_parameters:
        return 0
    table = max(facts.num_head_parameters, facts.num_embedding_parameters)
    layer = facts.num_body_parameters / max(1, facts.num_layers)
    # The tables keep more bits than the layers do.
    return int(max(layer / facts.num_parameters * num_bytes, table * _STORED_BYTES))


def _scheme_bytes(facts: Facts, dtype: str, scheme: Scheme) -> int:
    head = facts.num_head_parameters
    tables = facts.num_embedding_parameters
    rest = facts.num_parameters - facts.num_body_parameters - head - tables
    parts = [
        (facts.num_body_parameters, scheme.body),
        (tables, scheme.embedding),
        # A head that is the table of tokens too gets packed beside it.
        (head or (tables if scheme.head else 0), scheme.head),
        (rest, None),
    ]
    return sum(int(count * _bits(method, dtype) / 8) for count, method in parts)


def _bits(method: str | None, dtype: str) -> float:
    return METHODS[method].bits_per_weight if method is not None else BYTES[dtype] * 8


def _packed_bytes(facts: Facts, dtype: str, method: str, bits: int | None) -> int:
    dense = facts.num_parameters - facts.num_body_parameters
    packed = max(0, facts.num_bytes - dense * _STORED_BYTES)
    kept = _OWN_TABLE_BITS.get(method) or next((each for each in _INT_BITS if bits and bits <= each), None)
    widened = packed * kept // bits if bits and kept else packed
    return widened + dense * BYTES[dtype]
