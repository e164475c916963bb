"""Names and titles of sessions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.core.errors import UsageError
from llmctl.sessions.records import MAX_TITLE_CHARS, check_name, title_of


@pytest.mark.parametrize(
    "name", ["a", "x" * 80, "trip to Rome", "7up", "3-4", "旅行", "été", "👩‍👩‍👧", "a-b_c.d/e"]
)
def test_a_name_can_be_nearly_anything(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty"),
        ("x" * 81, "81 characters, more than 80"),
        ("17", "only digits"),
        ("١٧", "only digits"),
        ("-x", "flag"),
        (" x", "blank"),
        ("x\t", "blank"),
        ("a\tb", "control"),
        ("a\nb", "control"),
        ("a\0b", "control"),
        ("a\x1b[2Jb", "control"),
        ("a\u2028b", "control"),
        ("a\ud800b", "control"),
    ],
)
def test_a_name_that_would_confuse_is_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        check_name(name)
    assert caught.value.hint is not None
    assert "1 to 80" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "title"),
    [
        ("", ""),
        (" \n\t ", ""),
        ("Hello", "Hello"),
        ("  two\n\n lines\tand a tab ", "two lines and a tab"),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 59 + "…"),
        ("word " * 20, " ".join(["word"] * 12) + "…"),
        ("漢" * 100, "漢" * 59 + "…"),
        ("\n" * 5000 + "late", "late"),
    ],
)
def test_a_title_is_the_first_words_on_one_line(content: str, title: str) -> None:
    assert title_of(content) == title


@given(st.text())
def test_a_title_is_one_short_line_whatever_was_said(content: str) -> None:
    title = title_of(content)
    assert len(title) <= MAX_TITLE_CHARS
    assert len(title.splitlines()) <= 1
    assert bool(title) == bool(content.strip())
