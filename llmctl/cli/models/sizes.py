"""Sizes of memory and counts of parameters as people read them."""


def shown(num_bytes: int) -> str:
    """A size in the largest unit that leaves a number above 1: "4.4 MiB"."""
    size, unit = float(num_bytes), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"


def shown_count(count: int) -> str:
    """A number of parameters as models are called: "8.0 B", "135 M"."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= size:
            value = count / size
            return f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"
    return str(count)
