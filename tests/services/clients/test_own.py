"""`llmctl chat --url` against a fleet."""

import json

import pytest

from tests.conftest import Llmctl
from tests.services.clients.fleet import ANSWER, ASKED, MODEL, Fleet


def test_an_answer_comes_through_the_fleet(llmctl: Llmctl, fleet: Fleet) -> None:
    ended = llmctl("chat", "--url", fleet.url, "-p", ASKED, "--temperature", "0")
    assert (ended.code, ended.out, ended.err) == (0, ANSWER + "\n", "")


@pytest.mark.parametrize("part", ["gateway", "worker"])
def test_counts_and_log_probabilities_come_along(
    llmctl: Llmctl, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setenv("LLMCTL_API_KEY", fleet.token)
    url = fleet.one(part).url
    ended = llmctl("chat", "--url", url, "-p", ASKED, "--temperature", "0", "--json", "--logprobs", "2")
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert told["text"] == ANSWER
    assert told["usage"] == {"prompt_tokens": 18, "completion_tokens": 8, "total_tokens": 26}
    assert len(told["logprobs"]) >= 7


def test_several_turns_go_to_the_fleet(llmctl: Llmctl, fleet: Fleet) -> None:
    lines = "\n".join(json.dumps({"prompt": text}) for text in (ASKED, "What is 2 + 2?")) + "\n"
    words = ("chat", "--url", fleet.url, "--style", "programmatic", "--temperature", "0")
    ended = llmctl(*words, stdin=lines.encode())
    assert ended.code == 0, ended.err
    assert ANSWER in "".join(json.loads(line).get("text", "") for line in ended.out.splitlines())


def test_raw_text_goes_to_the_fleet(llmctl: Llmctl, fleet: Fleet) -> None:
    words = ("--raw", "-p", "The capital of France is", "--temperature", "0", "--max-new-tokens", "3")
    assert llmctl("chat", "--url", fleet.url, *words).out.strip() == "Paris."


def test_failures_are_told_in_the_fleets_words(
    llmctl: Llmctl, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = llmctl("chat", "gone", "--url", fleet.url, "-p", ASKED)
    assert ended.code != 0
    assert "gone" in ended.err
    assert MODEL in ended.err
    ended = llmctl("chat", "--url", fleet.url, "-p", "word " * 3000)
    assert ended.code != 0
    assert "1024" in ended.err
    monkeypatch.setenv("LLMCTL_API_KEY", "wrong")
    ended = llmctl("chat", "--url", fleet.one("worker").url, "-p", ASKED)
    assert ended.code != 0
    assert "401" in ended.err or "key" in ended.err
