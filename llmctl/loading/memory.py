"""How much memory the process keeps beside the model: of glibc's allocator and of oneDNN.

The allocator is frugal while a model loads and generous while it computes; elsewhere than on glibc nothing
happens to it.
"""

import contextlib
import ctypes
import os
from collections.abc import Iterator, Mapping

# malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_FRUGAL_BYTES = 2 << 20
_GENEROUS_BYTES = 32 << 20
"""glibc allows no more."""
_KEPT_BYTES = 512 << 20
_MAX_PLANS: Mapping[str, int] = {"LRU_CACHE_CAPACITY": 64, "ONEDNN_PRIMITIVE_CACHE_CAPACITY": 256}
"""By the variables that torch's layer over oneDNN and oneDNN itself read once, before their first product."""


@contextlib.contextmanager
def frugal() -> Iterator[None]:
    """Give every block of more than a few pages back as soon as it is freed, and on leaving all the rest.

    By itself glibc learns from large blocks that were freed to keep such blocks, and what is packed from them
    then lies between holes: half a gigabyte for a model of one. Afterwards it keeps what activations need
    anew in each step, which would cost a page fault for each 4 KiB.

    And for oneDNN each number of rows is a plan of its own, with scratch memory of that size. It remembers a
    thousand, which is gigabytes where every step has other rows; a few for each layer are as fast.
    """
    for name, count in _MAX_PLANS.items():
        os.environ.setdefault(name, str(count))
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


def trim() -> None:
    """Give all that is free back to the system."""
    if (library := _glibc()) is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):
        return None
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
