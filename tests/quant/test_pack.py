"""Whole models packed in place, against what they were."""

import copy
import gc
import logging
import pickle
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from llmctl.core.errors import UsageError
from llmctl.quant import prepare
from llmctl.quant.activations import Memo
from llmctl.quant.dense import DenseKernel
from llmctl.quant.joined import PartKernel
from llmctl.quant.methods import Scheme
from llmctl.quant.modules import QuantLinear
from llmctl.quant.pack import pack
from tests import tiny
from tests.quant.made import distance

MUCH = 1 << 30
KINDS = ("llama", "qwen2", "gpt2", "mixtral", "phi3", "gemma2", "deepseek_v3", "opt", "stablelm", "lfm2")
IDS = torch.arange(24).view(2, 12) * 7 % 250
BF16_SHARE = 2
"""Packed logits may be off by what others add, but not by more than this times what bfloat16 itself costs."""


def logits(model: Any, ids: Tensor = IDS) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=ids).logits
    return found


def linears(model: nn.Module) -> dict[str, QuantLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, QuantLinear)}


@pytest.mark.parametrize("kind", KINDS)
def test_in_float32_a_packed_model_gives_the_logits_of_the_plain_one(kind: str) -> None:
    model = tiny.model(kind)
    wanted = logits(model)
    pack(model, spare_bytes=MUCH)
    assert linears(model)
    assert distance(logits(model), wanted.double()) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_in_bfloat16_it_is_as_far_from_float32_as_the_plain_one(kind: str) -> None:
    model = tiny.model(kind).bfloat16()
    exact, plain = logits(copy.deepcopy(model).float()).double(), logits(model)
    pack(model, spare_bytes=MUCH)
    assert distance(logits(model), exact) < BF16_SHARE * distance(plain, exact)


@pytest.mark.parametrize("method", ["int8", "int4", "nf4"])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_quantised_model_gives_the_same_with_its_biases_joined(kind: str, method: str) -> None:
    model = tiny.model(kind, hidden_size=64).bfloat16()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    prepare.quantise(model, Scheme(body=method), dtype=torch.bfloat16, memo=Memo())
    wanted = logits(model)
    assert pack(model, spare_bytes=MUCH).num_layers == 0
    # A bias added in the kernel saves a rounding; one in a wrong place would be as large as the logits.
    assert distance(logits(model), wanted.double()) < 5e-2
    part = linears(model)["model.layers.0.self_attn.k_proj"].kernel
    assert isinstance(part, PartKernel)
    assert (part.joined.bias is not None) == (kind == "qwen2")


def test_siblings_are_joined_and_the_others_packed_alone() -> None:
    model = tiny.model("llama")
    assert pack(model, spare_bytes=MUCH).num_layers == 15
    kernels = {name.removeprefix("model.layers."): layer.kernel for name, layer in linears(model).items()}
    for name in ("q_proj", "k_proj", "v_proj"):
        assert isinstance(kernels[f"1.self_attn.{name}"], PartKernel)
    for name in ("0.self_attn.o_proj", "1.mlp.down_proj", "lm_head"):
        assert isinstance(kernels[name], DenseKernel)
    gate, up = kernels["0.mlp.gate_proj"], kernels["0.mlp.up_proj"]
    assert isinstance(gate, PartKernel)
    assert isinstance(up, PartKernel)
    assert gate.joined is up.joined


def test_a_layer_called_by_itself_and_out_of_order_gives_its_own_result() -> None:
    model, plain = tiny.model("qwen2"), tiny.model("qwen2")
    pack(model, spare_bytes=MUCH)
    ours, theirs = model.model.layers[0].self_attn, plain.model.layers[0].self_attn
    x, y = torch.randn(2, 5, 32), torch.randn(2, 5, 32)
    with torch.no_grad():
        for name, given in (("v_proj", x), ("q_proj", y), ("k_proj", x), ("v_proj", x), ("q_proj", x[:, :0])):
            assert torch.allclose(getattr(ours, name)(given), getattr(theirs, name)(given), atol=1e-5)


