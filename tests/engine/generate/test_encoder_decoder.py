"""Encoder-decoder generation against transformers' own `generate`, on tiny models of the real classes."""

import dataclasses
import functools
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from llmctl.core.errors import BadFileError
from llmctl.core.types import Delta, Finish, SamplingParams
from llmctl.engine.generate import encoder_decoder
from llmctl.engine.generate.job import Job
from llmctl.engine.generate.stepper import CACHE_NAMES
from tests import tiny

GREEDY = SamplingParams(temperature=0.0)
TOKENIZER = tiny.tokenizer(form="$A </s>")
PROMPT = tuple(TOKENIZER.encode("translate: Hello, wörld!"))
MODEL = functools.cache(tiny.model)
# FSMT of transformers does not go on from what it wrote when it runs without its cache.
NEEDS_CACHE = ("fsmt",)


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


def played(model: Any, given_job: Job) -> list[Delta]:
    return list(encoder_decoder.generate(model, TOKENIZER, given_job))


def said(model: Any, given_job: Job) -> list[int]:
    return [each for delta in played(model, given_job) for each in delta.token_ids]


def finish_of(deltas: Sequence[Delta]) -> Finish:
    """The finish, which must be in the last delta alone."""
    assert [delta.finish is not None for delta in deltas] == [False] * (len(deltas) - 1) + [True]
    finish = deltas[-1].finish
    assert finish is not None
    return finish


def said_by_transformers(model: Any, **options: Any) -> list[int]:
    prompt = torch.tensor([PROMPT])
    model.generation_config.eos_token_id = None
    given = {"do_sample": False, "num_beams": 1, "max_new_tokens": 24, "pad_token_id": 0, **options}
    new: list[int] = model.generate(prompt, attention_mask=torch.ones_like(prompt), **given)[0, 1:].tolist()
    return new


@pytest.mark.parametrize("kind", tiny.PAIRS)
def test_greedy_tokens_are_those_of_transformers(kind: str) -> None:
    model = MODEL(kind)
    assert said(model, job()) == said_by_transformers(model)


@pytest.mark.parametrize("kind", [kind for kind in tiny.PAIRS if kind not in NEEDS_CACHE])
def test_stepping_with_a_cache_says_what_whole_sequences_say(kind: str) -> None:
    model = MODEL(kind)
    assert said(model, job()) == said_by_transformers(model, use_cache=False)


# What CodeT5+ of 220m and 770m is made as, T5 1.1 and Flan-T5, and sides of unequal depth.
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("t5", {"feed_forward_proj": "relu", "tie_word_embeddings": True}),
        ("t5", {"feed_forward_proj": "gated-gelu"}),
        ("t5", {"num_decoder_layers": 3}),
        ("t5", {"num_layers": 3}),
        ("bart", {"decoder_layers": 3}),
        ("bart", {"encoder_layers": 3}),
        ("prophetnet", {"num_decoder_layers": 3}),
    ],
)
def test_other_shapes_are_right_too(kind: str, changes: dict[str, Any]) -> None:
    model = tiny.model(kind, **changes)
    # transformers' own cache is too small for some decoders that are deeper than their encoder.
    assert said(model, job()) == said_by_transformers(model, use_cache=False)


@pytest.mark.parametrize("kind", ["t5", "bart", "umt5"])
def test_answers_to_other_prompts_and_in_turns_do_not_mix(kind: str) -> None:
    model = MODEL(kind)
    jobs = [job(max_new_tokens=12), job(prompt_ids=TOKENIZER.encode("Quite another"), max_new_tokens=12)]
    alone = [said(model, each) for each in jobs]
    streams = [encoder_decoder.generate(model, TOKENIZER, each) for each in jobs]
    together: list[list[int]] = [[], []]
    for pair in zip(*streams, strict=True):
        for tokens, delta in zip(together, pair, strict=True):
            tokens.extend(delta.token_ids)
    assert together == alone
    assert alone[0] != alone[1]


def test_the_encoder_runs_once_and_a_step_costs_one_token() -> None:
    model = tiny.model("bart")
    sizes: dict[str, list[int]] = {"encoder": [], "decoder": []}
    for side, rows in sizes.items():
        part = model.get_submodule(f"model.{side}")
        part.register_forward_pre_hook(
            lambda _, __, options, rows=rows: rows.append(options["input_ids"].shape[1]), with_kwargs=True
        )
    played(model, job(max_new_tokens=4))
    assert sizes == {"encoder": [len(PROMPT)], "decoder": [1, 1, 1, 1]}


