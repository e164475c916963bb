"""The local backend over a tiny Llama: what callers of the seam rely on."""

import asyncio
import dataclasses
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import torch

from llmctl.core.errors import ContextOverflowError, DoesNotFitError, LlmctlError, UsageError
from llmctl.core.types import (
    ChatRequest,
    CompletionRequest,
    Delta,
    Finish,
    GenerationRequest,
    Message,
    SamplingParams,
)
from llmctl.engine import local
from llmctl.engine.execution.drive import Recorder
from llmctl.engine.generate import encoder_decoder, jacobi, single
from llmctl.engine.generate.job import Job
from llmctl.engine.local import LocalBackend
from llmctl.loading.loader import LoadedModel
from llmctl.loading.planning import hardware
from llmctl.loading.planning.plan import LoadPlan
from llmctl.prompts.template import read
from tests import tiny

CONTEXT = 64
GREEDY = SamplingParams(temperature=0.0, max_new_tokens=16)
HELLO = (Message(role="user", content="hello"),)


def loaded(model: Any = None, **changes: Any) -> LoadedModel:
    plan = LoadPlan(device=hardware.cpu(), dtype="float32", num_bytes=0, reasons=())
    made = LoadedModel(
        name="tiny",
        model=model or tiny.model(),
        tokenizer=tiny.tokenizer(),
        plan=plan,
        context_length=CONTEXT,
        vocabulary_size=tiny.VOCABULARY_SIZE,
        end_ids=frozenset({tiny.EOS}),
        default_sampling=SamplingParams(temperature=0.7),
    )
    return dataclasses.replace(made, **changes)


def recorded(model: Any) -> list[list[int]]:
    """The ids of each step of `model` from now on."""
    calls: list[list[int]] = []

    def note(_: Any, __: Any, options: Any) -> None:
        # Not of the token that is run through it to see what it keeps.
        if not isinstance(options.get("llmctl_step"), Recorder):
            calls.append(options["input_ids"][0].tolist())

    model.register_forward_pre_hook(note, with_kwargs=True)
    return calls


def run(work: Callable[[LocalBackend], Coroutine[Any, Any, Any]], backend: LocalBackend) -> Any:
    async def main() -> Any:
        try:
            return await work(backend)
        finally:
            await backend.close()

    return asyncio.run(main())


def answer(request: GenerationRequest, backend: LocalBackend) -> list[Delta]:
    async def work(backend: LocalBackend) -> list[Delta]:
        return await collected(backend.generate(request))

    deltas: list[Delta] = run(work, backend)
    return deltas


async def collected(stream: AsyncGenerator[Delta, None]) -> list[Delta]:
    return [delta async for delta in stream]


def tokens(deltas: list[Delta]) -> list[int]:
    return [each for delta in deltas for each in delta.token_ids]


def finish(deltas: list[Delta]) -> Finish:
    last = deltas[-1].finish
    assert last is not None
    return last


def raw(prompt: str | tuple[int, ...], **sampling: Any) -> CompletionRequest:
    return CompletionRequest(prompt=prompt, sampling=dataclasses.replace(GREEDY, **sampling))


def test_an_answer_streams_as_plain_generation_makes_it() -> None:
    model = loaded()
    prompt_ids = tuple(model.tokenizer.encode("Once upon"))
    job = Job(
        prompt_ids=prompt_ids,
        sampling=GREEDY,
        end_ids=model.end_ids,
        max_new_tokens=16,
        is_continuation=True,
    )
    want = list(single.generate(model.model, model.tokenizer, job))
    deltas = answer(raw("Once upon"), LocalBackend(model))
    assert [(each.text, each.token_ids) for each in deltas] == [(each.text, each.token_ids) for each in want]
    assert finish(deltas).usage == finish(want).usage


