"""Small files with one name a line, which the shell completions read with the shell's own means.

They can be deleted at any time. No line holds what a terminal or a shell could take for more than a name.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from llmctl.core.errors import LlmctlError
from llmctl.core.files import write_whole

log = logging.getLogger(__name__)

MODELS, SESSIONS = "models.txt", "sessions.txt"
"""Their names in `Places.cache`; the completion scripts know them too."""


def read_names(path: Path) -> list[str]:
    """The names in the file `path`; empty when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line for line in text.split("\n") if _is_listable(line)]


def write_names(path: Path, names: Sequence[str], *, is_private: bool = False) -> None:
    """Make `names` the content of `path` in one step, if they are not already.

    Leaves out what is not one plain line. Never raises: whoever cannot write there only has no completions.
    """
    text = "".join(f"{name}\n" for name in names if _is_listable(name))
    try:
        if path.is_file() and path.read_bytes() == text.encode():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
        if is_private:
            path.chmod(0o600)
    except (OSError, LlmctlError) as error:
        log.debug("no names for shell completions in %s: %s", path, error)


def _is_listable(name: str) -> bool:
    """Neither empty nor like a flag, and without control characters or halves of broken encodings."""
    return name != "" and name.isprintable() and not name.startswith("-")