def test_every_weight_is_given_up_when_its_layer_is_packed() -> None:
    model = tiny.model("llama", tie_word_embeddings=True)
    kept = ("embed_tokens", "norm")
    weights = [
        weakref.ref(each) for name, each in model.named_parameters() if not any(part in name for part in kept)
    ]
    pack(model, spare_bytes=MUCH)
    gc.collect()
    assert len(weights) == 14
    assert [each() for each in weights] == [None] * 14


def test_no_more_than_one_group_is_there_twice() -> None:
    model = tiny.model("llama", num_hidden_layers=6)
    alive: list[int] = []
    """Weights that are still there, whenever a kernel is made of some."""
    originals = [weakref.ref(each) for name, each in model.named_parameters() if "proj" in name]

    hold = QuantLinear.hold

    def noting(layer: QuantLinear, *given: Any) -> None:
        alive.append(sum(each() is not None for each in originals))
        hold(layer, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(QuantLinear, "hold", noting)
        pack(model, spare_bytes=MUCH, memo=Memo())
    assert alive[-2] <= 1
    assert alive == sorted(alive, reverse=True)


@pytest.mark.parametrize("has_room", [True, False])
def test_a_head_that_is_the_table_gets_a_copy_where_there_is_room(has_room: bool) -> None:
    model = tiny.model("llama", tie_word_embeddings=True)
    wanted, table = logits(model), model.model.embed_tokens.weight
    num_bytes = table.nbytes
    done = pack(model, spare_bytes=num_bytes - (not has_room))
    assert isinstance(model.lm_head, QuantLinear) == has_room
    assert ("copy of the table" in done.head) == has_room
    assert ("too much" in done.head) != has_room
    assert model.model.embed_tokens.weight is table
    assert distance(logits(model), wanted.double()) < 1e-5


def test_what_others_read_and_types_without_a_kernel_stay_as_they_are() -> None:
    model = tiny.model("llama").double()
    wanted = logits(model)
    assert pack(model, spare_bytes=MUCH).num_layers == 0
    assert torch.equal(logits(model), wanted)


def test_packing_twice_is_packing_once() -> None:
    model = tiny.model("qwen2")
    pack(model, spare_bytes=MUCH)
    wanted = logits(model)
    assert pack(model, spare_bytes=MUCH).num_layers == 0
    assert torch.equal(logits(model), wanted)


def test_a_packed_model_cannot_be_saved_and_says_so() -> None:
    model = tiny.model("llama")
    pack(model, spare_bytes=MUCH)
    with pytest.raises(UsageError, match="cannot be saved"):
        model.state_dict()
    with pytest.raises(UsageError, match="cannot be pickled"):
        pickle.dumps(model.model.layers[0].self_attn.q_proj)


def test_a_copy_shares_the_weights_and_has_biases_of_its_own() -> None:
    model = tiny.model("qwen2")
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    pack(model, spare_bytes=MUCH)
    wanted, made = logits(model), copy.deepcopy(model)
    ours, theirs = (each.model.layers[0].self_attn.q_proj for each in (model, made))
    assert ours.kernel is theirs.kernel
    assert distance(logits(made), wanted.double()) < 1e-6
    theirs.bias.data.mul_(-5)
    assert distance(logits(made), wanted.double()) > 1e-2
    assert torch.equal(logits(model), wanted)


def test_a_packed_model_tells_its_parameters_and_memory() -> None:
    model = tiny.model("llama", tie_word_embeddings=True)
    count, num_bytes = model.num_parameters(), model.get_memory_footprint()
    table = model.model.embed_tokens.weight.nbytes
    pack(model, spare_bytes=MUCH)
    assert model.num_parameters() == count
    assert model.get_memory_footprint() == num_bytes + table


def test_a_packed_model_answers_what_loaders_and_engines_ask(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny.model("llama").bfloat16()
    pack(model, spare_bytes=MUCH)
    wanted = logits(model)
    with caplog.at_level(logging.WARNING):
        model.to("cpu").eval()
    assert not caplog.records
    assert (model.dtype, model.device) == (torch.bfloat16, torch.device("cpu"))
    assert model.get_output_embeddings().out_features == 260
    assert torch.equal(logits(model), wanted)
    said = model.generate(torch.arange(5)[None], max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert said.shape == (1, 9)
