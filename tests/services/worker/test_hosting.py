"""What is made of loaded models: what they can, their tokens, their memory, and how many may wait."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from llmctl.core.errors import BusyError, ContextOverflowError, UsageError
from llmctl.core.progress import SilentProgress
from llmctl.core.types import CompletionRequest, Delta, SamplingParams
from llmctl.engine.opening import EngineOptions
from llmctl.loading import devices
from llmctl.loading.loader import LoadedModel, LoadRequest, load
from llmctl.loading.planning.plan import PlanRequest
from llmctl.services.worker.hosted import CHAT, COMPLETIONS, EMBEDDINGS, SCORE, Hosted
from llmctl.services.worker.hosting import Pooled, Writer, host
from tests import tiny
from tests.engine.pooling import made
from tests.services.worker.serving import HELLO, Served, until

ENDLESS = SamplingParams(ignore_eos=True, temperature=0)


def loaded(path: Path) -> LoadedModel:
    plan = PlanRequest(device="cpu", dtype="float32")
    return load(LoadRequest(model=str(path), plan=plan), SilentProgress())


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return loaded(tiny.folder(tmp_path_factory.mktemp("models") / "llama"))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.folder(tmp_path_factory.mktemp("models") / "bert", made.model("bert"))


def run(
    models: list[Writer | Pooled],
    work: Callable[[list[Hosted]], Coroutine[Any, Any, Any]],
    options: EngineOptions | None = None,
) -> Any:
    """What `work` gives over the hosted models, which are closed behind it."""

    async def main() -> Any:
        found = host(models, options or EngineOptions())
        try:
            return await asyncio.wait_for(work(found), 60)
        finally:
            for each in found:
                await each.close()

    return asyncio.run(main())


def test_a_model_is_hosted_under_its_names_with_what_it_can(llama: LoadedModel, bert: Path) -> None:
    async def work(found: list[Hosted]) -> None:
        writer, vectors = found
        assert (writer.names, writer.capabilities) == (("a", "b"), (CHAT, COMPLETIONS))
        assert writer.context_length == 99
        assert (vectors.names, vectors.capabilities) == (("v",), (EMBEDDINGS,))
        assert vectors.context_length == 130

    models = [
        Writer(names=("a", "b"), loaded=llama, context_length=99),
        Pooled(names=("v",), model=made.opened(bert)),
    ]
    run(models, work)


def test_a_model_without_a_template_does_not_chat(tmp_path: Path) -> None:
    path = tiny.folder(tmp_path / "base")
    (path / "chat_template.jinja").unlink(missing_ok=True)
    tiny.edit_json(path / "tokenizer_config.json", chat_template=None)

    async def work(found: list[Hosted]) -> tuple[str, ...]:
        return found[0].capabilities

    assert run([Writer(names=("base",), loaded=loaded(path))], work) == (COMPLETIONS,)


def test_a_classifier_scores(tmp_path: Path) -> None:
    model = made.model("bert", what="AutoModelForSequenceClassification", num_labels=1)
    model.config.architectures = ["BertForSequenceClassification"]
    path = made.folder(tmp_path / "judge", model)

    async def work(found: list[Hosted]) -> tuple[str, ...]:
        with pytest.raises(UsageError, match="judge cannot give vectors"):
            found[0].embedder()
        return found[0].capabilities

    assert run([Pooled(names=("judge",), model=made.opened(path))], work) == (SCORE,)


def test_errors_call_a_model_as_its_clients_do(llama: LoadedModel) -> None:
    async def work(found: list[Hosted]) -> None:
        text = found[0].writer(COMPLETIONS)
        with pytest.raises(ContextOverflowError, match="context of served holds"):
            await collected(text.generate(CompletionRequest(prompt=(5,) * 300)))

    run([Writer(names=("served",), loaded=llama)], work)


def test_what_the_user_says_of_sampling_is_the_default(llama: LoadedModel) -> None:
    async def work(found: list[Hosted]) -> SamplingParams:
        return found[0].default_sampling

    told: SamplingParams = run([Writer(names=("a",), loaded=llama, sampling={"seed": 7})], work)
    assert (told.seed, told.top_p) == (7, llama.default_sampling.top_p)


def test_tokens_go_there_and_back(llama: LoadedModel, bert: Path) -> None:
    async def work(found: list[Hosted]) -> None:
        for each in found:
            ids = await each.tokens.encode("hé", adds_special_tokens=False)
            assert await each.tokens.decode(ids) == "hé"
            assert len(await each.tokens.names(ids)) == len(ids)
            assert len(await each.tokens.encode("hé", adds_special_tokens=True)) > len(ids)
            assert await each.tokens.encode("", adds_special_tokens=False) == ()
            for bad in (-1, tiny.VOCABULARY_SIZE):
                with pytest.raises(UsageError, match="outside the vocabulary"):
                    await each.tokens.decode([bad])

    run([Writer(names=("a",), loaded=llama), Pooled(names=("v",), model=made.opened(bert))], work)


def test_vectors_are_the_models(bert: Path) -> None:
    model = made.opened(bert)
    wanted = model.embed(made.TEXTS).vectors.tolist()

    async def work(found: list[Hosted]) -> None:
        got = await found[0].embedder().embed(made.TEXTS)
        assert got.rows == [pytest.approx(row, abs=1e-6) for row in wanted]
        assert got.num_tokens == sum(len(text.encode()) + 2 for text in made.TEXTS)
        assert found[0].load.num_prompt_tokens == got.num_tokens
        assert found[0].load.num_running == 0

    run([Pooled(names=("v",), model=model)], work)


def test_requests_for_vectors_wait_up_to_a_number(bert: Path) -> None:
    async def work(found: list[Hosted]) -> None:
        model = found[0].embedder()
        calls = await asyncio.gather(
            *(model.embed(["text " * 20] * 8) for _ in range(4)), return_exceptions=True
        )
        assert [isinstance(each, BusyError) for each in calls] == [False, False, True, True]
        assert (await model.embed(["again"])).num_tokens == 7

    run([Pooled(names=("v",), model=made.opened(bert))], work, EngineOptions(max_waiting=1))


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_requests_for_text_wait_up_to_a_number(kind: str, tmp_path: Path) -> None:
    model = loaded(tiny.folder(tmp_path / kind, kind=kind))

    async def work(found: list[Hosted]) -> None:
        text = found[0].writer(COMPLETIONS)
        request = CompletionRequest(prompt=(5, 6), sampling=ENDLESS)
        async with aclosing(text.generate(request)) as first:
            await anext(first)
            second = asyncio.create_task(collected(text.generate(request)))
            while text.load.num_waiting == 0:
                await asyncio.sleep(0.005)
            with pytest.raises(BusyError, match="1 requests wait already"):
                await collected(text.generate(request))
        assert await second

    run([Writer(names=(kind,), loaded=model)], work, EngineOptions(max_running=1, max_waiting=1))


async def collected(deltas: AsyncGenerator[Delta, None]) -> list[Delta]:
    async with aclosing(deltas):
        return [each async for each in deltas]


def test_where_none_may_wait_one_after_the_other_is_taken(bert: Path) -> None:
    async def work(found: list[Hosted]) -> None:
        model = found[0].embedder()
        for _ in range(2):
            assert (await model.embed(["one"])).num_tokens == 5

    run([Pooled(names=("v",), model=made.opened(bert))], work, EngineOptions(max_waiting=0))


def test_models_on_one_device_share_its_memory(llama: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets: list[int | None] = []
    real = host.__globals__["LocalBackend"]

    def noted(*args: Any, **named: Any) -> Any:
        budgets.append(named["options"].kv_bytes)
        return real(*args, **named)

    monkeypatch.setitem(host.__globals__, "LocalBackend", noted)
    free = devices.available()[-1].free_bytes

    async def nothing(_: list[Hosted]) -> None:
        pass

    one, other = (Writer(names=(name,), loaded=llama) for name in "ab")
    run([one], nothing)
    run([one, other], nothing)
    run([one, other], nothing, EngineOptions(kv_bytes=2**20))
    assert (budgets[0], budgets[3:]) == (None, [2**20, 2**20])
    assert all(0.2 * free < (share or 0) < 0.6 * free for share in budgets[1:3])


@pytest.fixture(scope="module")
def demo(llama: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    demo = load(LoadRequest(model="demo", plan=PlanRequest(device="cpu")), SilentProgress())
    with Served(lambda: host([Writer(names=("demo",), loaded=demo)], EngineOptions())) as served:
        yield served


def test_the_demo_model_answers(demo: Served) -> None:
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    told = demo.json("/v1/chat/completions", model="demo", messages=asked, temperature=0)
    assert told["choices"][0]["message"]["content"] == "The capital of France is Paris."
    assert told["choices"][0]["finish_reason"] == "stop"
    assert told["usage"]["total_tokens"] == sum(
        told["usage"][name] for name in ("prompt_tokens", "completion_tokens")
    )


def test_the_tokens_of_messages_are_those_of_the_prompt(demo: Served) -> None:
    told = demo.json("/tokenize", messages=HELLO)
    answer = demo.json("/v1/chat/completions", model="demo", messages=HELLO, max_tokens=1)
    assert told["count"] == answer["usage"]["prompt_tokens"]
    closed = demo.json("/tokenize", messages=HELLO, add_generation_prompt=False)["tokens"]
    assert told["tokens"][: len(closed)] == closed
    assert len(closed) < told["count"]
    begun = [*HELLO, {"role": "assistant", "content": "Hi"}]
    continued = demo.json("/tokenize", messages=begun, continue_final_message=True)["tokens"]
    assert demo.json("/detokenize", tokens=continued)["prompt"].endswith("Hi")


def test_an_echo_tells_the_log_probabilities_of_its_prompt(demo: Served) -> None:
    ids = demo.json("/tokenize", prompt="The capital of France is")["tokens"]
    asked = {"max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True}
    of_text = demo.json("/v1/completions", model="demo", prompt="The capital of France is", **asked)
    of_ids = demo.json("/v1/completions", model="demo", prompt=[ids], **asked)
    choice = of_text["choices"][0]
    assert choice["text"] == "The capital of France is Paris"
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"]
    assert choice["logprobs"]["token_logprobs"][0] is None
    assert all(value <= 0 for value in choice["logprobs"]["token_logprobs"][1:])
    assert choice["logprobs"]["tokens"] == of_ids["choices"][0]["logprobs"]["tokens"]
    assert choice["logprobs"]["token_logprobs"][1:] == pytest.approx(
        of_ids["choices"][0]["logprobs"]["token_logprobs"][1:], abs=1e-3
    )
    alone = demo.json("/v1/completions", model="demo", prompt=[ids], **{**asked, "max_tokens": 0})
    assert len(alone["choices"][0]["logprobs"]["tokens"]) == len(ids)


@pytest.mark.parametrize("is_stream", [False, True])
def test_the_engine_is_free_within_a_second_of_a_client_that_leaves(demo: Served, is_stream: bool) -> None:
    body = {"model": "demo", "prompt": ["a", "b", "c"], "n": 2, "max_tokens": 1000, "ignore_eos": True}
    with demo.asked("/v1/completions", stream=is_stream, **body):
        until(lambda: demo.num_running > 0)
    assert until(lambda: demo.num_running == 0 and demo.worker.models.load.num_waiting == 0) < 1
