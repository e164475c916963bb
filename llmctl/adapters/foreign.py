"""Where somebody else's code is called: whatever it raises becomes one error that names it."""

import contextlib
import sys
from collections.abc import Iterator

from llmctl.core.errors import BadFileError, LlmctlError


@contextlib.contextmanager
def named(what: str) -> Iterator[None]:
    """Turn what is raised inside into a `BadFileError` that says that `what` fails; ours pass."""
    try:
        # What it prints is no part of anybody's answer.
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except LlmctlError:
        raise
    # An edge: nothing is known of what such code raises, and it may even try to end the program.
    except (Exception, SystemExit) as error:
        text = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
        raise BadFileError(f"{what} fails: {reason}", hint="run again with --debug to see where") from error
