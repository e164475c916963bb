"""Experts by kernels against the same weights in the model's own code, in every layout that there is."""

import importlib
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from llmctl.quant import experts, prepare, select
from llmctl.quant.kernels import Memo, build
from llmctl.quant.methods import Scheme
from llmctl.quant.rounding import round_to
from tests import tiny
from tests.quant.rounded import difference, experts_of, logits, twins

NUM_EXPERTS, NUM_TOKENS, WIDTH = 4, 9, 32
SIZES: Mapping[str, Any] = {
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), NUM_EXPERTS),
    **dict.fromkeys(("hidden_size", "moe_hidden_size"), WIDTH),
    **dict.fromkeys(("intermediate_size", "moe_intermediate_size"), 64),
    **dict.fromkeys(("hidden_act", "mlp_hidden_act"), "silu"),
    "moe_latent_size": None,
    "post_norm_eps": 1e-6,
    "swiglu_alpha": 1.702,
    "swiglu_limit": 7.0,
}
CLASSES = {
    "mixtral": "MixtralExperts",
    "qwen2_moe": "Qwen2MoeExperts",
    "deepseek_v3": "DeepseekV3Experts",
    # Transposed, interleaved, with bias, and a gate of its own.
    "gpt_oss": "GptOssExperts",
    # Transposed and not interleaved, with bias.
    "openai_privacy_filter": "OpenAIPrivacyFilterExperts",
    # Without a gate.
    "nemotron_h": "NemotronHExperts",
    # With a norm after each expert.
    "muse_spark": "MuseSparkExperts",
}
MODELS: Mapping[str, Mapping[str, Any]] = {
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 8},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8, "sliding_window": 8},
}


