"""Plain generation against transformers' own `generate` on tiny models, and its stream on a scripted one."""

import functools
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.core.types import Delta, Finish, SamplingParams
from llmctl.engine.generate import single
from llmctl.engine.generate.job import Job
from llmctl.engine.generate.stepper import Stepper
from tests import tiny

GREEDY = SamplingParams(temperature=0.0)
TOKENIZER = tiny.tokenizer()
PROMPT = tuple(TOKENIZER.encode("Hello, wörld! How are you?"))
MODEL = functools.cache(tiny.model)


def job(
    sampling: SamplingParams = GREEDY,
    *,
    prompt_ids: Sequence[int] = PROMPT,
    end_ids: Sequence[int] = (),
    max_new_tokens: int = 24,
) -> Job:
    return Job(
        prompt_ids=tuple(prompt_ids),
        sampling=sampling,
        end_ids=frozenset(end_ids),
        max_new_tokens=max_new_tokens,
    )


def said(model: Any, given_job: Job) -> list[int]:
    return [each for delta in single.generate(model, TOKENIZER, given_job) for each in delta.token_ids]


def said_by_transformers(model: Any, **options: Any) -> list[int]:
    prompt = torch.tensor([PROMPT])
    model.generation_config.eos_token_id = None
    ids = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        max_new_tokens=24,
        pad_token_id=0,
        **options,
    )
    new: list[int] = ids[0, len(PROMPT) :].tolist()
    return new


HYBRIDS: dict[str, dict[str, Any]] = {
    "bamba": {
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
        "mamba_n_groups": 1,
        "mamba_chunk_size": 8,
        "attn_layer_indices": [1],
    },
    "minimax": {
        "num_local_experts": 4,
        "layer_types": ["linear_attention", "full_attention"],
        "block_size": 8,
    },
}


@pytest.mark.parametrize("kind", HYBRIDS)
def test_a_hybrid_that_begins_with_a_recurrent_layer_is_told_where_its_tokens_stand(kind: str) -> None:
    shape = {**tiny.CONFIGS["llama"], **HYBRIDS[kind], "vocab_size": tiny.VOCABULARY_SIZE}
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **shape)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    ids, step = torch.arange(5, 25), Stepper(model)
    step(ids[:16])
    for end in range(17, 21):
        with torch.no_grad():
            want = model(ids[None, :end], use_cache=False).logits[0, -1]
        torch.testing.assert_close(step(ids[end - 1 : end]), want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", tiny.CONFIGS)
def test_greedy_tokens_are_those_of_transformers(kind: str) -> None:
    model = MODEL(kind)
    assert said(model, job()) == said_by_transformers(model)


# Falcon of 40b and 180b, of RW (1b and 7b), and of 7b with a head of its own for every query.
@pytest.mark.parametrize(
    "changes",
    [
        {"new_decoder_architecture": True, "num_kv_heads": 2, "tie_word_embeddings": False},
        {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True},
        {"multi_query": False},
    ],
)
def test_all_shapes_of_falcon_run_plainly(changes: dict[str, Any]) -> None:
    model = tiny.model("falcon", **changes)
    assert type(model).__module__ == "transformers.models.falcon.modeling_falcon"
    assert said(model, job()) == said_by_transformers(model)


class FromZero(transformers.LlamaForCausalLM):  # type: ignore[misc]
    """Counts positions from 0 in every step unless it is told them, as the code of ChatGLM 2 and 3 does."""

    def forward(self, input_ids: torch.Tensor, position_ids: Any = None, **options: Any) -> Any:
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1])[None]
        return super().forward(input_ids=input_ids, position_ids=position_ids, **options)


def test_code_of_a_models_repository_is_told_where_its_tokens_stand() -> None:
    model = tiny.model()
    own = FromZero(model.config).eval()
    own.load_state_dict(model.state_dict())
    assert said(own, job()) == said(model, job())


