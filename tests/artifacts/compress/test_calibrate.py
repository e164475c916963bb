"""A text runs through a model block by block, and what its layers met is told before they are rounded."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from llmctl.artifacts.compress.calibrate import calibrate, sequences
from llmctl.core.errors import BadFileError, UsageError
from llmctl.core.progress import SilentProgress
from tests import tiny


def linear_paths(model: Any) -> list[str]:
    return [
        path
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and path != "lm_head" and "gate" not in path.rpartition(".")[2]
    ]


def given(num: int = 3, length: int = 24) -> list[Tensor]:
    return list(torch.randint(0, 256, (num, 1, length), generator=torch.Generator().manual_seed(0)))


def met(model: Any, paths: list[str], ids: list[Tensor]) -> dict[str, Tensor]:
    """The products of the layers' inputs when the model runs as ever."""
    sums: dict[str, Tensor] = {}

    def note(path: str) -> Callable[..., None]:
        def add(module: Any, args: tuple[Tensor, ...]) -> None:
            rows = args[0].reshape(-1, args[0].shape[-1])
            sums[path] = sums.get(path, torch.zeros(())) + rows.T @ rows

        return add

    hooks = [model.get_submodule(path).register_forward_pre_hook(note(path)) for path in paths]
    with torch.no_grad():
        for each in ids:
            model(each)
    for hook in hooks:
        hook.remove()
    return sums


@pytest.mark.parametrize("kind", ["llama", "gemma2", "mixtral", "phi3", "gpt_neox", "opt", "falcon"])
def test_layers_meet_what_they_meet_when_the_model_runs(kind: str) -> None:
    model = tiny.model(kind)
    paths, told = linear_paths(model), {}

    def keep(path: str, weight: Tensor, products: Tensor) -> Tensor:
        told[path] = products
        return weight

    expected = met(model, paths, given())
    calibrate(model, given(), paths, keep, SilentProgress())
    in_blocks = {path for path in paths if any(char.isdigit() for char in path)}
    assert set(told) == in_blocks & set(expected)
    for path, products in told.items():
        torch.testing.assert_close(products, expected[path], rtol=1e-4, atol=1e-4)


def test_a_layer_meets_what_the_rounded_ones_before_it_give() -> None:
    model, changed = tiny.model(), tiny.model()
    paths, told = linear_paths(model), {}

    def coarse(path: str, weight: Tensor, products: Tensor) -> Tensor:
        told[path] = products
        return (weight * 4).round() / 4 if ".layers.0." in path else weight

    calibrate(model, given(), paths, coarse, SilentProgress())
    for path in paths:
        if ".layers.0." in path:
            weight = changed.get_submodule(path).weight.data
            weight.copy_((weight * 4).round() / 4)
    later = "model.layers.1.mlp.down_proj"
    torch.testing.assert_close(told[later], met(changed, [later], given())[later], rtol=1e-4, atol=1e-4)
    assert torch.equal(model.get_submodule(paths[0]).weight, changed.get_submodule(paths[0]).weight)


def test_a_pair_of_encoder_and_decoder_is_refused() -> None:
    model = tiny.model("t5")
    with pytest.raises(UsageError, match="one chain of layers"):
        calibrate(model, given(), linear_paths(model), lambda path, weight, _: weight, SilentProgress())


def test_a_model_that_does_more_between_its_layers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model()
    model.model.layers[0].register_forward_hook(lambda module, args, out: out)
    first, plain = model.model.layers[0], model.model.layers[1].forward
    monkeypatch.setattr(model.model.layers[1], "forward", plain)
    calls = iter(range(100))
    own = first.forward
    # Whoever runs the block alone gets something else than the model did.
    monkeypatch.setattr(first, "forward", lambda *args, **options: own(*args, **options) + next(calls))
    with pytest.raises(UsageError, match="follow one another, and this one does more"):
        calibrate(model, given(), linear_paths(model), lambda path, weight, _: weight, SilentProgress())


def test_a_text_is_cut_into_sequences() -> None:
    found = sequences("abcd" * 200, tiny.tokenizer(), context_length=256, name="a.txt")
    assert [each.shape for each in found] == [(1, 256)] * 3 + [(1, 36)]
    # Each begins as the tokenizer begins a text.
    assert all(int(each[0, 0]) == tiny.BOS for each in found)


def test_a_text_that_is_too_short_is_refused() -> None:
    with pytest.raises(BadFileError, match=r"a\.txt has 4 tokens; calibration needs 256"):
        sequences("abcd", tiny.tokenizer(), context_length=256, name="a.txt")
