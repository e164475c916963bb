"""The built-in rows test themselves: each is a test of its own."""

import re

import pytest

from llmctl.adapters.match import TieError, match
from llmctl.adapters.registry import DATA, built_in
from llmctl.adapters.spec import KINDS, NO_TEMPLATE, OF_TOKENIZER, Family
from llmctl.core.lazy import load
from llmctl.prompts import library

NUM_FAMILIES = 220
by_family = pytest.mark.parametrize("family", built_in(), ids=lambda family: family.id)


def test_there_are_enough_families() -> None:
    assert len(built_in()) >= NUM_FAMILIES


def id_of(name: str) -> str | None:
    """The family that a name resolves to; how several tie is told in its place."""
    try:
        family = match(name, None, built_in()).family
    except TieError as error:
        return error.message
    return family.id if family else None


@by_family
def test_the_examples_of_a_row_resolve_to_it_alone(family: Family) -> None:
    assert {name: id_of(name) for name in family.examples} == dict.fromkeys(family.examples, family.id)


@by_family
def test_a_row_says_what_it_is(family: Family) -> None:
    assert family.examples
    assert len(set(family.examples)) == len(family.examples)
    assert family.title.strip() == family.title
    assert re.match(r"https?://[\w.-]+", family.link)
    assert 10 <= len(family.about) <= 100
    assert family.about.endswith(".")
    assert family.source
    assert (
        family.template in (OF_TOKENIZER, NO_TEMPLATE)
        or library.find(family.template).name == family.template
    )
    assert (family.generates == "none") == (family.kind in ("api", "embedding", "reranker"))
    assert (family.generates == "encoder-decoder") <= (family.kind in ("encoder-decoder", "vision-language"))
    assert (family.kind in ("embedding", "reranker")) <= (family.template == NO_TEMPLATE)


def test_the_class_of_a_row_exists() -> None:
    for family in built_in():
        if family.code is not None:
            assert load(family.code)(family).match(family.examples[0])


def test_every_kind_has_a_family() -> None:
    assert {family.kind for family in built_in()} == set(KINDS)


def test_no_row_is_spread_over_files() -> None:
    assert len({family.id for family in built_in()}) == len(built_in())
    assert all(path.suffix == ".toml" and path.name == path.name.lower() for path in DATA.iterdir())