class WithThirdState(torch.nn.Module):
    """Looks back one token beside its attention, and keeps that as a third part of a tuple: Yuan 2's way.

    What it says depends on all sums: those of all tokens, and of the last two.
    """

    device = torch.device("cpu")

    def forward(
        self,
        input_ids: torch.Tensor,
        past_key_values: tuple[tuple[torch.Tensor, torch.Tensor, torch.Tensor], ...] | None = None,
        use_cache: bool = True,
        return_dict: bool = True,
    ) -> transformers.utils.ModelOutput:
        """The logits and the three parts."""
        assert use_cache
        assert return_dict
        ids = input_ids[0]
        keys, values, before = past_key_values[0] if past_key_values else (ids[:0], ids[:0], ids[:0])
        keys, values = torch.cat([keys, ids]), torch.cat([values, ids * 7])
        last_two = torch.cat([before, ids])[-2:]
        chosen = (values.sum() + 31 * last_two.sum()) % tiny.VOCABULARY_SIZE
        logits = torch.zeros(1, len(ids), tiny.VOCABULARY_SIZE)
        logits[0, -1, chosen] = 1.0
        return transformers.utils.ModelOutput(logits=logits, past_key_values=((keys, values, last_two[-1:]),))


def test_a_state_of_any_make_is_handed_back_as_it_came() -> None:
    tokens, want = said(WithThirdState(), job()), list(PROMPT)
    for _ in range(24):
        want.append((7 * sum(want) + 31 * sum(want[-2:])) % tiny.VOCABULARY_SIZE)
    assert tokens == want[len(PROMPT) :]


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mamba", "falcon_mamba"])
def test_the_repetition_penalty_is_that_of_transformers(kind: str) -> None:
    model = MODEL(kind)
    tokens = said(model, job(SamplingParams(temperature=0.0, repetition_penalty=1.3)))
    assert tokens == said_by_transformers(model, repetition_penalty=1.3)
    assert tokens != said(model, job())


# Where the state between two steps is kept: a cache, two other names, and in the model itself.
@pytest.mark.parametrize("kind", ["gemma2", "mamba", "rwkv", "recurrent_gemma"])
def test_answers_that_are_made_in_turns_do_not_mix(kind: str) -> None:
    model = MODEL(kind)
    jobs = [job(max_new_tokens=12), job(prompt_ids=TOKENIZER.encode("Something else"), max_new_tokens=12)]
    alone = [said(model, each) for each in jobs]
    streams = [single.generate(model, TOKENIZER, each) for each in jobs]
    in_turns = [[delta.token_ids[0] for delta in deltas] for deltas in zip(*streams, strict=True)]
    assert [list(tokens) for tokens in zip(*in_turns, strict=True)] == alone
    assert alone[0] != alone[1]


def test_a_prompt_of_one_token_is_enough() -> None:
    assert len(said(MODEL("llama"), job(prompt_ids=[tiny.BOS], max_new_tokens=3))) == 3


def test_only_the_last_row_of_a_prompt_goes_through_the_head() -> None:
    model, rows = tiny.model(), []
    model.lm_head.register_forward_hook(lambda _, __, output: rows.append(output.shape[1]))
    said(model, job(max_new_tokens=3))
    assert rows == [1, 1, 1]


def test_logprobs_are_those_of_a_full_forward() -> None:
    model = MODEL("qwen2")
    # Sampling must not show: log-probabilities are the raw model's.
    sampling = SamplingParams(temperature=3.0, repetition_penalty=2.0, seed=1, logprobs=4)
    deltas = list(single.generate(model, TOKENIZER, job(sampling, max_new_tokens=10)))
    tokens = [delta.token_ids[0] for delta in deltas]
    with torch.inference_mode():
        full = model(torch.tensor([[*PROMPT, *tokens]])).logits[0].log_softmax(-1)
    for place, delta in enumerate(deltas, start=len(PROMPT) - 1):
        (logprob,) = delta.logprobs
        assert logprob.chosen.token_id == delta.token_ids[0]
        assert logprob.chosen.logprob == pytest.approx(float(full[place, delta.token_ids[0]]), abs=1e-4)
        assert logprob.chosen.token == TOKENIZER.decode(delta.token_ids)
        values, ids = full[place].topk(4)
        assert [each.token_id for each in logprob.top] == ids.tolist()
        assert [each.logprob for each in logprob.top] == pytest.approx(values.tolist(), abs=1e-4)


