"""What a packed model tells of itself, and that its copies and threads compute as it does."""

import copy
import gc
import io
import pickle
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llmctl.core.errors import UsageError
from llmctl.loading import load_model
from llmctl.quant import packed_model, prepare
from llmctl.quant.activations import Memo
from llmctl.quant.methods import Scheme
from tests import tiny
from tests.quant.formats import packers_gptq
from tests.quant.rounded import logits

INT8 = Scheme(body="int8")


def packed(scheme: Scheme = INT8, kind: str = "llama", **changes: Any) -> Any:
    """A tiny model with packed weights."""
    model = tiny.model(kind, **changes)
    prepare.quantise(model, scheme, dtype=torch.float32, memo=Memo())
    packed_model.adopt(model)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mixtral", "t5", "t5gemma"])
@pytest.mark.parametrize("is_tied", [True, False])
def test_a_packed_model_has_as_many_parameters_as_a_dense_one(kind: str, is_tied: bool) -> None:
    dense = tiny.model(kind, tie_word_embeddings=is_tied)
    model = packed(kind=kind, tie_word_embeddings=is_tied)
    assert model.num_parameters() == dense.num_parameters()
    assert model.num_parameters(exclude_embeddings=True) == dense.num_parameters(exclude_embeddings=True)


def test_packed_weights_are_not_trainable() -> None:
    model = packed()
    assert model.num_parameters(only_trainable=True) == sum(each.numel() for each in model.parameters())


def test_the_memory_of_a_packed_model_is_that_of_its_packed_weights_and_the_rest() -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 128}
    dense, wide, narrow = (
        tiny.model(**sizes).get_memory_footprint(),
        packed(**sizes).get_memory_footprint(),
        packed(Scheme(body="int4"), **sizes).get_memory_footprint(),
    )
    # A byte a weight instead of four, half a byte in the layers; scales beside them.
    assert dense / 4 < wide < dense / 3
    assert dense / 8 < narrow < wide


def test_buffers_are_left_out_of_the_memory_where_they_are_not_asked_for() -> None:
    model = packed()
    buffers = sum(each.nbytes for each in model.buffers())
    without = model.get_memory_footprint(return_buffers=False)
    assert 0 < buffers == model.get_memory_footprint() - without


def test_a_packed_table_of_tokens_is_not_resized() -> None:
    model = packed()
    assert model.resize_token_embeddings() is model.get_input_embeddings()
    with pytest.raises(UsageError, match="quantised model cannot be resized"):
        model.resize_token_embeddings(300)
    with pytest.raises(UsageError, match="quantised model cannot be resized"):
        model.resize_token_embeddings(pad_to_multiple_of=64)
    assert model.config.vocab_size == tiny.VOCABULARY_SIZE


def test_so_is_that_of_a_quantised_checkpoint(folder: Path, tmp_path: Path) -> None:
    packers_gptq.pack_folder(folder, tmp_path / "gptq")
    model, _ = load_model(tmp_path / "gptq", "cpu")
    with pytest.raises(UsageError, match="quantised model cannot be resized"):
        model.resize_token_embeddings(300)


def test_a_table_that_stayed_as_it_was_is_resized() -> None:
    model = packed(Scheme(body="int8", head=None, embedding=None))
    before = logits(model)
    model.resize_token_embeddings(300, mean_resizing=False)
    after = logits(model)
    assert after.shape[-1] == 300
    assert torch.equal(after[..., : tiny.VOCABULARY_SIZE], before)


@pytest.mark.parametrize("method", ["int8", "int4", "nf4"])
@pytest.mark.parametrize("kind", ["llama", "mixtral"])
def test_a_copy_shares_the_packed_weights_and_says_the_same(kind: str, method: str) -> None:
    model = packed(Scheme(body=method), kind, hidden_size=64, intermediate_size=128)
    wanted = logits(model)
    for made in (copy.deepcopy(model), copy.copy(model)):
        assert type(made) is type(model)
        assert torch.equal(logits(made), wanted)
    deep = copy.deepcopy(model)
    ours, theirs = (each.model.layers[0].self_attn.q_proj for each in (model, deep))
    assert ours is not theirs
    assert ours.kernel is theirs.kernel
    assert model.model.embed_tokens.table is deep.model.embed_tokens.table
    # What is not packed is the copy's own.
    deep.model.norm.weight.data.zero_()
    assert torch.equal(logits(model), wanted)


@pytest.mark.parametrize("write", [pickle.dumps, lambda model: torch.save(model, io.BytesIO())])
@pytest.mark.parametrize("kind", ["llama", "mixtral"])
def test_a_packed_model_is_not_pickled(kind: str, write: Callable[[Any], object]) -> None:
    model = packed(kind=kind)
    with pytest.raises(UsageError, match="cannot be pickled") as caught:
        write(model)
    assert "without quantisation" in str(caught.value.hint)
    # Nor are parts of it.
    with pytest.raises(UsageError, match="cannot be pickled"):
        write(model.model.layers[0].mlp)


def test_a_packed_model_goes_by_the_name_of_its_class_and_generates(folder: Path) -> None:
    dense, tokenizer = load_model(folder, "cpu")
    model, _ = load_model(folder, "cpu", load_8bit=True)
    assert (type(model).__name__, type(model).__module__) == (type(dense).__name__, type(dense).__module__)
    assert isinstance(model, type(dense))
    ids = torch.tensor([tokenizer.encode("Hello")])
    said = model.generate(ids, max_new_tokens=4, do_sample=False)
    assert said.shape == (1, ids.shape[1] + 4)
    assert torch.equal(copy.deepcopy(model).generate(ids, max_new_tokens=4, do_sample=False), said)


def test_a_model_without_packed_weights_is_left_as_it_is(folder: Path) -> None:
    model, _ = load_model(folder, "cpu")
    assert not isinstance(model, packed_model.PackedModel)
    assert pickle.loads(pickle.dumps(model)).num_parameters() == model.num_parameters()


def test_threads_share_a_model_and_its_copy() -> None:
    model = packed()
    deep = copy.deepcopy(model)
    wanted, found = logits(model), []

    def ask(each: Any) -> None:
        found.extend(logits(each) for _ in range(5))

    threads = [threading.Thread(target=ask, args=(each,)) for each in (model, deep, model, deep)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    assert all(torch.equal(each, wanted) for each in found)


def test_a_model_that_nobody_holds_is_gone_at_once(folder: Path) -> None:
    model, _ = load_model(folder, "cpu", load_8bit=True)
    kernel = weakref.ref(model.model.layers[0].mlp.up_proj.kernel)
    deep = copy.deepcopy(model)
    gc.disable()
    try:
        del model
        assert kernel() is not None
        del deep
        assert kernel() is None
    finally:
        gc.enable()
