"""The detokenizer against real tokenizers decoding the whole, and stop strings against plain search."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.engine.detokenize import REPLACEMENT, Detokenizer, StopStrings

BYTE_LEVEL = ("gpt2", "qwen2.5", "smollm2")
BYTE_FALLBACK = ("mistral-v3", "stories260K")
NAMES = (*BYTE_LEVEL, *BYTE_FALLBACK)
# What is hard about text: joined emoji, right to left, combining marks, several bytes a character.
AWKWARD = (
    "👩‍👩‍👧‍👦",
    "é",
    "e\u0301\u0323",
    "日本語",
    "한국어",
    "שלום",
    "🏳️‍🌈",
    "\u200d",
    "\ufffd",
    "\n\n",
    "   ",
    "<s>",
    "\x00",
)
TEXTS = st.lists(st.text(max_size=8) | st.sampled_from(AWKWARD), max_size=6).map("".join)


@functools.cache
def tokenizer_at(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(params=NAMES)
def tokenizer(shared: Path, request: pytest.FixtureRequest) -> Any:
    return real_tokenizer(shared, request.param)


def real_tokenizer(shared: Path, name: str) -> Any:
    return tokenizer_at(shared / "assets" / (name if name == "stories260K" else f"tokenizers/{name}"))


@functools.cache
def odd_ids(tokenizer: Any) -> tuple[int, ...]:
    """Special tokens, single bytes, broken characters and rows without a token."""
    size = len(tokenizer)
    special = [each for each, token in tokenizer.added_tokens_decoder.items() if token.special][:20]
    odd = [each for each in range(size) if REPLACEMENT in tokenizer.decode([each])]
    spelt = [each for token, each in tokenizer.get_vocab().items() if len(token) == 1 or token[:3] == "<0x"]
    return (*special, *odd, *spelt, size, size + 100)


def id_lists(tokenizer: Any) -> st.SearchStrategy[list[int]]:
    return st.lists(st.sampled_from(odd_ids(tokenizer)) | st.integers(0, len(tokenizer) - 1), max_size=20)


def streamed(tokenizer: Any, ids: Iterable[int], *, after: Sequence[int] = ()) -> list[str]:
    detokenizer = Detokenizer(tokenizer, after=after)
    return [*(detokenizer.push(each) for each in ids), detokenizer.finish()]


def decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    return text


class CountingVocabulary:
    """A tokenizer that counts the ids that it decodes."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.num_decoded = 0

    @property
    def all_special_ids(self) -> list[int]:
        return list(self._tokenizer.all_special_ids)

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        return dict(self._tokenizer.added_tokens_decoder)

    def convert_ids_to_tokens(self, ids: int) -> str | None:
        token: str | None = self._tokenizer.convert_ids_to_tokens(ids)
        return token

    def decode(self, ids: Sequence[int], *, clean_up_tokenization_spaces: bool) -> str:
        self.num_decoded += len(ids)
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=clean_up_tokenization_spaces))


def test_pieces_of_any_ids_join_to_the_decoding_of_the_whole(tokenizer: Any) -> None:
    @settings(max_examples=60, deadline=None)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        ids = data.draw(id_lists(tokenizer))
        assert "".join(streamed(tokenizer, ids)) == decoded(tokenizer, ids)

    check()


def test_pieces_of_any_text_join_to_it_and_hold_no_half_characters(tokenizer: Any) -> None:
    @settings(max_examples=40, deadline=None)
    @given(text=TEXTS)
    def check(text: str) -> None:
        ids = tokenizer.encode(text, add_special_tokens=False)
        pieces, whole = streamed(tokenizer, ids), decoded(tokenizer, ids)
        assert "".join(pieces) == whole
        shown = 0
        for piece in pieces:
            # Half a character would show as U+FFFD where the text has another one.
            assert whole.startswith(piece, shown)
            shown += len(piece)

    check()


def test_a_continuation_joins_the_text_of_its_prompt(tokenizer: Any) -> None:
    @settings(max_examples=40, deadline=None)
    @given(prompt=TEXTS.filter(bool), answer=TEXTS)
    def check(prompt: str, answer: str) -> None:
        prompt_ids = tokenizer.encode(prompt)
        answer_ids = tokenizer.encode(answer, add_special_tokens=False)
        joined = "".join(streamed(tokenizer, answer_ids, after=prompt_ids))
        assert decoded(tokenizer, prompt_ids) + joined == decoded(tokenizer, [*prompt_ids, *answer_ids])

    check()


@pytest.mark.parametrize("name", BYTE_FALLBACK)
@pytest.mark.parametrize("prompt", ["Once upon a time", "Once upon a time\n", "日本", "."])
def test_a_continuation_keeps_the_space_before_its_first_word(shared: Path, name: str, prompt: str) -> None:
    tokenizer = real_tokenizer(shared, name)
    ids = tokenizer.encode("there", add_special_tokens=False)
    assert "".join(streamed(tokenizer, ids, after=tokenizer.encode(prompt))) == " there"
    assert "".join(streamed(tokenizer, ids)) == "there"


