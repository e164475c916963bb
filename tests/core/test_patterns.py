"""Expressions of checkpoints pick what `re` picks, and cannot keep anybody waiting."""

import re
import time

import pytest

from llmctl.core.errors import BadFileError
from llmctl.core.patterns import Pattern

NAMES = (
    *("lm_head", "model.embed_tokens", "model.layers.0.mlp.up_proj", "model.layers.11.self_attn.q_proj"),
    *("model.layers.3.mlp.experts.7.w1", "model.visual.blocks.0.attn.qkv", "transformer.h.1.attn.c_attn"),
)


def pattern(text: str, form: str = "{}") -> Pattern:
    return Pattern(text, where="config.json has under ignore", hint="name them", form=form)


@pytest.mark.parametrize(
    "text",
    [
        *(".*lm_head", "lm_head$", r".*\.11\..*", r"^(?!.*(?:up|down)_proj).*", "model.visual.*", "", "^mlp"),
        *(r".*layers\.(?:[0-9]|1[0-9])\.(self_attn|mlp)\..*", r".*layers\.\d{1,2}\.mlp.*", "(?i)LM_HEAD"),
        *(r"(?:\w+\.)+w1$", r".*(?<=c_)attn", r"[^.]+\.embed_\w+?$", r"model\.layers\.[03]\."),
        *(r"model[.]layers[.]\d+[.:=].*", r".*[a&&b\[:]", "[[]|lm_head"),
    ],
)
def test_it_picks_what_re_picks(text: str) -> None:
    picked = pattern(text)
    for name in NAMES:
        assert picked.matches_start(name) is (re.match(text, name) is not None)
        assert picked.matches(name) is (re.fullmatch(text, name) is not None)


def test_what_is_matched_stands_in_its_form() -> None:
    picked = pattern("mlp|self_attn", r"(?:.*\.)?(?:{})\.\w+")
    assert [name for name in NAMES if picked.matches(name)] == [NAMES[2], NAMES[3]]
    numbered = pattern("layers", r"(?:^|.*?\.)(?:{})\.(?P<idx>\d+)\.")
    assert [numbered.number(name) for name in NAMES] == [None, None, 0, 11, 3, None, None]


def test_one_must_be_right_without_what_stands_around_it() -> None:
    with pytest.raises(BadFileError, match="no regular expression") as caught:
        pattern("a)(b", "(?:{})")
    assert caught.value.hint == "name them"


@pytest.mark.parametrize("text", ["(([a-z.0-9_]+)+)+!$", "((a|.)+)+$!"])
def test_what_hangs_re_is_decided(text: str) -> None:
    assert not any(pattern(text).matches_start(name * 2) for name in NAMES)


@pytest.mark.parametrize("text", ["(?:(?:.|[a-z._])+)+(?=!)", "(?:.|.)+(?:.)+(?:.)+(?:.)+[!?]"])
def test_one_that_takes_too_long_for_all_names_together_is_refused(text: str) -> None:
    picked, started = pattern(text), time.process_time()
    said = rf"has under ignore the expression .*{re.escape(text)}', which takes more than 1 s"
    with pytest.raises(BadFileError, match=said):
        any(picked.matches_start(name[:length]) for length in range(99) for name in NAMES)
    assert time.process_time() - started < 1.5


@pytest.mark.parametrize(
    "text", ["(?:" * 30 + "." + "){1,9}" * 30, "(" * 13 + ")" * 13, "a" * 1001, "(?R)", "(?:lm_head){e<=2}"]
)
def test_one_that_could_take_for_ever_to_compile_is_refused_before(text: str) -> None:
    with pytest.raises(BadFileError, match="1000 characters and 12 groups at most"):
        pattern(text)


@pytest.mark.parametrize("text", ["[[:alpha:]]_proj", ".*[^a[.x.]]", "[][=a=]]", r"\\[x\][:alpha:]]"])
def test_what_is_a_class_to_one_of_both_alone_is_refused(text: str) -> None:
    with pytest.raises(BadFileError, match="no classes of POSIX"):
        pattern(text)


@pytest.mark.parametrize("text", ["(", "a**", "[", "a{99999999999999999999}", r"\pL+", r"(?<=a|bc)d", r"\h"])
def test_one_that_is_none_to_re_is_refused(text: str) -> None:
    with pytest.raises(BadFileError, match="which is no regular expression"):
        pattern(text)
