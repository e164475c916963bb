"""Where llmctl keeps its files: the XDG folders, each overridable by an `LLMCTL_*_HOME` of its own."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PRIVATE_MODE = 0o700


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Folders that need not exist yet."""

    config: Path
    """Settings that the user writes."""
    data: Path
    """Conversations and keys: nobody else may read them."""
    cache: Path
    """Can be deleted at any time."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Places":
        """`LLMCTL_CONFIG_HOME` and its sisters, then `XDG_*_HOME`, then the XDG defaults."""
        home = Path(environ.get("HOME") or Path.home())
        return cls(
            config=_place(environ, "CONFIG", home / ".config"),
            data=_place(environ, "DATA", home / ".local" / "share"),
            cache=_place(environ, "CACHE", home / ".cache"),
        )


def _place(environ: Mapping[str, str], kind: str, default: Path) -> Path:
    if own := environ.get(f"LLMCTL_{kind}_HOME"):
        return Path(os.path.expanduser(own))  # noqa: PTH111  # unlike Path, it leaves an unknown user alone
    xdg = environ.get(f"XDG_{kind}_HOME", "")
    # The XDG specification: a relative path is to be ignored.
    return (Path(xdg) if Path(xdg).is_absolute() else default) / "llmctl"


def expanded(path: str) -> Path:
    """`path` with `~` as the home it means; that of an unknown user stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  # Path's own raises for an unknown user


def private_folder(path: Path) -> Path:
    """Make `path` if it is missing, for its owner alone; mend its mode if others could read it."""
    path.mkdir(mode=PRIVATE_MODE, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:
        path.chmod(PRIVATE_MODE)
    return path
