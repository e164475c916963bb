"""What a disk refuses, in llmctl's own words, and whether it has the room."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from llmctl.core.errors import AccessError, DoesNotFitError, LlmctlError
from llmctl.core.sizes import shown

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn errors of writing to `path` into `DoesNotFitError`, `AccessError` or `LlmctlError`."""
    try:
        yield
    except OSError as error:
        raise _meaning(error, path) from error


def _meaning(error: OSError, path: Path) -> LlmctlError:
    if error.errno in _FULL:
        limit = " (a limit on the size of files)" if error.errno == errno.EFBIG else ""
        return DoesNotFitError(
            f"the disk of {path.parent} is full{limit}",
            hint="free some space, or write to another disk; nothing else was touched",
        )
    if error.errno in _DENIED:
        return AccessError(
            f"cannot write to {path.parent}: {error.strerror}", hint="write to a folder that is yours"
        )
    return LlmctlError(f"cannot write {path}: {error.strerror or error}")


def check_room(folder: Path, needed: int) -> None:
    """Raise `DoesNotFitError` when `needed` bytes are more than the disk of `folder` has free."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    with disk_errors(place):
        free = shutil.disk_usage(place).free
    if needed > free:
        raise DoesNotFitError(
            f"{shown(needed)} are needed on the disk of {place}, which has {shown(free)} free",
            hint="free some space, or write to another disk",
        )