@pytest.mark.parametrize(("asked", "count"), [(None, 0), (0, 1)])
def test_logprobs_come_only_when_asked_for(asked: int | None, count: int) -> None:
    sampling = SamplingParams(temperature=0.0, logprobs=asked)
    deltas = list(single.generate(MODEL("llama"), TOKENIZER, job(sampling, max_new_tokens=2)))
    assert [len(delta.logprobs) for delta in deltas] == [count, count]
    assert not any(logprob.top for delta in deltas for logprob in delta.logprobs)


def test_a_sampled_answer_is_the_same_for_the_same_seed() -> None:
    sampling = SamplingParams(temperature=2.0, seed=5)
    first, second = (said(MODEL("llama"), job(sampling)) for _ in range(2))
    assert first == second
    assert first != said(MODEL("llama"), job(SamplingParams(temperature=2.0, seed=6)))


def test_a_bfloat16_model_generates_and_samples() -> None:
    model = tiny.model().bfloat16()
    sampling = SamplingParams(temperature=1.0, top_p=0.9, seed=1, logprobs=1)
    assert len(said(model, job(sampling))) == 24


def play(
    ids: Sequence[int],
    *,
    stop: Sequence[str] = (),
    end_ids: Sequence[int] = (tiny.EOS,),
    max_new_tokens: int = 1000,
    tokenizer: Any = TOKENIZER,
) -> list[Delta]:
    """The deltas of a model that says `ids`."""
    model = tiny.Scripted(ids, vocabulary_size=len(tokenizer))
    sampling = SamplingParams(temperature=0.0, stop=tuple(stop))
    made = job(sampling, prompt_ids=[1, 2], end_ids=end_ids, max_new_tokens=max_new_tokens)
    return list(single.generate(model, tokenizer, made))


def bytes_of(text: str) -> list[int]:
    ids: list[int] = TOKENIZER.encode(text, add_special_tokens=False)
    return ids


