"""What the libraries raise over files that are missing, damaged or at odds with each other, and how to say
it."""

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ImportError,
    ArithmeticError,
    SafetensorError,
    StrictDataclassError,
)


def first_line(error: BaseException) -> str:
    """What an error says, as far as one line takes it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
