"""Placeholders, weights that arrive by name, ties, and models that are quantised as a whole."""

import gc
import weakref
from functools import partial
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from llmctl.loading import quantiser
from llmctl.quant import prepare, select
from llmctl.quant.kernels import Memo
from llmctl.quant.methods import Scheme
from llmctl.quant.modules import QuantEmbedding, QuantLinear
from llmctl.quant.rounding import round_to
from tests import tiny
from tests.quant.rounded import difference, logits, twins

INT8 = Scheme(body="int8")


def on_meta(kind: str, **changes: Any) -> Any:
    """A tiny model without weights."""
    auto = transformers.AutoModelForSeq2SeqLM if kind in tiny.PAIRS else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        return auto.from_config(tiny.config(kind, **changes))


def load(dense: Any, scheme: Scheme) -> Any:
    """`dense` saved and loaded by transformers, its weights packed as they arrive."""
    quantiser.register()
    tied = set(dense.all_tied_weights_keys)
    kept = {name: each for name, each in dense.state_dict().items() if name not in tied}
    config = quantiser.LlmctlConfig(partial(select.select, scheme=scheme))
    model, report = type(dense).from_pretrained(
        None,
        config=dense.config,
        state_dict=kept,
        dtype=dense.dtype,
        quantization_config=config,
        output_loading_info=True,
    )
    assert not report["missing_keys"] | report["unexpected_keys"]
    assert prepare.unfilled(model) == []
    return model.eval()


@pytest.mark.parametrize(
    "kind", ["llama", "gpt2", "cohere", "phi", "mixtral", "gemma", "t5", "bart", "rwkv", "mamba"]
)
def test_weights_that_arrive_one_by_one_make_the_model_that_is_quantised_as_a_whole(kind: str) -> None:
    dense = tiny.model(kind)
    loaded = load(dense, INT8)
    prepare.quantise(dense, INT8, dtype=torch.float32, memo=Memo())
    assert torch.equal(logits(loaded), logits(dense))
    assert {type(each) for each in loaded.modules()} == {type(each) for each in dense.modules()}


def test_a_table_and_a_head_that_are_one_weight_are_rounded_once_and_both_filled() -> None:
    model = on_meta("cohere")
    selection = select.select(model, INT8)
    names = prepare.prepare(model, selection)
    table = torch.randn(tiny.VOCABULARY_SIZE, 32)
    filled = prepare.fill(model, "model.embed_tokens.weight", table, dtype=torch.float32, memo=Memo())
    assert selection.tied
    assert names >= filled == {"model.embed_tokens.weight", "lm_head.weight"}
    embedding, head = model.model.embed_tokens, model.lm_head
    assert isinstance(embedding, QuantEmbedding)
    assert isinstance(head, QuantLinear)
    assert torch.equal(embedding(torch.arange(260)), round_to(table, "int8").dequantize())
    x = torch.randn(3, 32)
    assert difference(head(x), x @ table.T) < 0.02


def test_transformers_no_longer_ties_what_is_packed() -> None:
    model = tiny.model("cohere")
    prepare.quantise(model, INT8, dtype=torch.float32, memo=Memo())
    wanted = logits(model)
    model.tie_weights()
    assert model.all_tied_weights_keys == {}
    assert model.config.tie_word_embeddings
    assert torch.equal(logits(model), wanted)
    assert type(model)._tied_weights_keys == {"lm_head.weight": "model.embed_tokens.weight"}


@pytest.mark.parametrize("arriving", ["lm_head.weight", "transformer.wte.weight"])
def test_either_name_of_a_shared_weight_fills_both(arriving: str) -> None:
    model = on_meta("gpt2")
    prepare.prepare(model, select.select(model, INT8))
    filled = prepare.fill(model, arriving, torch.randn(260, 32), dtype=torch.float32, memo=Memo())
    assert filled == {"lm_head.weight", "transformer.wte.weight"}


def test_a_head_that_comes_with_a_weight_of_its_own_has_that() -> None:
    model = on_meta("gpt2")
    prepare.prepare(model, select.select(model, INT8))
    table, head = torch.randn(2, 260, 32)
    for name, weight in (("transformer.wte.weight", table), ("lm_head.weight", head)):
        prepare.fill(model, name, weight, dtype=torch.float32, memo=Memo())
    assert difference(model.transformer.wte(torch.arange(260)), table) < 0.02
    assert difference(model.lm_head(torch.eye(32)), head.T) < 0.02


def test_a_head_is_packed_beside_a_table_that_stays_dense() -> None:
    model = load(tiny.model("cohere"), Scheme(body="int8", embedding=None))
    assert isinstance(model.lm_head, QuantLinear)
    assert type(model.model.embed_tokens) is nn.Embedding
    assert model.model.embed_tokens.weight.shape == (260, 32)


def test_a_pair_of_encoder_and_decoder_keeps_its_tables_and_packs_a_copy_for_the_head() -> None:
    dense = tiny.model("t5")
    model = load(dense, INT8)
    assert isinstance(model.lm_head, QuantLinear)
    assert torch.equal(model.shared.weight, dense.shared.weight)
    assert model.encoder.embed_tokens.weight is model.shared.weight