def text_of(deltas: Sequence[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


def finish_of(deltas: Sequence[Delta]) -> Finish:
    """The finish, which must be in the last delta alone."""
    assert [delta.finish is not None for delta in deltas] == [False] * (len(deltas) - 1) + [True]
    finish = deltas[-1].finish
    assert finish is not None
    return finish


def test_an_end_token_ends_the_answer_and_counts() -> None:
    deltas = play([*bytes_of("hi"), tiny.EOS])
    finish = finish_of(deltas)
    assert text_of(deltas) == "hi"
    assert finish.reason == "stop"
    assert finish.usage.prompt_tokens == 2
    assert finish.usage.completion_tokens == 3
    assert [delta.token_ids for delta in deltas] == [(each,) for each in (*bytes_of("hi"), tiny.EOS)]


def test_an_end_token_that_is_ordinary_text_is_not_shown() -> None:
    (full_stop,) = bytes_of(".")
    deltas = play(bytes_of("hi."), end_ids=[full_stop])
    assert text_of(deltas) == "hi"
    assert finish_of(deltas).reason == "stop"
    assert finish_of(deltas).usage.completion_tokens == 3


def test_the_answer_ends_at_its_length() -> None:
    deltas = play(bytes_of("hello"), max_new_tokens=3)
    assert text_of(deltas) == "hel"
    assert finish_of(deltas).reason == "length"
    assert finish_of(deltas).usage.completion_tokens == 3


def test_an_end_token_in_the_last_place_is_a_stop() -> None:
    assert finish_of(play([*bytes_of("hi"), tiny.EOS], max_new_tokens=3)).reason == "stop"


def test_a_stop_string_over_several_tokens_ends_the_answer() -> None:
    deltas = play(bytes_of("one two END three"), stop=["END"])
    assert text_of(deltas) == "one two "
    assert finish_of(deltas).reason == "stop"
    assert finish_of(deltas).usage.completion_tokens == len("one two END")


def test_a_stop_string_inside_a_token_ends_the_answer(shared: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(shared / "assets/tokenizers/gpt2")
    ids = tokenizer.encode("Hello international world")
    assert tokenizer.decode(ids[1]) == " international"
    deltas = play(ids, stop=["nation"], tokenizer=tokenizer)
    assert text_of(deltas) == "Hello inter"
    assert finish_of(deltas).usage.completion_tokens == 2


def test_an_answer_cut_inside_a_character_ends_with_a_replacement_character() -> None:
    deltas = play(bytes_of("a🙂"), max_new_tokens=3)
    assert [delta.text for delta in deltas] == ["a", "", "\ufffd"]


def test_the_beginning_of_a_stop_string_is_shown_when_the_answer_ends_there() -> None:
    assert text_of(play([*bytes_of("so EN"), tiny.EOS], stop=["END"])) == "so EN"
    assert text_of(play(bytes_of("so EN"), stop=["END"], max_new_tokens=5)) == "so EN"


def test_a_stop_string_in_the_last_held_characters_still_counts(shared: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(shared / "assets/stories260K")
    ids = tokenizer.encode("a\n", add_special_tokens=False)
    assert tokenizer.convert_ids_to_tokens(ids[-1]) == "<0x0A>"
    deltas = play(ids, stop=["\n"], tokenizer=tokenizer, max_new_tokens=len(ids))
    assert text_of(deltas) == "a"
    assert finish_of(deltas).reason == "stop"


def test_special_tokens_are_never_text() -> None:
    assert text_of(play([tiny.IM_START, *bytes_of("hi"), tiny.IM_END, tiny.EOS])) == "hi"


@settings(max_examples=120, deadline=None)
@given(
    text=st.text(alphabet="ab🙂", max_size=12),
    stops=st.lists(st.text(alphabet="ab🙂", min_size=1, max_size=4), max_size=3),
)
def test_no_part_of_a_stop_string_leaks(text: str, stops: list[str]) -> None:
    deltas = play([*bytes_of(text), tiny.EOS], stop=stops)
    ends = [end for end in range(len(text) + 1) if text[:end].endswith(tuple(stops)) and stops]
    if not ends:
        assert text_of(deltas) == text
        return
    start = min(ends[0] - len(stop) for stop in stops if text[: ends[0]].endswith(stop))
    assert text_of(deltas) == text[:start]
    assert finish_of(deltas).usage.completion_tokens == len(text[: ends[0]].encode())


def test_text_is_streamed_and_not_held_without_need() -> None:
    assert [delta.text for delta in play([*bytes_of("héy"), tiny.EOS])] == ["h", "", "é", "y", ""]


def test_times_begin_with_the_request_and_end_with_the_answer() -> None:
    timings = finish_of(list(single.generate(MODEL("llama"), TOKENIZER, job()))).timings
    assert 0 < timings.first_token_s < timings.total_s < 60


def test_closing_the_stream_ends_the_work_and_frees_the_cache() -> None:
    model = tiny.model()
    caches: list[weakref.ref[Any]] = []
    model.register_forward_hook(lambda _, __, output: caches.append(weakref.ref(output.past_key_values)))
    deltas = single.generate(model, TOKENIZER, job())
    next(deltas)
    assert caches[0]() is not None
    deltas.close()
    assert [cache() for cache in caches] == [None]
    assert list(deltas) == []


def test_no_step_is_made_before_its_token_is_asked_for() -> None:
    model = tiny.Scripted(bytes_of("hello"))
    deltas = single.generate(model, TOKENIZER, job(max_new_tokens=5))
    for count in range(1, 6):
        next(deltas)
        assert model.num_calls == count
    assert list(deltas) == []
    assert model.num_calls == 5
