"""Which tokens a request has met, and how often: what penalties go by. Grows with its tokens alone."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_ROOM = 64


class Seen:
    """Distinct tokens of a prompt and its answer, with how often each is in the answer."""

    def __init__(self, prompt_ids: Iterable[int]) -> None:
        """`prompt_ids` are met, zero times in the answer."""
        found = list(dict.fromkeys(prompt_ids))
        self._slots = {token_id: slot for slot, token_id in enumerate(found)}
        self._ids: NDArray[np.int64] = np.array([*found, *[0] * _ROOM], dtype=np.int64)
        self._counts: NDArray[np.int32] = np.zeros(len(self._ids), dtype=np.int32)

    @property
    def ids(self) -> NDArray[np.int64]:
        """[s], each token once."""
        return self._ids[: len(self._slots)]

    @property
    def counts(self) -> NDArray[np.int32]:
        """[s], in the order of `ids`."""
        return self._counts[: len(self._slots)]

    def add(self, token_id: int) -> None:
        """Count a token of the answer."""
        slot = self._slots.setdefault(token_id, len(self._slots))
        if slot == len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._ids[slot] = token_id
        self._counts[slot] += 1