def test_the_first_delta_comes_before_the_last_is_made() -> None:
    model = loaded()
    calls = recorded(model.model)
    is_read = threading.Event()

    def wait(_: Any, __: Any) -> None:
        if len(calls) > 1:
            assert is_read.wait(5)

    async def work(backend: LocalBackend) -> None:
        stream = backend.generate(raw("hi"))
        await anext(stream)
        is_read.set()
        assert len(await collected(stream)) == 15

    model.model.register_forward_pre_hook(wait)
    run(work, LocalBackend(model))


def test_two_streams_that_are_open_together_answer_as_if_alone() -> None:
    requests = [raw("The first"), raw("Quite another", temperature=1.5, seed=3)]
    model = loaded()
    alone = [tokens(answer(request, LocalBackend(model))) for request in requests]

    async def work(backend: LocalBackend) -> list[list[Delta]]:
        return await asyncio.gather(*(collected(backend.generate(request)) for request in requests))

    together = [tokens(deltas) for deltas in run(work, LocalBackend(model))]
    assert together == alone


def test_two_streams_take_turns() -> None:
    model = loaded()

    async def work(backend: LocalBackend) -> None:
        first, second = (backend.generate(raw(text)) for text in ("one", "two"))
        for _ in range(3):
            assert (await anext(first)).finish is None
            assert (await anext(second)).finish is None
        await first.aclose()
        await second.aclose()

    run(work, LocalBackend(model))


def test_cancelling_the_reader_stops_the_work() -> None:
    model = loaded()
    calls = recorded(model.model)

    async def work(backend: LocalBackend) -> None:
        has_begun = asyncio.Event()

        async def read() -> None:
            async for _ in backend.generate(raw("hello", max_new_tokens=50)):
                has_begun.set()

        task = asyncio.create_task(read())
        await has_begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # The step in progress may end; no other may begin.
        await collected(backend.generate(raw("x", max_new_tokens=1)))
        num_calls = len(calls)
        assert num_calls < 50
        deltas = await collected(backend.generate(raw("hello")))
        assert len(calls) == num_calls + len(deltas)

    run(work, LocalBackend(model))


def test_closing_a_stream_early_stops_the_work() -> None:
    model = loaded()
    calls = recorded(model.model)

    async def work(backend: LocalBackend) -> None:
        stream = backend.generate(raw("hello", max_new_tokens=100))
        await anext(stream)
        await stream.aclose()
        assert len(await collected(backend.generate(raw("hello")))) == 16
        assert len(calls) < 100

    run(work, LocalBackend(model))


def test_closing_the_backend_under_an_open_stream_and_twice_is_no_error() -> None:
    async def work(backend: LocalBackend) -> None:
        stream = backend.generate(raw("hello"))
        await anext(stream)
        await backend.close()
        await backend.close()
        await stream.aclose()

    run(work, LocalBackend(loaded()))


def test_a_prompt_that_fills_the_context_is_refused() -> None:
    backend = LocalBackend(loaded())
    with pytest.raises(ContextOverflowError, match=f"has {CONTEXT} tokens.*holds {CONTEXT}") as caught:
        answer(raw((1,) * CONTEXT), backend)
    assert caught.value.hint


@pytest.mark.parametrize("asked", [None, 1000, 2])
def test_an_answer_ends_where_the_context_does(asked: int | None) -> None:
    model = loaded(end_ids=frozenset())
    deltas = answer(raw((1,) * (CONTEXT - 2), max_new_tokens=asked), LocalBackend(model))
    assert len(deltas) == 2
    assert finish(deltas).reason == "length"
    assert finish(deltas).usage.prompt_tokens == CONTEXT - 2


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(UsageError, match="empty"):
        answer(raw(()), LocalBackend(loaded()))


@pytest.mark.parametrize("bad", [-1, tiny.VOCABULARY_SIZE])
def test_an_id_outside_the_vocabulary_is_refused_by_name(bad: int) -> None:
    with pytest.raises(UsageError, match=f"{bad} is outside.*0 to {tiny.VOCABULARY_SIZE - 1}"):
        answer(raw((1, bad)), LocalBackend(loaded()))


