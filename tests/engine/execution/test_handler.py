"""Every class gives in its tier what its own eager code gives, whatever is mixed with what."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from llmctl.engine.checking.rehearsal import BLOCK_SIZE, LENGTHS, NUM_BLOCKS, Move, Reference, Stage, script
from llmctl.engine.execution import layout, recurrent, storage
from llmctl.engine.execution.drive import UndrivableError
from llmctl.engine.execution.handler import Handler, StepHandler, kv_shapes
from llmctl.engine.execution.layout import Layout
from llmctl.engine.execution.storage import KVShape
from tests import tiny
from tests.engine import classes

CPU = torch.device("cpu")
WITH_GREEDY = (
    *("llama4_text", "gemma2", "gemma3n_text", "gpt_oss", "deepseek_v3", "gpt2", "mixtral"),
    *("qwen3_next", "falcon_h1", "zamba2", "mamba", "jamba", "falcon", "bloom", "minimax"),
)
PROMPT = 5


def eager(kind: str) -> Any:
    """A tiny model that attends by its own code."""
    model = classes.model(kind)
    model.set_attn_implementation("eager")
    return model


def driven(model: Any, kept: Layout) -> StepHandler:
    """The handler of `model` over blocks of its own."""
    counts = [NUM_BLOCKS] * len(kept.groups)
    layers = storage.allocate(kept.groups, kept.shapes, counts, BLOCK_SIZE, torch.float32, CPU)
    return layout.handler(model, kept, layers, len(LENGTHS))


def stage(kind: str, ids: list[Tensor]) -> Stage:
    """A stage in the tier of `kind`."""
    model = classes.model(kind)
    kept = layout.layout(model, classes.tier(kind)[0])
    return Stage(driven(model, kept), kept.groups, ids)


@pytest.mark.parametrize("kind", classes.KINDS)
def test_a_mixed_batch_gives_the_logits_of_the_eager_model(kind: str) -> None:
    letter, in_pieces = classes.tier(kind)
    model = eager(kind)
    reference = Reference.of(model, tiny.VOCABULARY_SIZE)
    kept = layout.layout(model, letter)
    handler = driven(model, kept)
    assert reference.difference(handler, kept.groups, in_pieces=in_pieces) <= 1e-5


@pytest.mark.parametrize("kind", WITH_GREEDY)
def test_a_mixed_batch_gives_the_greedy_tokens_of_generate(kind: str) -> None:
    model, generator = eager(kind), torch.Generator().manual_seed(1)
    ids = []
    for length in LENGTHS:
        prompt = torch.randint(256, (1, PROMPT), generator=generator)
        fixed = {
            "max_new_tokens": length + 1 - PROMPT,
            "do_sample": False,
            "eos_token_id": None,
            "pad_token_id": 0,
        }
        ids.append(model.generate(prompt, attention_mask=torch.ones_like(prompt), **fixed)[0])
    played, wrong = stage(kind, ids), []
    for moves in script(in_pieces=classes.tier(kind)[1]):
        for sequence, position, logits in played.step(moves):
            if position >= PROMPT - 1 and logits.argmax() != ids[sequence][position + 1]:
                wrong.append((sequence, position))
    assert not wrong


@pytest.mark.parametrize("kind", ["llama", "qwen3_moe", "deepseek_v3"])
def test_a_sequence_goes_on_from_the_blocks_of_another_with_the_same_beginning(kind: str) -> None:
    model = eager(kind)
    reference = Reference.of(model, tiny.VOCABULARY_SIZE)
    first = reference.ids[0]
    played = stage(kind, [first, first])
    list(played.step([Move(0, 20)]))
    shared = played._played[0].tables[0][: 12 // BLOCK_SIZE]
    played._played[1].tables[0].extend(shared)
    played._played[1].start = 12
    found = list(played.step([Move(0, 3), Move(1, 9)]))
    assert {sequence for sequence, _, _ in found} == {0, 1}
    for _, position, logits in found:
        torch.testing.assert_close(logits, reference.logits[0][position], atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["llama", "gpt_bigcode", "mamba2", "qwen3_next", "bloom"])
@pytest.mark.parametrize("wanted", [[2], [12, 2, 11], []])
def test_only_the_wanted_rows_come_back_in_the_order_asked(kind: str, wanted: list[int]) -> None:
    generator = torch.Generator().manual_seed(2)
    ids = [torch.randint(256, (20,), generator=generator) for _ in range(3)]
    every, some = stage(kind, ids), stage(kind, ids)
    moves = [Move(0, 8), Move(1, 3), Move(2, 5)]
    for each in (every, some):
        list(each.step([Move(2, 4)]) if kind != "bloom" else [])
    moves = [Move(0, 8), Move(1, 3), Move(2, 5)] if kind != "bloom" else [Move(0, 8), Move(1, 5)]
    rows = torch.stack([logits for _, _, logits in every.step(moves)])
    spans = some._spans(moves)
    step = replace(some._made(moves, spans), wanted=torch.tensor(wanted, dtype=torch.long))
    found = some._handler.forward(step)
    assert len(found) == len(wanted)
    if wanted:
        torch.testing.assert_close(found, rows[wanted], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["llama4_text", "gemma3_text", "qwen3_next"])
def test_a_released_model_is_as_it_was(kind: str) -> None:
    model = eager(kind)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        before = model(input_ids=ids).logits
        handler = driven(model, layout.layout(model, classes.tier(kind)[0]))
        assert model.config._attn_implementation == "llmctl"
        handler.release()
        assert model.config._attn_implementation == "eager"
        assert torch.equal(model(input_ids=ids).logits, before)


def test_the_last_layers_output_is_that_of_the_base_model() -> None:
    model = eager("llama")
    ids = torch.arange(30)
    with torch.no_grad():
        expected = model.model(input_ids=ids[None]).last_hidden_state[0]
    kept = layout.layout(model, "A")
    handler = driven(model, kept)
    assert isinstance(handler, Handler)
    played = Stage(handler, kept.groups, [ids, ids])
    moves = [Move(0, 11), Move(1, 30)]
    found = handler.hidden(played._made(moves, played._spans(moves)))
    torch.testing.assert_close(found, torch.cat([expected[:11], expected]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "shape"), [("deepseek_v3", (4, 16, 8)), ("gpt_bigcode", (1, 8, 8)), ("qwen2", (2, 8, 8))]
)
def test_the_shapes_of_keys_and_values_are_those_that_reach_attention(
    kind: str, shape: tuple[int, int, int]
) -> None:
    num_heads, key_size, value_size = shape
    expected = KVShape(num_heads=num_heads, key_size=key_size, value_size=value_size)
    assert kv_shapes(classes.model(kind)) == {0: expected, 1: expected}


def test_layers_that_share_keep_nothing_of_their_own() -> None:
    kept = layout.layout(classes.model("gemma3n_text"), "A")
    assert sorted(kept.shapes) == [0, 1]
    assert kept.sources == {2: 0, 3: 1}


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("bloom", "takes no position_ids"),
        ("gpt_neo", "does not attend through"),
        ("diffllama", "more than once"),
    ],
)
def test_a_class_that_cannot_be_packed_says_why(kind: str, told: str) -> None:
    model = classes.model(kind)
    with pytest.raises(UndrivableError, match=told):
        kv_shapes(model)
    assert model.config._attn_implementation != "llmctl"


def test_a_copied_state_goes_on_like_its_source() -> None:
    ids = torch.randint(256, (12,), generator=torch.Generator().manual_seed(3))
    played = stage("mamba2", [ids, ids])
    list(played.step([Move(0, 8)]))
    played._handler.copy_state(0, 1)
    played._played[1].start = 8
    first, second = [logits for _, _, logits in played.step([Move(0, 1), Move(1, 1)])]
    torch.testing.assert_close(first, second)


def test_the_bytes_of_a_state_are_those_that_the_cache_holds() -> None:
    model = classes.model("mamba2")
    with torch.no_grad():
        cache = model(input_ids=torch.zeros(1, 1, dtype=torch.long), use_cache=True).cache_params
    states = [*cache.layers[0].conv_states.values(), *cache.layers[0].recurrent_states.values()]
    per_layer = sum(state.numel() * state.element_size() for state in states)
    assert recurrent.kept(model).state_bytes == len(cache.layers) * per_layer