def dense_experts(kind: str, dtype: torch.dtype = torch.float32) -> Any:
    """Experts of a model's own class, with random weights."""
    module = importlib.import_module(f"transformers.models.{kind}.modeling_{kind}")
    made = getattr(module, CLASSES[kind])(SimpleNamespace(**SIZES, _experts_implementation="eager"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for parameter in made.parameters():
            nn.init.normal_(parameter, std=0.3)
    return made.to(dtype).requires_grad_(False).eval()


def pack(module: Any, method: str, dtype: torch.dtype) -> Any:
    """The experts with their weights packed, and a dense twin that stands for the same numbers."""
    twin = SimpleNamespace(weights={})
    packed = experts.adopt(module)
    for name, weight in experts.projections(packed).items():
        rows = weight.mT.contiguous() if packed.is_transposed else weight
        rounded = [round_to(each, method) for each in rows]
        numbers = torch.stack([each.dequantize(dtype) for each in rounded])
        twin.weights[name] = numbers.mT.contiguous() if packed.is_transposed else numbers
        kernels = [build(each, dtype=dtype, memo=Memo()) for each in rounded]
        packed.hold(name, kernels, dtype, torch.device("cpu"))
    return packed, twin.weights


def asked(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, the experts chosen for each, and their shares."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(NUM_TOKENS, WIDTH, generator=generator).to(dtype)
    chosen = torch.stack([torch.randperm(NUM_EXPERTS, generator=generator)[:2] for _ in range(NUM_TOKENS)])
    return x, chosen, torch.rand(NUM_TOKENS, 2, generator=generator)


@pytest.mark.parametrize("kind", CLASSES)
def test_packed_experts_say_what_the_models_own_code_says(kind: str) -> None:
    dense = dense_experts(kind)
    packed, weights = pack(dense_experts(kind), "int4", torch.float32)
    for name, weight in weights.items():
        getattr(dense, name).copy_(weight)
    x, chosen, shares = asked()
    found = packed(x, chosen, shares)
    assert found.shape == x.shape
    assert difference(found, dense(x, chosen, shares)) < 1e-6


@pytest.mark.parametrize("method", ["int8", "int4"])
@pytest.mark.parametrize("kind", ["mixtral", "gpt_oss"])
def test_the_answer_is_of_the_type_that_was_asked_in(kind: str, method: str) -> None:
    dense = dense_experts(kind, torch.bfloat16)
    packed, weights = pack(dense_experts(kind, torch.bfloat16), method, torch.bfloat16)
    for name, weight in weights.items():
        getattr(dense, name).copy_(weight)
    x, chosen, shares = asked(torch.bfloat16)
    found = packed(x, chosen, shares)
    assert found.dtype == torch.bfloat16
    assert difference(found, dense(x, chosen, shares.bfloat16())) < 0.03


def test_an_index_that_no_expert_has_counts_for_nothing() -> None:
    packed, _ = pack(dense_experts("mixtral"), "int4", torch.float32)
    x, chosen, shares = asked()
    absent = torch.cat((chosen, torch.full((NUM_TOKENS, 1), NUM_EXPERTS)), 1)
    more = torch.cat((shares, torch.ones(NUM_TOKENS, 1)), 1)
    assert torch.equal(packed(x, absent, more), packed(x, chosen, shares))


def test_a_token_alone_is_told_the_same_as_among_others() -> None:
    packed, _ = pack(dense_experts("mixtral"), "int4", torch.float32)
    x, chosen, shares = asked()
    alone = torch.cat([packed(x[i : i + 1], chosen[i : i + 1], shares[i : i + 1]) for i in range(NUM_TOKENS)])
    assert difference(alone, packed(x, chosen, shares)) < 1e-6


def test_experts_that_came_dense_compute_as_the_model_does() -> None:
    dense, packed = dense_experts("mixtral"), experts.adopt(dense_experts("mixtral"))
    assert torch.equal(packed(*asked()), dense(*asked()))


def test_one_projection_may_be_packed_and_the_other_dense() -> None:
    dense, half = dense_experts("gpt_oss"), dense_experts("gpt_oss")
    packed, weights = pack(dense_experts("gpt_oss"), "int4", torch.float32)
    adopted = experts.adopt(half)
    adopted.hold("down_proj", packed.kernels["down_proj"], torch.float32, torch.device("cpu"))
    dense.down_proj.copy_(weights["down_proj"])
    assert difference(adopted(*asked()), dense(*asked())) < 1e-6


def test_experts_keep_their_class_and_are_of_one_packed_class() -> None:
    first, second = dense_experts("mixtral"), dense_experts("mixtral")
    own = type(first)
    assert isinstance(experts.adopt(first), own)
    assert type(experts.adopt(second)) is type(first)


def test_classes_that_transformers_does_not_describe_are_not_known() -> None:
    assert not experts.are_known(nn.Linear(2, 2))
    assert experts.are_known(dense_experts("mixtral"))


@pytest.mark.parametrize("kind", MODELS)
def test_mixtures_of_experts_say_the_same_with_packed_weights(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = {**tiny.CONFIGS["llama"], **MODELS[kind]}
    monkeypatch.setattr(tiny, "CONFIGS", {kind: shape})
    dense, packed, selection = twins(kind, Scheme(body="int4", head=None))
    assert "model.layers.0.mlp.experts" in selection.places
    assert len(experts_of(packed)) == 2
    assert difference(logits(packed), logits(dense)) < 1e-5


def test_a_packed_weight_of_all_experts_fills_each_of_them() -> None:
    model, whole = tiny.model("mixtral"), tiny.model("mixtral")
    prepare.prepare(model, select.for_checkpoint(model))
    for name, weight in whole.named_parameters():
        given = round_to(weight, "int8") if "experts" in name else weight.detach()
        prepare.fill(model, name, given, dtype=torch.float32, memo=Memo())
    prepare.quantise(
        whole,
        Scheme(body="int8", head=None, embedding=None, skip=("attn",)),
        dtype=torch.float32,
        memo=Memo(),
    )
    assert prepare.unfilled(model) == []
    assert torch.equal(logits(model), logits(whole))