def test_a_model_without_a_template_says_how_to_go_on() -> None:
    backend = LocalBackend(loaded(tokenizer=tiny.tokenizer(chat_template=None)))
    with pytest.raises(UsageError, match="tiny has no chat template") as caught:
        answer(ChatRequest(messages=HELLO, sampling=GREEDY), backend)
    assert "--template" in str(caught.value.hint)


def test_a_template_file_wins_over_the_tokenizers_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text("Q: {{ messages[0].content }}\nA:", encoding="utf-8")
    model = loaded()
    calls = recorded(model.model)
    answer(ChatRequest(messages=HELLO, sampling=GREEDY), LocalBackend(model, template=read(str(file))))
    assert model.tokenizer.decode(calls[0]) == "Q: hello\nA:"


def test_a_raw_prompt_gets_its_bos_token_once() -> None:
    model = loaded()
    calls = recorded(model.model)
    answer(raw("hi"), LocalBackend(model))
    assert calls[0] == [tiny.BOS, *model.tokenizer.encode("hi", add_special_tokens=False)]


def test_token_ids_are_taken_as_they_are() -> None:
    model = loaded()
    calls = recorded(model.model)
    answer(raw((5, 6)), LocalBackend(model))
    assert calls[0] == [5, 6]


@pytest.mark.parametrize("bos", ["", "{{ bos_token }}"])
def test_a_chat_has_the_bos_tokens_of_its_template_and_no_more(bos: str) -> None:
    model = loaded(tokenizer=tiny.tokenizer(bos + tiny.CHATML), context_length=256)
    calls = recorded(model.model)
    deltas = answer(ChatRequest(messages=HELLO, sampling=GREEDY), LocalBackend(model))
    assert calls[0].count(tiny.BOS) == bool(bos)
    start = calls[0].index(tiny.IM_START)
    assert model.tokenizer.decode(calls[0][start:]) == (
        "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    )
    assert finish(deltas).usage.prompt_tokens == len(calls[0])


def test_a_seed_makes_an_answer_repeatable() -> None:
    model = loaded()
    first, second, other = (
        tokens(answer(raw("hi", temperature=2.0, seed=seed), LocalBackend(model))) for seed in (1, 1, 2)
    )
    assert first == second
    assert first != other


def test_the_requests_own_end_tokens_count_beside_the_models() -> None:
    third = tokens(answer(raw("hi"), LocalBackend(loaded())))[2]
    deltas = answer(raw("hi", stop_token_ids=(third,)), LocalBackend(loaded()))
    assert tokens(deltas)[-1] == third
    assert finish(deltas).reason == "stop"
    assert finish(deltas).usage.completion_tokens <= 3


def test_the_backend_tells_what_it_runs() -> None:
    info = LocalBackend(loaded()).info
    assert (info.name, info.context_length, info.default_sampling.temperature) == ("tiny", CONTEXT, 0.7)


class Hungry(tiny.Scripted):
    """Fails at the second step."""

    def __init__(self, failure: Callable[[], object]) -> None:
        super().__init__([1, 2, 3])
        self._failure = failure

    def forward(self, input_ids: torch.Tensor, past_key_values: int = 0, **options: bool) -> Any:
        if past_key_values == 1:
            self._failure()
        return super().forward(input_ids, past_key_values, **options)

    __call__ = forward


def no_cuda_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1 GiB free.")


def no_host_memory() -> None:
    torch.empty(1 << 50)


@pytest.mark.parametrize("failure", [no_cuda_memory, no_host_memory])
def test_running_out_of_memory_is_told_and_the_backend_lives_on(failure: Callable[[], None]) -> None:
    backend = LocalBackend(loaded(Hungry(failure)))

    async def work(backend: LocalBackend) -> None:
        with pytest.raises(DoesNotFitError, match=r"memory ran out while generating: .*memory") as caught:
            await collected(backend.generate(raw("hi")))
        assert "enforce fail" not in caught.value.message
        assert len(await collected(backend.generate(raw("hi", max_new_tokens=1)))) == 1

    run(work, backend)


def test_other_failures_of_torch_are_not_called_lack_of_memory() -> None:
    def fail() -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(LlmctlError, match="the model failed: RuntimeError: shapes do not match"):
        answer(raw("hi"), LocalBackend(loaded(Hungry(fail))))


CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)


