"""What a model says to itself is told from what it answers, however the text is cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.reasoning import Parts, ReasoningSplitter

CASES = [
    ("plain text", "", "plain text"),
    ("", "", ""),
    (" \n", "", " \n"),
    ("  indented", "", "  indented"),
    ("<think>why</think>because", "why", "because"),
    ("\n <think>why</think>\n\nbecause\n", "why", "because\n"),
    ("<think></think>because", "", "because"),
    ("<think>why</think>", "why", ""),
    ("<think>why", "why", ""),
    ("<think>a < b </th", "a < b </th", ""),
    ("<think>a</think>b<think>c</think>", "a", "b<think>c</think>"),
    ("<think>a <think> b</think>c", "a <think> b", "c"),
    ("Use <think> to reason</think>", "", "Use <think> to reason</think>"),
    ("<thin", "", "<thin"),
    ("<thinking>no</thinking>", "", "<thinking>no</thinking>"),
    ("</think>text", "", "</think>text"),
    ("<think>a</think>\n\n  code", "a", "  code"),
]
ALPHABET = st.sampled_from(["<think>", "</think>", "<", "/", "think>", "a", " ", "\n", "é"])


def split(pieces: list[str], *, is_open: bool = False) -> Parts:
    splitter = ReasoningSplitter(is_open=is_open)
    parts = [*map(splitter.push, pieces), splitter.finish()]
    return Parts(
        reasoning="".join(part.reasoning for part in parts), text="".join(part.text for part in parts)
    )


@pytest.mark.parametrize(("whole", "reasoning", "text"), CASES)
def test_a_block_that_opens_the_answer_is_its_reasoning(whole: str, reasoning: str, text: str) -> None:
    assert split([whole]) == Parts(reasoning=reasoning, text=text)


@pytest.mark.parametrize(("whole", "reasoning", "text"), CASES)
def test_an_answer_that_comes_character_by_character_says_the_same(
    whole: str, reasoning: str, text: str
) -> None:
    assert split(list(whole)) == Parts(reasoning=reasoning, text=text)


@given(st.lists(ALPHABET, max_size=12).map("".join), st.lists(st.integers(0, 60)), st.booleans())
def test_cuts_change_nothing(whole: str, cuts: list[int], is_open: bool) -> None:
    bounds = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    pieces = [whole[start:end] for start, end in pairwise(bounds)]
    assert split(pieces, is_open=is_open) == split([whole], is_open=is_open)


@given(st.text(alphabet="<>/think a\n"))
def test_nothing_is_lost_of_an_answer_without_a_block(whole: str) -> None:
    if not whole.lstrip().startswith("<think>"):
        assert split(list(whole)) == Parts(text=whole)


@pytest.mark.parametrize(
    ("whole", "reasoning", "text"),
    [("why</think>\nbecause", "why", "because"), ("why", "why", ""), ("</think>because", "", "because")],
)
def test_a_block_that_the_prompt_opened_goes_on(whole: str, reasoning: str, text: str) -> None:
    assert split([whole], is_open=True) == Parts(reasoning=reasoning, text=text)


def test_text_is_not_held_back_longer_than_it_could_be_a_tag() -> None:
    splitter = ReasoningSplitter()
    assert splitter.push("<th") == Parts()
    assert splitter.push("e") == Parts(text="<the")
    assert splitter.push("<think>") == Parts(text="<think>")


def test_reasoning_is_not_held_back_longer_than_it_could_be_the_closing_tag() -> None:
    splitter = ReasoningSplitter()
    assert splitter.push("<think>a </thi") == Parts(reasoning="a ")
    assert splitter.push("s") == Parts(reasoning="</this")
