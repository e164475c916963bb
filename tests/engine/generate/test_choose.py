"""Ways to generate by name."""

import importlib

import pytest

from llmctl.core.errors import UsageError
from llmctl.engine.generate import choose


@pytest.mark.parametrize(
    ("name", "module"),
    [("causal", "single"), ("encoder-decoder", "encoder_decoder"), ("jacobi", "jacobi")],
)
def test_a_way_to_generate_is_found_by_its_name(name: str, module: str) -> None:
    assert (
        choose.stream_function(name) is importlib.import_module(f"llmctl.engine.generate.{module}").generate
    )


def test_all_ways_are_named_when_one_is_unknown() -> None:
    with pytest.raises(UsageError, match="'diffusion'") as caught:
        choose.stream_function("diffusion")
    assert caught.value.hint == "there are causal, encoder-decoder, jacobi"


@pytest.mark.parametrize(
    ("name", "told"),
    [("exllama", "--enable-exllama"), ("xft", "--enable-xft"), ("none", "does not generate text")],
)
def test_what_is_not_run_is_refused_by_name_with_the_way_to_go(name: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        choose.stream_function(name)
    assert caught.value.hint
