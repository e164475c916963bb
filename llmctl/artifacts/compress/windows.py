"""A text as the sequences of tokens that a model reads, each begun as its tokenizer begins one."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def tokens_of(text: str, tokenizer: Any) -> list[int]:
    """The whole text, without special tokens."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def windows(ids: Sequence[int], tokenizer: Any, *, length: int, most: int) -> list[Tensor]:
    """int64 [1, T] each, T at most `length`; `most` of them at the most."""
    # Some models say nothing sensible where it is missing.
    begin = [tokenizer.bos_token_id] if _begins(tokenizer) else []
    step = max(length - len(begin), 1)
    starts = range(0, len(ids), step)[:most]
    return [torch.tensor([[*begin, *ids[start : start + step]]]) for start in starts]


def _begins(tokenizer: Any) -> bool:
    begin = tokenizer.bos_token_id
    return begin is not None and tokenizer("a")["input_ids"][:1] == [begin]
