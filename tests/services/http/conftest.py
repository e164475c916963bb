"""One part for all tests of a file: starting one takes a tenth of a second."""

from collections.abc import Iterator

import pytest

from tests.services.http.part import ServedPart, Wire


@pytest.fixture(scope="module")
def part() -> Iterator[ServedPart]:
    """A part that asks for no key."""
    with ServedPart() as served:
        yield served


@pytest.fixture
def wire(part: ServedPart) -> Iterator[Wire]:
    """A connection to it."""
    with part.connect() as connection:
        yield connection
