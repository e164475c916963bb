"""Makes a model's text harmless for a terminal: what would drive or disguise it is shown as an escape."""

import re

# C0 but tab and newline, DEL, C1, line separators, bidirectional embeddings, overrides and isolates, and lone
# surrogates, which no encoding can write.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class ControlFilter:
    """Pieces of text in, the same out with control characters as `\\x1b` and line ends as newlines."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        """What can be shown by now; a final carriage return waits for what follows it."""
        text = self._held + text
        self._held = "\r" if text.endswith("\r") else ""
        if self._held:
            text = text[:-1]
        return shown(text)

    def finish(self) -> str:
        """What was still waiting."""
        text, self._held = self._held, ""
        return shown(text)


def shown(text: str) -> str:
    """A whole text with control characters as escapes, newlines and tabs left as they are."""
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    return _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if match[0] == "\r":
        return "\\r"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
