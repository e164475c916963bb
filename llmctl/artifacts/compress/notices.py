"""What a user should hear before a model is compressed: what stays large and why, and who cannot load it."""

from collections.abc import Collection

from llmctl.artifacts.compress.methods import METHODS
from llmctl.artifacts.compress.places import AS_IT_IS, SKIPPED, Places, kinds_of
from llmctl.artifacts.compress.request import CompressRequest
from llmctl.core.errors import UsageError
from llmctl.core.sizes import shown

_NOTABLE = 0.02
"""Share of a model's bytes: less of it may stay dense without a word."""
_WISHED = (AS_IT_IS, SKIPPED)


def notices(name: str, places: Places, request: CompressRequest, *, num_bytes: int) -> tuple[str, ...]:
    """Sentences on the model called `name`, which has `num_bytes` of weights."""
    told = []
    for reason, modules in kinds_of(places.dense):
        size = sum(places.dense_bytes.get(module, 0) for module in modules)
        if reason not in _WISHED and size > _NOTABLE * num_bytes:
            kept = f"{shown(size)} of {shown(num_bytes)} stay dense"
            told.append(f"{name}: {kept}: {_named(modules)}, since {reason}")
    if places.has_experts and not METHODS[request.method].is_for_experts_in_transformers:
        others = " or ".join(key for key, row in METHODS.items() if row.is_for_experts_in_transformers)
        told.append(
            f"{name}: transformers cannot load experts in {request.method}, as llmctl can; "
            f"both load --method {others}"
        )
    if places.is_pair:
        told.append(f"{name}: transformers cannot run an encoder and decoder of these files, as llmctl can")
    return tuple(told)


def refuse_nothing(name: str, places: Places, request: CompressRequest) -> None:
    """Raise `UsageError` where no weight would be compressed."""
    if places.chosen:
        return
    kinds = sorted(
        kinds_of(places.dense),
        key=lambda kind: (kind[0] == AS_IT_IS, -sum(places.dense_bytes.get(path, 0) for path in kind[1])),
    )
    why = f": {_named(kinds[0][1])} must stay dense, since {kinds[0][0]}" if kinds else ""
    raise UsageError(
        f"{name} has no weights that {request.method} can compress{why}",
        hint=_remedy(request, kinds[0][0] if kinds else ""),
    )


def _remedy(request: CompressRequest, reason: str) -> str:
    if reason == SKIPPED:
        return "let --skip find less"
    if "divide" in reason:
        return "take --method int8, which has no groups"
    packed = "int4" if METHODS[request.method].bits == 4 else "int8"
    return f"llmctl can pack it while it loads: llmctl chat {request.model} --quantization {packed}"


def _named(modules: Collection[str]) -> str:
    more = len(modules) - 1
    return next(iter(modules)) + (f" and {more} more" if more else "")
