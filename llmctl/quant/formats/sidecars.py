"""Tensors that stand beside weights without being needed for them: scales of activations and of the cache."""

_OF_ACTIVATIONS = (
    "input_scale",
    "input_scale_ub",
    "input_zero_point",
    "input_global_scale",
    "activation_scale",
    "output_scale",
    "output_zero_point",
)
_OF_CACHE = tuple(f"{which}_{what}" for which in "qkv" for what in ("scale", "zero_point", "global_scale"))


def owners(tensor: str) -> tuple[tuple[str, str], ...]:
    """The weights that the tensor of this name may belong to, the likeliest first, each with the role there.

    Empty where the name is not that of such a scale.
    """
    parent, _, last = tensor.rpartition(".")
    if last in _OF_ACTIVATIONS:
        return ((f"{parent}.weight", last),)
    if last in _OF_CACHE:
        return ((f"{parent}.{last[0]}_proj.weight", last), (f"{parent}.weight", last))
    if last.endswith("_activation_scale"):
        return ((tensor.removesuffix("_activation_scale"), "activation_scale"),)
    return ()