def templated(tmp_path: Path, text: str) -> Any:
    (tmp_path / "t.jinja").write_text(text)
    return read(str(tmp_path / "t.jinja"))


def test_a_continued_answer_goes_on_inside_the_last_message(tmp_path: Path) -> None:
    model = loaded()
    calls = recorded(model.model)
    messages = (*HELLO, Message(role="assistant", content="Once upon"))
    backend = LocalBackend(model, template=templated(tmp_path, CHAT))
    deltas = answer(ChatRequest(messages=messages, sampling=GREEDY, continues_last=True), backend)
    assert model.tokenizer.decode(calls[0]) == "<user>hello<assistant>Once upon"
    assert finish(deltas).usage.prompt_tokens == len(calls[0])


@pytest.mark.parametrize(
    ("opening", "said", "reasoning", "text"),
    [
        ("", "<think>why</think>\n\nyes", "why", "yes"),
        ("<think>", "why</think>yes", "why", "yes"),
        ("<think>\n", "why</think>yes", "why", "yes"),
        ("", "yes <think>no</think>", "", "yes <think>no</think>"),
        ("", "<think>cut", "cut", ""),
    ],
)
def test_reasoning_comes_apart_from_the_answer(
    tmp_path: Path, opening: str, said: str, reasoning: str, text: str
) -> None:
    tokenizer = tiny.tokenizer()
    ids = tokenizer.encode(said, add_special_tokens=False)
    model = loaded(model=tiny.Scripted(ids), context_length=4096)
    backend = LocalBackend(model, template=templated(tmp_path, "x" + opening))
    request = ChatRequest(messages=HELLO, sampling=dataclasses.replace(GREEDY, max_new_tokens=len(ids)))
    deltas = answer(request, backend)
    assert "".join(delta.reasoning for delta in deltas) == reasoning
    assert "".join(delta.text for delta in deltas) == text


def test_a_context_limit_below_the_models_holds_and_can_be_changed() -> None:
    backend = LocalBackend(loaded(), context_length=20)
    assert (backend.info.context_length, backend.longest_context) == (20, CONTEXT)
    with pytest.raises(ContextOverflowError) as caught:
        answer(raw("x" * 20), backend)
    assert (caught.value.prompt_tokens, caught.value.context_length) == (
        len(tiny.tokenizer().encode("x" * 20)),
        20,
    )
    backend = LocalBackend(loaded(), context_length=20)
    backend.reconfigure(template=None, context_length=None)
    assert finish(answer(raw("x" * 20), backend)).usage.prompt_tokens >= 20


def test_a_context_that_cannot_be_had_leaves_the_backend_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = LocalBackend(loaded())
    before, opening, num_calls = backend.info.context_length, local.open_engine, 0

    def fail_once(*args: Any) -> Any:
        nonlocal num_calls
        num_calls += 1
        if num_calls == 1:
            raise DoesNotFitError("no memory")
        return opening(*args)

    monkeypatch.setattr(local, "open_engine", fail_once)
    with pytest.raises(DoesNotFitError):
        backend.reconfigure(template=None, context_length=50)
    assert backend.info.context_length == before
    assert len(tokens(answer(raw("a", max_new_tokens=3), backend))) == 3
    with pytest.raises(UsageError, match="at least 1"):
        backend.reconfigure(template=None, context_length=0)


