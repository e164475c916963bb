"""The table of exit codes that README promises, against the classes."""

import pytest

from llmctl.core import errors
from llmctl.core.errors import LlmctlError

# class: exit code, HTTP status, code in JSON
TABLE = {
    "LlmctlError": (1, 500, "failure"),
    "UsageError": (2, 400, "usage"),
    "NotFoundError": (3, 404, "not_found"),
    "AccessError": (4, 403, "access"),
    "UnreachableError": (5, 502, "unreachable"),
    "BusyError": (5, 429, "busy"),
    "NoWorkerError": (5, 503, "no_worker"),
    "DoesNotFitError": (6, 507, "does_not_fit"),
    "ContextOverflowError": (6, 400, "context_overflow"),
    "BadFileError": (7, 422, "bad_file"),
    "AmbiguousError": (8, 409, "ambiguous"),
}
CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, LlmctlError)
}


def test_the_table_names_every_error() -> None:
    assert CLASSES.keys() == TABLE.keys()


@pytest.mark.parametrize("name", TABLE)
def test_each_error_has_the_codes_of_the_table(name: str) -> None:
    error = CLASSES[name]
    assert (error.exit_code, error.http_status, error.code) == TABLE[name]


@pytest.mark.parametrize("name", TABLE)
def test_each_error_shows_itself_as_json(name: str) -> None:
    error = CLASSES[name]("no model 'x'", hint="look again")
    assert isinstance(error, LlmctlError)
    assert error.as_dict() == {"code": TABLE[name][2], "message": "no model 'x'", "hint": "look again"}
    assert str(error) == "no model 'x'"


def test_an_error_without_a_hint_says_so_in_json() -> None:
    assert LlmctlError("gone").as_dict() == {"code": "failure", "message": "gone", "hint": None}


@pytest.mark.parametrize("name", TABLE)
def test_the_docstring_shows_the_class_with_its_numbers(name: str) -> None:
    exit_code, status, _ = TABLE[name]
    line = next(line for line in (errors.__doc__ or "").splitlines() if name in line.split())
    assert line.split()[-1] == str(status) or f"HTTP {status}" in line
    # An indented class shares its parent's exit code and does not repeat it.
    assert name in ("ContextOverflowError", "BusyError", "NoWorkerError") or str(exit_code) in line.split()
