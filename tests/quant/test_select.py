"""Which modules are packed, which stay dense, and the reasons that are given."""

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from llmctl.quant import select
from llmctl.quant.methods import METHODS, Scheme
from llmctl.quant.select import Place
from tests import tiny

INT8 = Scheme(body="int8")


def meta(kind: str, **changes: Any) -> Any:
    """A tiny model without weights."""
    auto = transformers.AutoModelForSeq2SeqLM if kind in tiny.PAIRS else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        return auto.from_config(tiny.config(kind, **changes))


@pytest.mark.parametrize("kind", [*tiny.CONFIGS, *tiny.PAIRS])
def test_every_module_with_a_matrix_is_packed_or_named(kind: str) -> None:
    model = meta(kind)
    chosen = select.select(model, INT8)
    matrices = {path for path, module in model.named_modules() if path and select.matrices(module)}
    assert chosen.places.keys() | chosen.dense.keys() == matrices
    assert not chosen.places.keys() & chosen.dense.keys()
    assert all(chosen.dense.values())
    assert chosen.table
    assert chosen.head


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5", "mixtral", "cohere"])
def test_a_model_with_weights_is_judged_as_one_without(kind: str) -> None:
    assert select.select(tiny.model(kind), INT8) == select.select(meta(kind), INT8)


@pytest.mark.parametrize(
    ("kind", "path", "place"),
    [
        ("llama", "model.layers.0.mlp.up_proj", "linear"),
        ("llama", "model.embed_tokens", "embedding"),
        ("llama", "lm_head", "head"),
        ("gpt2", "transformer.h.0.attn.c_attn", "conv1d"),
        ("mixtral", "model.layers.1.mlp.experts", "experts"),
        ("gemma", "model.embed_tokens", "embedding"),
        ("falcon", "transformer.h.0.self_attention.query_key_value", "linear"),
        ("bloom", "transformer.h.0.self_attention.dense", "linear"),
        ("mamba", "backbone.layers.0.mixer.in_proj", "linear"),
        ("t5", "decoder.block.0.layer.2.DenseReluDense.wo", "linear"),
        ("t5gemma", "lm_head.out_proj", "head"),
        ("deepseek_v3", "model.layers.0.self_attn.kv_b_proj", "linear"),
    ],
)
def test_what_a_module_is(kind: str, path: str, place: str) -> None:
    assert select.select(meta(kind), INT8).places[path] == Place(place, "int8")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "path", "reason"),
    [
        ("mixtral", "model.layers.0.mlp.gate", "it chooses the experts"),
        ("qwen2_moe", "model.layers.0.mlp.shared_expert_gate", "it chooses the experts"),
        ("switch_transformers", "encoder.block.1.layer.1.mlp.router.classifier", "it chooses the experts"),
        ("gpt2", "transformer.wpe", "not the model's table of tokens"),
        (
            "opt",
            "model.decoder.embed_positions",
            "OPTLearnedPositionalEmbedding has a computation of its own",
        ),
        ("mamba", "backbone.layers.0.mixer.dt_proj", "MambaMixer reads its weight directly"),
        ("mamba", "backbone.layers.0.mixer", "MambaMixer has a computation of its own"),
        ("rwkv", "rwkv.blocks.0.attention.output", "RwkvModel reads its weight directly"),
        ("t5", "shared", "it shares its weight with"),
        ("bart", "model.shared", "encoder and decoder look up in it"),
        ("marian", "model.encoder.embed_tokens", "encoder and decoder look up in it"),
        (
            "t5gemma2",
            "model.decoder.embed_tokens",
            "T5Gemma2TextScaledWordEmbedding has a computation of its own",
        ),
    ],
)
def test_why_a_module_stays_dense(kind: str, path: str, reason: str) -> None:
    assert reason in select.select(meta(kind), INT8).dense[path]


@pytest.mark.parametrize("method", METHODS)
def test_a_width_that_no_group_divides_stays_dense_and_is_said(method: str) -> None:
    chosen = select.select(meta("llama", intermediate_size=72), Scheme(body=method))
    path, sizes = "model.layers.0.mlp.down_proj", METHODS[method].group_sizes
    if not sizes:
        assert path in chosen.places
        return
    told = " or ".join(map(str, sizes))
    assert chosen.dense[path] == f"no group of {method} ({told}) divides its width of 72"


@pytest.mark.parametrize(
    ("kind", "changes", "path"),
    [
        ("gpt2", {"n_inner": 40}, "transformer.h.0.mlp.c_proj"),
        ("mixtral", {"intermediate_size": 40}, "model.layers.0.mlp.experts"),
    ],
)
def test_the_width_of_transposed_weights_and_experts_counts_too(
    kind: str, changes: dict[str, int], path: str
) -> None:
    assert "divides its width of 40" in select.select(meta(kind, **changes), Scheme(body="int4")).dense[path]


def test_each_kind_has_the_method_of_the_scheme() -> None:
    places = select.select(meta("llama"), Scheme(body="int4")).places
    assert places["model.layers.0.self_attn.q_proj"].method == "int4"
    assert places["lm_head"].method == places["model.embed_tokens"].method == "int8"


def test_what_the_scheme_leaves_stays_dense() -> None:
    chosen = select.select(meta("llama"), Scheme(body=None, head=None, embedding=None))
    assert chosen.places == {}
    assert set(chosen.dense.values()) == {"it is to stay as it is"}


