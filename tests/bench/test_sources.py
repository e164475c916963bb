"""Random models of real shapes, and checkpoints: what `bench engine` measures."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from llmctl.bench.shapes import SHAPES, STACKS
from llmctl.bench.sources import CheckpointSource, NoText, RandomSource, read_tokenizer
from llmctl.core.errors import BadFileError, DoesNotFitError, UsageError
from llmctl.core.progress import SilentProgress
from llmctl.engine.detokenize import Detokenizer
from llmctl.loading.loader import LoadedModel
from llmctl.loading.planning.hardware import cpu
from llmctl.quant.modules import QuantLinear
from tests import tiny

DEMO = RandomSource(shape=SHAPES["demo"], stack=STACKS["demo"], device=cpu())


def made(dtype: str = "bf16") -> LoadedModel:
    return DEMO.loaded(dtype, SilentProgress())


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(torch.tensor([[1, 2, 3, 4]])).logits
    return found


def test_every_shape_of_a_block_is_one_of_a_model() -> None:
    assert STACKS.keys() == SHAPES.keys()


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("qwen2-0.5b", 494),
        ("qwen3-0.6b", 596),
        ("qwen2.5-1.5b", 1544),
        ("llama-1b", 1236),
        ("gemma-2b", 2506),
        ("mistral-7b", 7248),
        ("llama-8b", 8030),
        ("qwen2.5-7b", 7616),
        ("llama-70b", 70554),
    ],
)
def test_a_shape_has_as_many_weights_as_its_model(name: str, millions: int) -> None:
    source = RandomSource(shape=SHAPES[name], stack=STACKS[name], device=cpu())
    assert source.num_weights / 1e6 == pytest.approx(millions, rel=0.001)


def test_a_random_model_has_the_shape_and_finite_answers() -> None:
    loaded = made()
    model = loaded.model
    assert sum(each.numel() for each in model.parameters()) == pytest.approx(DEMO.num_weights, rel=0.001)
    assert {each.dtype for each in model.parameters()} == {torch.bfloat16}
    assert model.lm_head.weight is model.get_input_embeddings().weight
    found = logits(model)
    assert found.shape == (1, 4, loaded.vocabulary_size)
    assert bool(found.isfinite().all())
    assert float(found.float().std()) > 0
    assert (loaded.end_ids, loaded.context_length) == (frozenset(), 1024)


def test_biases_are_not_left_as_memory_was() -> None:
    shape, stack = SHAPES["demo"], replace(STACKS["demo"], model_type="qwen2", num_layers=1)
    model = RandomSource(shape=shape, stack=stack, device=cpu()).loaded("bf16", SilentProgress()).model
    biases = [each for name, each in model.named_parameters() if name.endswith("bias")]
    assert len(biases) == 3
    assert not any(bool(each.any()) for each in biases)


def test_the_same_weights_come_every_time_and_layers_differ() -> None:
    one, other = made().model, made().model
    assert torch.equal(logits(one), logits(other))
    first, second, *_ = one.model.layers
    assert not torch.equal(first.mlp.up_proj.weight, second.mlp.up_proj.weight)


@pytest.mark.parametrize("dtype", ["int8", "nf4"])
def test_a_quantised_model_answers_about_as_the_dense_one(dtype: str) -> None:
    loaded = made(dtype)
    assert loaded.plan.quant is not None
    assert loaded.plan.quant.body == dtype
    assert any(isinstance(module, QuantLinear) for module in loaded.model.modules())
    dense, coarse = logits(made().model).float(), logits(loaded.model).float()
    assert (coarse - dense).norm() < 0.5 * dense.norm()


def test_what_does_not_fit_is_refused_before_it_is_made() -> None:
    source = RandomSource(
        shape=SHAPES["llama-70b"], stack=STACKS["llama-70b"], device=replace(cpu(), free_bytes=2**30)
    )
    with pytest.raises(DoesNotFitError, match=r"takes about 131.4 GiB, cpu has 1.0 GiB free"):
        source.loaded("bf16", SilentProgress())


def test_ids_do_for_a_text_where_there_is_no_tokenizer() -> None:
    text = Detokenizer(NoText())
    assert "".join(text.push(each) for each in (7, 300, 7)) + text.finish() == "7 300 7 "


def test_a_checkpoint_is_loaded_as_it_is_for_chat() -> None:
    source = CheckpointSource(model="demo", kind="cpu")
    loaded = source.loaded("int8", SilentProgress())
    assert (source.name, loaded.plan.dtype) == ("demo", "bfloat16")
    assert loaded.plan.quant is not None


def test_a_model_that_does_not_write_token_by_token_is_refused(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "t5", "t5")
    with pytest.raises(UsageError, match="is no causal model"):
        CheckpointSource(model=str(folder), kind="cpu").loaded("bf16", SilentProgress())


def test_a_tokenizer_is_a_folder_that_holds_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--tokenizer must be a folder"):
        read_tokenizer(str(tmp_path / "none"))
    with pytest.raises(BadFileError, match="does not load"):
        read_tokenizer(str(tmp_path))