@pytest.mark.parametrize("name", BYTE_FALLBACK)
def test_an_id_without_a_token_does_not_eat_the_space_behind_it(shared: Path, name: str) -> None:
    tokenizer = real_tokenizer(shared, name)
    *start, end = tokenizer.encode("the the", add_special_tokens=False)
    ids = [*start, len(tokenizer) + 1, len(tokenizer) + 2, end]
    assert "".join(streamed(tokenizer, ids)) == decoded(tokenizer, ids) == "the the"


def test_a_token_marked_special_is_not_text_even_without_a_role(shared: Path) -> None:
    tokenizer = real_tokenizer(shared, "mistral-v3")
    instruction = tokenizer.convert_tokens_to_ids("[INST]")
    assert instruction not in tokenizer.all_special_ids
    assert "".join(streamed(tokenizer, [instruction, *tokenizer.encode("hi")])) == "hi"


def test_a_character_of_several_tokens_comes_in_one_piece(shared: Path) -> None:
    tokenizer = real_tokenizer(shared, "gpt2")
    ids = tokenizer.encode("a🙂b")
    assert len(ids) > 3
    assert [piece for piece in streamed(tokenizer, ids) if piece] == ["a", "🙂", "b"]


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_a_stream_of_broken_bytes_is_shown_as_it_comes(shared: Path, name: str) -> None:
    tokenizer = real_tokenizer(shared, name)
    continuation = tokenizer.convert_tokens_to_ids("Ģ")
    assert decoded(tokenizer, [continuation]) == REPLACEMENT
    pieces = streamed(tokenizer, [continuation] * 100)
    assert "".join(pieces) == REPLACEMENT * 100
    assert max(map(len, pieces)) <= 5


@pytest.mark.parametrize("kind", ["words", "emoji", "broken bytes", "special"])
@pytest.mark.parametrize("name", ["gpt2", "mistral-v3"])
def test_a_token_costs_the_same_at_any_length(shared: Path, name: str, kind: str) -> None:
    tokenizer = real_tokenizer(shared, name)
    broken = tokenizer.convert_tokens_to_ids(REPLACEMENT if name == "mistral-v3" else "Ģ")
    unit = {
        "words": tokenizer.encode(" once upon a time", add_special_tokens=False),
        "emoji": tokenizer.encode(" 🙂 👩‍👩‍👧 日本", add_special_tokens=False),
        "broken bytes": [broken],
        "special": [tokenizer.eos_token_id],
    }[kind]
    vocabulary = CountingVocabulary(tokenizer)
    ids = unit * (2000 // len(unit))
    assert "".join(streamed(vocabulary, ids)) == decoded(tokenizer, ids)
    assert vocabulary.num_decoded <= 50 * len(ids)


# Few letters, so that stops often match, overlap and begin without ending.
LETTERS = st.text(alphabet="ab日", max_size=14)
STOPS = st.lists(st.text(alphabet="ab日", min_size=1, max_size=4), max_size=4)


def expected(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Grow the text by a character at a time until it ends with a stop string."""
    for end in range(1, len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)], True
    return text, False


@settings(max_examples=250, deadline=None)
@given(pieces=st.lists(LETTERS, max_size=6), stops=STOPS)
def test_text_ends_before_the_first_complete_stop_string_however_it_is_cut(
    pieces: list[str], stops: list[str]
) -> None:
    text = "".join(pieces)
    want, is_hit = expected(text, stops)
    filter_ = StopStrings(stops)
    shown = ""
    for piece in pieces:
        shown += filter_.push(piece)
        assert want.startswith(shown)
    assert shown + filter_.finish() == want
    assert filter_.is_hit is is_hit


@settings(max_examples=100, deadline=None)
@given(pieces=st.lists(LETTERS, max_size=6), stops=STOPS)
def test_only_a_possible_beginning_of_a_stop_string_is_held_back(pieces: list[str], stops: list[str]) -> None:
    filter_ = StopStrings(stops)
    seen = shown = ""
    for piece in pieces:
        seen, shown = seen + piece, shown + filter_.push(piece)
        if filter_.is_hit:
            return
        held = seen[len(shown) :]
        assert held == "" or any(stop.startswith(held) and stop != held for stop in stops)


def test_nothing_is_shown_behind_a_stop_string() -> None:
    filter_ = StopStrings(["END"])
    assert [filter_.push(piece) for piece in ("so E", "N", "D", "more")] == ["so ", "", "", ""]
    assert filter_.finish() == ""


def test_a_beginning_that_does_not_complete_is_shown_in_the_end() -> None:
    filter_ = StopStrings(["\n\nUser:"])
    assert filter_.push("hello\n\nUse") == "hello"
    assert filter_.finish() == "\n\nUse"
    assert not filter_.is_hit
