"""What -q, -v and -vv let through, of ours and of the libraries below."""

import logging
from collections.abc import Iterator

import pytest

from llmctl.core import log

NAMES = (None, "llmctl", *log.NOISY)


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Logging belongs to the whole process."""
    loggers = [logging.getLogger(name) for name in NAMES]
    before = [(logger.level, list(logger.handlers), logger.propagate) for logger in loggers]
    yield
    for logger, (level, handlers, propagates) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.propagate = propagates


def said(capsys: pytest.CaptureFixture[str], logger: str) -> list[str]:
    """Which levels a logger gets through to stderr."""
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logging.getLogger(logger).log(level, "%s", logging.getLevelName(level))
    out, err = capsys.readouterr()
    assert out == ""
    return err.split("\n")[:-1]


@pytest.mark.parametrize(
    ("verbosity", "levels"),
    [
        (-2, ["ERROR"]),
        (-1, ["ERROR"]),
        (0, ["WARNING", "ERROR"]),
        (1, ["INFO", "WARNING", "ERROR"]),
    ],
)
def test_verbosity_chooses_what_llmctl_says(
    verbosity: int, levels: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    log.setup(verbosity)
    assert said(capsys, "llmctl.core.settings") == levels


def test_at_two_everything_is_said_with_its_origin(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup(2)
    levels = ("DEBUG", "INFO", "WARNING", "ERROR")
    assert said(capsys, "llmctl.engine") == [f"{level} llmctl.engine: {level}" for level in levels]
    assert len(said(capsys, "transformers.modeling_utils")) == 4


@pytest.mark.parametrize("name", log.NOISY)
@pytest.mark.parametrize("verbosity", [-1, 0, 1])
def test_noisy_libraries_say_only_errors(
    name: str, verbosity: int, capsys: pytest.CaptureFixture[str]
) -> None:
    log.setup(verbosity)
    assert said(capsys, f"{name}.inside") == ["ERROR"]


def test_a_library_that_sets_itself_up_later_is_tamed_again(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup(0)
    # This is what importing torch and transformers does.
    logger = logging.getLogger("transformers")
    logger.setLevel(logging.WARNING)
    logger.addHandler(logging.StreamHandler())
    logger.propagate = False
    assert said(capsys, "transformers.modeling_utils") == ["WARNING", "ERROR"]
    log.tame_libraries()
    assert said(capsys, "transformers.modeling_utils") == ["ERROR"]


def test_other_libraries_may_warn(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup(0)
    assert said(capsys, "some.library") == ["WARNING", "ERROR"]


def test_a_second_setup_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup(2)
    log.setup(0)
    assert said(capsys, "llmctl") == ["WARNING", "ERROR"]