def test_what_is_to_be_skipped_stays_dense() -> None:
    chosen = select.select(meta("llama"), Scheme(body="int8", skip=(r"layers\.0\.", "^lm_head$")))
    assert {path for path in chosen.places if "layers.0" in path} == set()
    assert chosen.dense["lm_head"] == "it is to be skipped"
    assert "model.layers.1.mlp.up_proj" in chosen.places


@pytest.mark.parametrize(
    ("kind", "table", "head"),
    [
        ("gpt2", "transformer.wte", "lm_head"),
        ("mamba", "backbone.embeddings", "lm_head"),
        ("falcon", "transformer.word_embeddings", "lm_head"),
        ("opt", "model.decoder.embed_tokens", "lm_head"),
        ("recurrent_gemma", "model.embed_tokens", "lm_head"),
    ],
)
def test_a_tie_is_found_whatever_the_table_is_called(kind: str, table: str, head: str) -> None:
    chosen = select.select(meta(kind), INT8)
    assert chosen.tied
    assert (chosen.table, chosen.head, chosen.shared) == (table, head, (f"{table}.weight",))
    assert {table, head} <= chosen.places.keys()


def test_models_whose_head_is_its_own_are_not_tied() -> None:
    chosen = select.select(meta("llama"), INT8)
    assert not chosen.tied
    assert chosen.shared == ()


def test_a_table_stays_dense_with_a_head_that_is_the_same_weight_and_does() -> None:
    chosen = select.select(meta("gpt2"), Scheme(body="int8", head=None))
    assert "shares its weight with lm_head, which stays dense" in chosen.dense["transformer.wte"]


def test_a_tie_that_only_the_parameters_show_is_found() -> None:
    model = tiny.model("llama")
    model.lm_head.weight = model.model.embed_tokens.weight
    assert select.select(model, INT8).tied


def test_layers_that_share_a_weight_stay_dense() -> None:
    model = tiny.model("llama")
    first, second = (layer.mlp.up_proj for layer in model.model.layers)
    first.weight = second.weight
    chosen = select.select(model, INT8)
    assert "shares its weight with model.layers.1" in chosen.dense["model.layers.0.mlp.up_proj"]
    assert "model.layers.1.mlp.up_proj" in chosen.dense


def test_a_model_without_a_head_has_none() -> None:
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(tiny.config("llama"))
    chosen = select.select(model, INT8)
    assert chosen.head == ""
    assert chosen.places["embed_tokens"] == Place("embedding", "int8")


def test_a_model_that_does_not_tell_its_table_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = meta("llama")

    def refuse() -> None:
        raise NotImplementedError

    monkeypatch.setattr(model, "get_input_embeddings", refuse)
    assert select.select(model, INT8).dense["model.embed_tokens"] == "it is not the model's table of tokens"


class Doubled(nn.Linear):
    """Is no linear layer."""

    def forward(self, x: Tensor) -> Tensor:
        """Twice what a linear layer says."""
        return 2 * super().forward(x)


class Renamed(nn.Linear):
    """Is a linear layer."""


class Shifted(nn.Embedding):
    """Does more than look up."""

    def forward(self, ids: Tensor) -> Tensor:
        """The rows after those asked for."""
        return super().forward(ids + 1)


@pytest.mark.parametrize(("kind", "is_packed"), [(Doubled, False), (Renamed, True)])
def test_subclasses_are_packed_if_they_compute_as_their_parent(
    kind: type[nn.Linear], is_packed: bool
) -> None:
    model = meta("llama")
    model.model.layers[0].mlp.up_proj = kind(32, 64, bias=False)
    chosen = select.select(model, INT8)
    assert ("model.layers.0.mlp.up_proj" in chosen.places) is is_packed
    assert ("model.layers.0.mlp.up_proj" in chosen.dense) is not is_packed


@pytest.mark.parametrize("table", [Shifted(260, 32), nn.Embedding(260, 32, max_norm=1.0)])
def test_tables_that_do_more_than_look_up_stay_dense(table: nn.Embedding) -> None:
    model = meta("llama")
    model.set_input_embeddings(table)
    assert "has a computation of its own" in select.select(model, INT8).dense["model.embed_tokens"]


def test_a_checkpoint_decides_by_the_names_of_what_is_quantised() -> None:
    names = {"model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.gate_proj.weight"}
    chosen = select.for_checkpoint(meta("llama"), names)
    assert chosen.places == {name.removesuffix(".weight"): Place("linear", None) for name in names}
    assert chosen.dense["lm_head"] == "the checkpoint has it dense"


def test_without_names_all_that_could_be_quantised_waits() -> None:
    assert (
        select.for_checkpoint(meta("mixtral")).places.keys()
        == select.select(meta("mixtral"), INT8).places.keys()
    )


@pytest.mark.parametrize(("names", "is_packed"), [(None, False), ({"lm_head.weight"}, True)])
def test_a_shared_weight_is_left_to_transformers_unless_it_is_named(
    names: set[str] | None, is_packed: bool
) -> None:
    chosen = select.for_checkpoint(meta("gpt2"), names)
    assert ("lm_head" in chosen.places) is is_packed
    assert "transformer.wte" not in chosen.places