def test_biases_stay_parameters_that_loaders_fill() -> None:
    model = on_meta("gpt2")
    before = {name for name, _ in model.named_parameters() if name.endswith("bias")}
    prepare.prepare(model, select.select(model, INT8))
    assert before == {name for name, _ in model.named_parameters() if name.endswith("bias")}


def test_a_placeholder_shows_the_key_and_shape_of_its_weight() -> None:
    model = on_meta("mixtral")
    shapes = {name: each.shape for name, each in model.state_dict().items()}
    prepare.prepare(model, select.select(model, INT8))
    assert {name: each.shape for name, each in model.state_dict().items()} == shapes


def test_what_is_not_filled_is_named() -> None:
    model = on_meta("llama")
    assert prepare.unfilled(model) == []
    names = prepare.prepare(model, select.select(model, INT8))
    assert prepare.unfilled(model) == sorted(names)
    name = "model.layers.1.mlp.up_proj.weight"
    prepare.fill(model, name, torch.randn(64, 32), dtype=torch.float32, memo=Memo())
    assert prepare.unfilled(model) == sorted(names - {name})


def test_a_weight_that_nobody_waits_for_is_left_to_the_caller() -> None:
    model = on_meta("llama")
    prepare.prepare(model, select.select(model, INT8))
    weight = torch.ones(32)
    assert prepare.fill(model, "model.norm.weight", weight, dtype=torch.float32, memo=Memo()) == frozenset()


@pytest.mark.parametrize(
    ("kind", "name", "shape", "wanted"),
    [
        ("llama", "model.layers.0.mlp.up_proj.weight", (32, 64), "[64, 32]"),
        ("gpt2", "transformer.h.0.attn.c_attn.weight", (96, 32), "[32, 96]"),
        ("mixtral", "model.layers.0.mlp.experts.down_proj", (3, 32, 64), "[4, 32, 64]"),
    ],
)
def test_a_wrong_shape_is_refused_with_both(
    kind: str, name: str, shape: tuple[int, ...], wanted: str
) -> None:
    model = on_meta(kind)
    prepare.prepare(model, select.select(model, INT8))
    with pytest.raises(ValueError, match="has the shape") as error:
        prepare.fill(model, name, torch.zeros(shape), dtype=torch.float32, memo=Memo())
    assert all(part in str(error.value) for part in (name, str(list(shape)), wanted))


def test_a_packed_weight_of_conv1d_is_rows_first() -> None:
    model = on_meta("gpt2")
    prepare.prepare(model, select.select(model, INT8))
    name, packed = "transformer.h.0.attn.c_attn.weight", round_to(torch.randn(96, 32), "int8")
    assert prepare.fill(model, name, packed, dtype=torch.float32, memo=Memo()) == {name}
    with pytest.raises(ValueError, match=r"\[32, 96\].*\[96, 32\]"):
        prepare.fill(model, name, round_to(torch.randn(32, 96), "int8"), dtype=torch.float32, memo=Memo())


@pytest.mark.parametrize("kind", ["llama", "mixtral"])
def test_a_weight_that_is_no_number_is_refused_by_name(kind: str) -> None:
    model = on_meta(kind)
    name = min(prepare.prepare(model, select.select(model, INT8)))
    weight = torch.randn(model.get_parameter(name).shape)
    weight.view(-1)[7] = torch.nan
    with pytest.raises(ValueError, match=name):
        prepare.fill(model, name, weight, dtype=torch.float32, memo=Memo())


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mixtral", "falcon"])
def test_modules_for_a_checkpoint_take_dense_weights_as_they_are(kind: str) -> None:
    dense, model = tiny.model(kind), tiny.model(kind)
    names = prepare.prepare(model, select.for_checkpoint(model))
    for name in names:
        prepare.fill(model, name, dense.get_parameter(name), dtype=torch.float32, memo=Memo())
    assert prepare.unfilled(model) == []
    assert difference(logits(model), logits(dense)) < 1e-6


def test_the_weights_of_a_loaded_model_are_freed_one_by_one() -> None:
    model = tiny.model("llama")
    weights = [weakref.ref(each) for name, each in model.named_parameters() if "proj" in name]
    prepare.quantise(model, INT8, dtype=torch.float32, memo=Memo())
    gc.collect()
    assert len(weights) == 14
    assert [each() for each in weights] == [None] * 14


def test_a_quantised_model_answers_what_loaders_and_engines_ask() -> None:
    model = tiny.model("llama").to(torch.bfloat16)
    prepare.quantise(model, Scheme(body="int4"), dtype=torch.bfloat16, memo=Memo())
    wanted = logits(model)
    model.to("cpu").eval()
    assert (model.dtype, model.device) == (torch.bfloat16, torch.device("cpu"))
    assert model.get_input_embeddings().num_embeddings == 260
    assert model.get_output_embeddings().out_features == 260
    assert torch.equal(logits(model), wanted)
    said = model.generate(torch.arange(5)[None], max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert said.shape == (1, 9)


def test_a_scaled_table_keeps_its_factor() -> None:
    dense, packed, selection = twins("gemma", Scheme(body=None, head=None))
    assert list(selection.places) == ["model.embed_tokens"]
    ids = torch.arange(260)
    wanted = dense.model.embed_tokens(ids)
    assert torch.allclose(packed.model.embed_tokens(ids), wanted, rtol=1e-6)
    assert float(wanted.norm()) > 5 * float(dense.model.embed_tokens.weight.norm())