def test_a_context_limit_above_the_models_is_refused() -> None:
    with pytest.raises(UsageError, match=rf"context {CONTEXT + 1}: tiny takes at most {CONTEXT} tokens"):
        LocalBackend(loaded(), context_length=CONTEXT + 1)


def loaded_pair(model: Any = None, **changes: Any) -> LoadedModel:
    """A T5 that reads `CONTEXT` tokens and writes 24."""
    given = {"tokenizer": tiny.tokenizer(chat_template=None, form="$A </s>"), "answer_length": 24, **changes}
    return loaded(model or tiny.model("t5"), generates="encoder-decoder", end_ids=frozenset(), **given)


def read_by(model: Any) -> list[list[int]]:
    """The ids that the encoder of `model` reads from now on."""
    calls: list[list[int]] = []
    model.encoder.register_forward_pre_hook(
        lambda _, __, options: calls.append(options["input_ids"][0].tolist()), with_kwargs=True
    )
    return calls


def test_a_pair_answers_a_completion_as_its_own_way_to_generate_does() -> None:
    model = loaded_pair()
    prompt_ids = tuple(model.tokenizer.encode("translate: hello"))
    job = Job(prompt_ids=prompt_ids, sampling=GREEDY, end_ids=frozenset(), max_new_tokens=16)
    want = list(encoder_decoder.generate(model.model, model.tokenizer, job))
    calls = read_by(model.model)
    deltas = answer(raw("translate: hello"), LocalBackend(model))
    assert [(each.text, each.token_ids) for each in deltas] == [(each.text, each.token_ids) for each in want]
    assert calls == [[*model.tokenizer.encode("translate: hello", add_special_tokens=False), tiny.EOS]]


def test_a_chat_with_a_pair_needs_a_template_and_says_so() -> None:
    with pytest.raises(UsageError, match="tiny has no chat template"):
        answer(ChatRequest(messages=HELLO, sampling=GREEDY), LocalBackend(loaded_pair()))


@pytest.mark.parametrize("end", ["", "</s>"])
def test_a_rendered_chat_ends_for_the_encoder_as_any_text_does(tmp_path: Path, end: str) -> None:
    model = loaded_pair()
    calls = read_by(model.model)
    template = templated(tmp_path, "Q: {{ messages[0].content }}" + end)
    answer(ChatRequest(messages=HELLO, sampling=GREEDY), LocalBackend(model, template=template))
    assert calls == [[*model.tokenizer.encode("Q: hello", add_special_tokens=False), tiny.EOS]]


def test_a_pair_does_not_go_on_inside_an_answer(tmp_path: Path) -> None:
    messages = (*HELLO, Message(role="assistant", content="Once upon"))
    backend = LocalBackend(loaded_pair(), template=templated(tmp_path, CHAT))
    with pytest.raises(UsageError, match="tiny cannot go on inside an answer"):
        answer(ChatRequest(messages=messages, sampling=GREEDY, continues_last=True), backend)


@pytest.mark.parametrize(
    ("num_prompt_ids", "asked", "limit", "want"),
    [
        (CONTEXT, None, None, 24),
        (2, 1000, None, 24),
        (2, 5, None, 5),
        (16, None, 16, 16),
    ],
)
def test_prompt_and_answer_of_a_pair_have_limits_of_their_own(
    num_prompt_ids: int, asked: int | None, limit: int | None, want: int
) -> None:
    backend = LocalBackend(loaded_pair(), context_length=limit)
    deltas = answer(raw((1,) * num_prompt_ids, max_new_tokens=asked), backend)
    assert len(deltas) == want
    assert finish(deltas).reason == "length"


def test_a_prompt_longer_than_the_encoders_limit_is_refused() -> None:
    with pytest.raises(ContextOverflowError, match=f"has {CONTEXT + 1} tokens.*holds {CONTEXT}$"):
        answer(raw((1,) * (CONTEXT + 1)), LocalBackend(loaded_pair()))