def test_a_decoder_without_a_cache_is_slow_but_right(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model("t5")
    want, whole = said(model, job()), model.forward
    lengths: list[int] = []

    def forgetful(**options: Any) -> Any:
        lengths.append(options["decoder_input_ids"].shape[1])
        kept = {key: value for key, value in options.items() if key not in CACHE_NAMES}
        return whole(**{**kept, "use_cache": False})

    monkeypatch.setattr(model, "forward", forgetful)
    assert said(model, job()) == want
    assert lengths == list(range(1, 25))


@pytest.mark.parametrize("start", [7, tiny.EOS])
def test_the_decoder_starts_from_the_models_start_token(start: int) -> None:
    model = tiny.model("t5", decoder_start_token_id=start)
    assert said(model, job()) == said_by_transformers(model)
    assert said(model, job()) != said(MODEL("t5"), job())


def test_bos_stands_in_for_a_start_token_and_nothing_for_both() -> None:
    model = tiny.model("t5", decoder_start_token_id=None)
    assert model.generation_config.decoder_start_token_id is None
    assert said(model, job()) == said(MODEL("t5"), job())
    model.generation_config.bos_token_id = None
    with pytest.raises(BadFileError, match=r"T5ForConditionalGeneration\) does not say") as caught:
        played(model, job())
    assert "decoder_start_token_id" in str(caught.value.hint)


@pytest.mark.parametrize("kind", ["bart", "mbart", "m2m_100"])
def test_forced_first_and_last_tokens_are_those_of_transformers(kind: str) -> None:
    model = tiny.model(kind)
    model.generation_config.forced_bos_token_id = 65
    model.generation_config.forced_eos_token_id = tiny.EOS
    tokens = said(model, job())
    assert tokens == said_by_transformers(model)
    assert (tokens[0], tokens[-1]) == (65, tiny.EOS)
    assert tiny.EOS not in said(MODEL(kind), job())


def test_an_end_that_only_the_length_forced_is_no_stop() -> None:
    model = tiny.model("bart")
    model.generation_config.forced_eos_token_id = tiny.EOS
    deltas = played(model, job(end_ids=[tiny.EOS], max_new_tokens=6))
    assert deltas[-1].token_ids == (tiny.EOS,)
    assert finish_of(deltas).reason == "length"


def test_tokens_that_must_not_come_do_not() -> None:
    model = tiny.model("pegasus")
    banned = list(dict.fromkeys(said(model, job())))
    assert len(banned) > 4
    model.generation_config.bad_words_ids = [[each] for each in banned[:2]]
    model.generation_config.suppress_tokens = banned[2:4]
    tokens = said(model, job())
    assert not set(tokens) & set(banned[:4])
    assert tokens == said_by_transformers(model)


def test_the_repetition_penalty_looks_at_the_answer_and_not_at_the_prompt() -> None:
    model = MODEL("blenderbot")
    penalty = SamplingParams(temperature=0.0, repetition_penalty=1.5)
    tokens = said(model, job(penalty))
    assert tokens == said_by_transformers(model, repetition_penalty=1.5)
    assert tokens != said(model, job())


@pytest.mark.parametrize("penalty", [{"presence_penalty": 2.0}, {"frequency_penalty": 2.0}])
def test_other_penalties_spread_the_answer(penalty: dict[str, Any]) -> None:
    model = MODEL("led")
    assert len(set(said(model, job()))) < 24
    spread = said(model, job(SamplingParams(temperature=0.0, **penalty)))
    assert len(set(spread)) > len(set(said(model, job())))


def test_a_sampled_answer_is_the_same_for_the_same_seed() -> None:
    model = MODEL("pegasus")
    sampling = SamplingParams(temperature=3.0, top_p=0.95, seed=5)
    first, second = (said(model, job(sampling)) for _ in range(2))
    assert first == second
    assert first != said(model, job(dataclasses.replace(sampling, seed=6)))


def test_logprobs_are_those_of_a_full_forward() -> None:
    model = MODEL("bart")
    deltas = played(model, job(SamplingParams(temperature=3.0, seed=1, logprobs=4), max_new_tokens=10))
    tokens = [delta.token_ids[0] for delta in deltas]
    with torch.inference_mode():
        full = model(
            input_ids=torch.tensor([PROMPT]), decoder_input_ids=torch.tensor([[tiny.BOS, *tokens]])
        ).logits[0]
    full = full.log_softmax(-1)
    for place, delta in enumerate(deltas):
        (logprob,) = delta.logprobs
        assert logprob.chosen.token_id == tokens[place]
        assert logprob.chosen.logprob == pytest.approx(float(full[place, tokens[place]]), abs=1e-4)
        assert [each.token_id for each in logprob.top] == full[place].topk(4).indices.tolist()


def test_the_usage_counts_what_was_read_and_what_was_written() -> None:
    finish = finish_of(played(MODEL("t5"), job(max_new_tokens=5)))
    assert (finish.usage.prompt_tokens, finish.usage.completion_tokens) == (len(PROMPT), 5)
    assert finish.reason == "length"
    assert 0 < finish.timings.first_token_s < finish.timings.total_s


def test_an_end_token_ends_the_answer() -> None:
    model = MODEL("pegasus")
    third = said(model, job())[2]
    deltas = played(model, job(end_ids=[third]))
    assert deltas[-1].token_ids == (third,)
    assert finish_of(deltas).reason == "stop"
    assert len(deltas) <= 3


def test_a_stop_string_ends_the_answer_and_is_never_shown() -> None:
    model = MODEL("mbart")
    model.generation_config.suppress_tokens = list(range(128, tiny.VOCABULARY_SIZE))
    text = "".join(delta.text for delta in played(model, job()))
    assert len(text) == 24
    stop = text[9:12]
    deltas = played(model, job(SamplingParams(temperature=0.0, stop=(stop,))))
    assert "".join(delta.text for delta in deltas) == text[: text.index(stop)]
    assert finish_of(deltas).reason == "stop"


def test_the_answer_does_not_go_on_from_the_prompts_text(shared: Any) -> None:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(shared / "assets/stories260K")
    model = tiny.model("t5", vocab_size=len(tokenizer))
    # A word with the space before it, which is shown only inside a text.
    (word,) = tokenizer.encode("a", add_special_tokens=False)
    model.generation_config.forced_bos_token_id = word
    made = job(prompt_ids=tokenizer.encode("Once upon"), max_new_tokens=1)
    made = dataclasses.replace(made, is_continuation=True)
    assert [delta.text for delta in encoder_decoder.generate(model, tokenizer, made)] == ["a"]


# CodeT5+ of 2b and above runs on code of its own, whose decoder goes on from the prompt.
@pytest.mark.parametrize("prompt_ids", [PROMPT, (tiny.BOS, *PROMPT)])
def test_a_decoder_that_is_given_the_prompt_goes_on_from_it(prompt_ids: tuple[int, ...]) -> None:
    model = tiny.model("pegasus")
    model.generation_config.forced_bos_token_id = 65
    model.config.model_type = "codet5p"
    prompt = torch.tensor([prompt_ids])
    model.generation_config.eos_token_id = None
    whole = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        decoder_input_ids=prompt,
        do_sample=False,
        max_new_tokens=24,
        pad_token_id=0,
    )[0].tolist()
    tokens = said(model, job(prompt_ids=prompt_ids))
    assert whole == [tiny.BOS, *PROMPT, *tokens]
    assert tokens != said(MODEL("pegasus"), job(prompt_ids=prompt_ids))


def test_closing_the_stream_ends_the_work_and_frees_all_that_was_kept() -> None:
    model = tiny.model("t5")
    kept: list[weakref.ref[Any]] = []
    model.register_forward_hook(lambda _, __, output: kept.append(weakref.ref(output.past_key_values)))
    model.encoder.register_forward_hook(
        lambda _, __, output: kept.append(weakref.ref(output.last_hidden_state))
    )
    deltas = encoder_decoder.generate(model, TOKENIZER, job())
    assert kept == []
    next(deltas)
    assert [each() is not None for each in kept] == [True, True]
    deltas.close()
    assert [each() for each in kept] == [None, None]
    assert list(deltas) == []


def test_a_bfloat16_model_generates_and_samples() -> None:
    model = tiny.model("t5").bfloat16()
    assert len(said(model, job(SamplingParams(temperature=1.0, top_p=0.9, seed=1, logprobs=1)))) == 24
