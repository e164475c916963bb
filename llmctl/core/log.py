"""Logging: `logging.getLogger(__name__)` everywhere, set up once by the command line."""

import contextlib
import io
import logging
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

# Libraries that repeat themselves at WARNING; their warnings are shown with -vv.
NOISY = (
    "transformers",
    "huggingface_hub",
    "bitsandbytes",
    "accelerate",
    "torch",
    "httpx",
    "httpx2",
    "httpcore2",
)


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that setting up again replaces it and no one else's."""


def setup(verbosity: int) -> None:
    """Log to stderr: errors at -1 (`-q`), warnings at 0, our reasons at 1 (`-v`), everything at 2."""
    level = {-1: logging.ERROR, 0: logging.WARNING, 1: logging.INFO}.get(max(verbosity, -1), logging.DEBUG)
    handler = _Handler(sys.stderr)
    handler.setFormatter(
        logging.Formatter("%(levelname)s %(name)s: %(message)s" if verbosity > 1 else "%(message)s")
    )
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if verbosity > 1 else logging.WARNING)
    logging.getLogger("llmctl").setLevel(level)
    tame_libraries()


@contextlib.contextmanager
def shown_by(show: Callable[[str], None]) -> Iterator[None]:
    """Hand the lines of the log to `show`, from whatever thread, instead of writing them to stderr."""

    class Shown(io.TextIOBase):
        def write(self, text: str, /) -> int:
            show(text)
            return len(text)

    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, _Handler)]
    before = [handler.setStream(Shown()) for handler in handlers]  # type: ignore[arg-type]
    try:
        yield
    finally:
        for handler, stream in zip(handlers, before, strict=True):
            if stream is not None:
                handler.setStream(stream)


def tame_libraries() -> None:
    """Have the noisy libraries log as `setup` said.

    To be called again after they are imported: that is when they set a level and a handler of their own.
    """
    is_everything = logging.getLogger().level == logging.DEBUG
    for name in NOISY:
        logger = logging.getLogger(name)
        logger.setLevel(logging.DEBUG if is_everything else logging.ERROR)
        logger.handlers.clear()
        logger.propagate = True