def test_a_decoder_that_goes_on_from_the_prompt_shares_its_limit() -> None:
    model = loaded_pair(answer_length=None)
    model.model.config.model_type = "codet5p"
    assert len(answer(raw((1,) * (CONTEXT - 2), max_new_tokens=None), LocalBackend(model))) == 2
    with pytest.raises(ContextOverflowError, match="with the answer"):
        answer(raw((1,) * CONTEXT), LocalBackend(model))


def test_jacobi_decoding_answers_as_plain_generation_in_the_blocks_asked_for() -> None:
    model = loaded(generates="jacobi", block_length=4)
    calls = recorded(model.model)
    deltas = answer(raw("Once upon"), LocalBackend(model))
    assert {len(each) for each in calls[1:-3]} == {4}
    assert tokens(deltas) == tokens(answer(raw("Once upon"), LocalBackend(loaded())))
    assert (
        jacobi.obstacle(
            model.model, Job(prompt_ids=(1,), sampling=GREEDY, end_ids=frozenset(), max_new_tokens=1)
        )
        is None
    )


def test_a_model_that_generates_in_an_unknown_way_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="no way to generate is called 'dreams'"):
        LocalBackend(loaded(generates="dreams"))


@pytest.mark.parametrize(
    ("sampling", "ids", "reason"),
    [
        ({}, [tiny.EOS], "stop"),
        ({"min_tokens": 3}, [5, 5, 5, tiny.EOS], "stop"),
        ({"ignore_eos": True}, [tiny.EOS] * 6, "length"),
        ({"ignore_eos": True, "stop_token_ids": (tiny.EOS,)}, [tiny.EOS], "stop"),
        ({"logit_bias": ((5, 100.0),)}, [5] * 6, "length"),
    ],
)
def test_when_an_answer_may_end_is_for_the_request_to_say(
    sampling: dict[str, Any], ids: list[int], reason: str
) -> None:
    bias = sampling.get("logit_bias", ((tiny.EOS, 100.0),))
    asked = raw("a", max_new_tokens=6, allowed_token_ids=(5, tiny.EOS), **{"logit_bias": bias, **sampling})
    backend = LocalBackend(loaded())
    deltas = answer(asked, backend)
    assert (tokens(deltas), finish(deltas).reason) == (ids, reason)


def test_bad_words_are_not_in_the_answer() -> None:
    tokenizer = tiny.tokenizer()
    a, b, c = (tokenizer.encode(each, add_special_tokens=False)[0] for each in "abc")
    likely = {"logit_bias": ((a, 100.0), (b, 50.0), (c, 20.0)), "max_new_tokens": 4}
    assert tokens(answer(raw("x", **likely), LocalBackend(loaded()))) == [a] * 4
    assert tokens(answer(raw("x", **likely, bad_words=("a",)), LocalBackend(loaded()))) == [b] * 4
    assert tokens(answer(raw("x", **likely, bad_words=("aa", "ab")), LocalBackend(loaded()))) == [a, c, a, c]


def test_a_bias_for_a_token_that_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^logit_bias: token id 5000 is outside the model's vocabulary"):
        answer(raw("x", logit_bias=((5000, 1.0),)), LocalBackend(loaded()))


@pytest.mark.parametrize("make", [loaded, loaded_pair], ids=["causal", "pair"])
def test_a_closed_backend_says_so(make: Callable[[], LoadedModel]) -> None:
    async def work(backend: LocalBackend) -> None:
        stream = backend.generate(raw("a", max_new_tokens=60))
        await anext(stream)
        await backend.close()
        with pytest.raises(UsageError, match="the model was closed"):
            async for _ in stream:
                pass
        with pytest.raises(UsageError, match="the model was closed"):
            await anext(backend.generate(raw("a")))

    run(work, LocalBackend(make()))
