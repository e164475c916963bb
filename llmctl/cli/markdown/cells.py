"""How many terminal cells text takes, which characters belong together, and where CJK text may be broken."""

import re
import unicodedata

_JOINER = "\u200d"
# No grapheme is longer; what is (a tower of combining marks) is cut, to bound the work.
_MAX_CLUSTER = 32
_CJK = re.compile(
    "[\u2e80-\u303f\u3040-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6\U00020000-\U0003fffd]"
)
# Punctuation that must not stand at the start of a line, or at its end (Japanese and Chinese typesetting).
_NOT_FIRST = frozenset(
    "、。，．・：；？！）］｝〉》」』】〕〗〙〟’”…‥ー々ゝゞヽヾぁぃぅぇぉっゃゅょァィゥェォッャュョ%,.:;?!)]}'\""
)
_NOT_LAST = frozenset("（［｛〈《「『【〔〖〘〝‘“([{$'\"")


def width(text: str) -> int:
    """Cells of `text`, which holds no control characters."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    if _JOINER in text and len(text) > 1:
        return sum(cell_len(cluster) for cluster in clusters(text))
    return cell_len(text)


def clusters(text: str) -> list[str]:
    """`text` cut into what a reader takes for one character each."""
    found: list[str] = []
    for char in text:
        if found and _belongs_to(found[-1], char):
            found[-1] += char
        else:
            found.append(char)
    return found


def _belongs_to(cluster: str, char: str) -> bool:
    if char.isascii() or len(cluster) >= _MAX_CLUSTER:
        return False
    category = unicodedata.category(char)
    return (
        category == "Mc"
        or width(char) == 0
        or (category == "So" and cluster[-1] == _JOINER)
        or (_is_flag_half(char) and _is_flag_half(cluster))
    )


def _is_flag_half(cluster: str) -> bool:
    return len(cluster) == 1 and "\U0001f1e6" <= cluster <= "\U0001f1ff"


def may_break(before: str, after: str) -> bool:
    """Whether a line may end between two characters with no space between them."""
    if before.isascii() and after.isascii():
        return False
    return (
        bool(_CJK.match(before) or _CJK.match(after)) and after not in _NOT_FIRST and before not in _NOT_LAST
    )
