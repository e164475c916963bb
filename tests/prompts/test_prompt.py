"""What is encoded: text, special tokens and stop rules, through the local backend too."""

import logging
from typing import Any

import pytest

from llmctl.core.types import ChatRequest, Message, SamplingParams
from llmctl.engine.generate.job import Job
from llmctl.engine.local import LocalBackend
from llmctl.loading.loader import LoadedModel
from llmctl.loading.planning import hardware
from llmctl.loading.planning.plan import LoadPlan
from llmctl.prompts.prompt import compose
from llmctl.prompts.template import Chosen, RowTemplate, begins_with_bos, by_name, choose
from tests import tiny

QUESTION = (Message(role="user", content="hello"),)
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def of_row(name: str) -> Chosen:
    return choose(None, RowTemplate(name=name, family="f"), None, model="m")


@pytest.mark.parametrize(
    ("name", "bos", "needs"),
    [
        ("vicuna_v1.1", "<s>", True),
        ("llama-3", "<|begin_of_text|>", False),
        ("gemma", "<bos>", False),
        ("deepseek-chat", "<｜begin▁of▁sentence｜>", False),
        ("deepseek-chat", "<s>", True),
    ],
)
def test_bos_is_added_to_templates_by_name_and_never_doubled(name: str, bos: str, needs: bool) -> None:
    prompt = compose(of_row(name), QUESTION, special_tokens={"bos_token": bos})
    assert prompt.needs_special_tokens is needs
    assert begins_with_bos(prompt.text, {"bos_token": bos}) is not needs


def test_without_a_bos_token_there_is_none_to_find() -> None:
    assert not begins_with_bos("", {})
    assert not begins_with_bos("x", {"bos_token": ""})


@pytest.mark.parametrize("text", ["{{ bos_token }}x", "x"])
def test_a_tokenizers_own_template_writes_its_special_tokens_itself(text: str) -> None:
    chosen = choose(None, None, text, model="m")
    assert not compose(chosen, QUESTION, special_tokens=TOKENS).needs_special_tokens


def test_stop_rules_come_with_a_template_and_its_ids_only_to_their_own_models() -> None:
    prompt = compose(of_row("internlm-chat"), QUESTION, special_tokens=TOKENS)
    assert (prompt.stop, prompt.stop_token_ids) == (("<|User|>",), (1, 103028))
    chosen = choose(by_name("internlm-chat"), None, None, model="m")
    prompt = compose(chosen, QUESTION, special_tokens=TOKENS)
    assert (prompt.stop, prompt.stop_token_ids) == (("<|User|>",), ())
    assert compose(choose(None, None, "x", model="m"), QUESTION, special_tokens={}).stop == ()


def test_a_note_tells_of_a_merged_system_message() -> None:
    messages = (Message(role="system", content="Be brief."), *QUESTION)
    prompt = compose(of_row("gemma"), messages, special_tokens={})
    assert "user\nBe brief.\n\nhello<end_of_turn>" in prompt.text
    assert len(prompt.notes) == 1
    assert compose(of_row("zephyr"), messages, special_tokens={}).notes == ()


def backend(*, row: str | None = None, template: str | None = None, own: str | None = None) -> LocalBackend:
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = own
    loaded = LoadedModel(
        name="tiny",
        model=tiny.Scripted([tiny.EOS]),
        tokenizer=tokenizer,
        plan=LoadPlan(device=hardware.cpu(), dtype="float32", num_bytes=0, reasons=()),
        context_length=4096,
        vocabulary_size=tiny.VOCABULARY_SIZE,
        end_ids=frozenset({tiny.EOS}),
        default_sampling=SamplingParams(),
    )
    return LocalBackend(
        loaded,
        template=by_name(template) if template is not None else None,
        row=RowTemplate(name=row, family="f") if row is not None else None,
    )


def job(made: LocalBackend, *messages: Message, **options: Any) -> Job:
    request = ChatRequest(messages=messages or QUESTION, **options)
    found: Job = made._job(request)[0]
    return found


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"row": "zero_shot", "own": "{{ bos_token }}own"}, "own"),
        ({"own": "own"}, None),
        ({"row": "oasst_llama"}, "<|prompter|>hello</s><|assistant|>"),
        ({"template": "phoenix", "own": "{{ bos_token }}own"}, "Human: <s>hello</s>Assistant: <s>"),
    ],
)
def test_a_model_is_prompted_with_one_bos_or_with_what_its_own_template_writes(
    how: dict[str, str], text: str | None
) -> None:
    made = backend(**how)
    ids = job(made).prompt_ids
    assert [token for token in ids[:2] if token == tiny.BOS] == ([] if text is None else [tiny.BOS])
    assert made.prompt(QUESTION).endswith(text or "own")


def test_the_template_of_a_row_ends_answers_with_its_strings_and_the_ids_that_the_model_has() -> None:
    asked = SamplingParams(stop=("mine",), stop_token_ids=(7,))
    found = job(backend(row="internlm-chat"), sampling=asked)
    assert found.sampling.stop == ("mine", "<|User|>")
    assert found.end_ids == {tiny.EOS, 7, 1}
    # With a template that the user names, ids are another model's.
    assert job(backend(template="internlm-chat"), sampling=asked).end_ids == {tiny.EOS, 7}


def test_a_merged_system_message_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    made = backend(row="gemma")
    with caplog.at_level(logging.WARNING, logger="llmctl.engine.local"):
        for _ in range(2):
            job(made, Message(role="system", content="Be brief."), *QUESTION)
    told = [record.message for record in caplog.records if record.name == "llmctl.engine.local"]
    assert told == [
        "the chat template (template gemma) has no system message: it was put before the first question"
    ]
