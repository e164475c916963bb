"""Expressions of checkpoints pick what `re` picks, and cannot keep anybody waiting."""

import re
import time

import pytest

from llmctl.core.errors import BadFileError
from llmctl.quant.formats.patterns import Pattern

NAMES = (
    *("lm_head", "model.embed_tokens", "model.layers.0.mlp.up_proj", "model.layers.11.self_attn.q_proj"),
    *("model.layers.3.mlp.experts.7.w1", "model.visual.blocks.0.attn.qkv", "transformer.h.1.attn.c_attn"),
)


def pattern(text: str) -> Pattern:
    return Pattern(text, key="ignore", title="compressed-tensors")


@pytest.mark.parametrize(
    "text",
    [
        *(".*lm_head", "lm_head$", r".*\.11\..*", r"^(?!.*(?:up|down)_proj).*", "model.visual.*", "", "^mlp"),
        *(r".*layers\.(?:[0-9]|1[0-9])\.(self_attn|mlp)\..*", r".*layers\.\d{1,2}\.mlp.*", "(?i)LM_HEAD"),
        *(r"(?:\w+\.)+w1$", r".*(?<=c_)attn", r"[^.]+\.embed_\w+?$", r"model\.layers\.[03]\."),
    ],
)
def test_it_picks_what_re_picks(text: str) -> None:
    picked = pattern(text)
    assert [picked.matches(name) for name in NAMES] == [re.match(text, name) is not None for name in NAMES]


@pytest.mark.parametrize("text", ["(([a-z.0-9_]+)+)+!$", "((a|.)+)+$!"])
def test_what_hangs_re_is_decided(text: str) -> None:
    assert not any(pattern(text).matches(name * 2) for name in NAMES)


@pytest.mark.parametrize("text", ["(?:(?:.|[a-z._])+)+(?=!)", "(?:.|.)+(?:.)+(?:.)+(?:.)+[!?]"])
def test_one_that_takes_too_long_for_all_names_together_is_refused(text: str) -> None:
    picked, started = pattern(text), time.process_time()
    said = rf"\(compressed-tensors\) has under ignore .*{re.escape(text)}', which takes more than 1 s"
    with pytest.raises(BadFileError, match=said):
        any(picked.matches(name[:length]) for length in range(99) for name in NAMES)
    assert time.process_time() - started < 1.5


@pytest.mark.parametrize(
    "text", ["(?:" * 30 + "." + "){1,9}" * 30, "(" * 13 + ")" * 13, "a" * 1001, "(?R)", "(?:lm_head){e<=2}"]
)
def test_one_that_could_take_for_ever_to_compile_is_refused_before(text: str) -> None:
    with pytest.raises(BadFileError, match="1000 characters and 12 groups at most"):
        pattern(text)


@pytest.mark.parametrize("text", ["(", "a**", "[", "a{99999999999999999999}"])
def test_one_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadFileError, match="which is no regular expression"):
        pattern(text)
