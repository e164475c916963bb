"""How glibc's allocator keeps memory: frugally while a model loads, generously while it computes.

Elsewhere (macOS, Windows, musl) nothing happens.
"""

import contextlib
import ctypes
from collections.abc import Iterator

# malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_FRUGAL_BYTES = 2 << 20
_GENEROUS_BYTES = 32 << 20
"""glibc allows no more."""
_KEPT_BYTES = 512 << 20


@contextlib.contextmanager
def frugal() -> Iterator[None]:
    """Give every block of more than a few pages back as soon as it is freed, and on leaving all the rest.

    By itself glibc learns from large blocks that were freed to keep such blocks, and what is packed from them
    then lies between holes: half a gigabyte for a model of one. Afterwards it keeps what activations need
    anew in each step, which would cost a page fault for each 4 KiB.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, _FRUGAL_BYTES)
    try:
        yield
    finally:
        library.malloc_trim(0)
        library.mallopt(_MMAP_THRESHOLD, _GENEROUS_BYTES)
        library.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)


def _glibc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):
        return None
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
