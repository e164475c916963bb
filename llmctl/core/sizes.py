"""Sizes of memory and counts of parameters as people write and read them."""

import re

from llmctl.core.errors import UsageError

_UNITS = {
    "": 1,
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)},
    **{f"{letter}B": 1000**power for power, letter in enumerate("kMGT", 1)},
}
_BY_LOWER = {unit.lower(): size for unit, size in _UNITS.items()}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)
_MAX_BYTES = 10**18
_COUNTS = ((10**9, "B", "billion"), (10**6, "M", "million"), (10**3, "K", "thousand"))


def parse_size(text: str, *, flag: str) -> int:
    """Bytes of "16GiB", "24GB", "512MiB"; a short "16G" is GiB, as memory is sold. Raises `UsageError`."""
    found = _SIZE.fullmatch(text.strip())
    unit = found[2].lower() if found else ""
    unit = f"{unit}ib" if unit in ("k", "m", "g", "t") else unit
    # A lone number is a forgotten unit, far likelier than bytes.
    if found is None or not unit or unit not in _BY_LOWER:
        raise UsageError(f"{flag} must be a size such as 16GiB or 24GB, not {text!r}")
    num_bytes = int(float(found[1]) * _BY_LOWER[unit])
    if not 0 < num_bytes <= _MAX_BYTES:
        raise UsageError(f"{flag} must be between 1 kB and 1 EB, not {text!r}")
    return num_bytes


def shown(num_bytes: int) -> str:
    """A size in the largest unit that leaves a number above 1: "4.4 MiB"."""
    size, unit = float(num_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"


def shown_count(count: int, *, in_words: bool = False) -> str:
    """A number of parameters as models are called: "8.0 B", "135 M"; in words "8.0 billion"."""
    for size, letter, word in _COUNTS:
        if count >= size:
            value = count / size
            return f"{value:.{1 if value < 100 else 0}f} {word if in_words else letter}"
    return str(count)
