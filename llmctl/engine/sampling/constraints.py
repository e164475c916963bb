"""What a request wants more, less or not at all, as token ids. Plain Python, for one row as for many."""

from collections import defaultdict
from collections.abc import Collection, Sequence

from llmctl.core.errors import UsageError
from llmctl.core.types import SamplingParams

Word = tuple[int, ...]


class Constraints:
    """Bias and bans of one request."""

    def __init__(
        self,
        params: SamplingParams,
        vocabulary_size: int,
        *,
        end_ids: Collection[int] = (),
        bad_words: Sequence[Word] = (),
    ) -> None:
        """`end_ids` do not come before `min_tokens`; each of `bad_words` has at least one id.

        Raises `UsageError` for a bias or an allowed token that the model does not have.
        """
        self.bias = params.logit_bias
        self.allowed_ids = params.allowed_token_ids
        _check("logit_bias", [token_id for token_id, _ in self.bias], vocabulary_size)
        _check("allowed_token_ids", self.allowed_ids or (), vocabulary_size)
        self._min_tokens = params.min_tokens
        self._end_ids = sorted(token_id for token_id in end_ids if token_id < vocabulary_size)
        self._always: set[int] = set()
        self._after: defaultdict[int, list[tuple[Word, int]]] = defaultdict(list)
        for *begun, last in bad_words:
            # Tokenizers know ids that the model does not.
            if last >= vocabulary_size:
                continue
            if begun:
                self._after[begun[-1]].append((tuple(begun), last))
            else:
                self._always.add(last)

    @property
    def is_empty(self) -> bool:
        """Whether every token may always come as the model likes it."""
        forbids = self._always or self._after or (self._min_tokens and self._end_ids)
        return not self.bias and self.allowed_ids is None and not forbids

    def forbidden(self, said: Sequence[int]) -> set[int]:
        """Tokens that must not follow the answer `said`, beside those that are not among `allowed_ids`."""
        found = set(self._always)
        if len(said) < self._min_tokens:
            found.update(self._end_ids)
        if self._after and said:
            found.update(
                last for begun, last in self._after.get(said[-1], ()) if tuple(said[-len(begun) :]) == begun
            )
        return found


def nothing_left() -> UsageError:
    """The error when no token may come next."""
    return UsageError(
        "no token may come next: logit_bias, allowed_token_ids, bad_words and min_tokens exclude them all",
        hint="allow more tokens, or give a smaller min_tokens",
    )


def _check(key: str, ids: Collection[int], vocabulary_size: int) -> None:
    if ids and max(ids) >= vocabulary_size:
        raise UsageError(
            f"{key}: token id {max(ids)} is outside the model's vocabulary (0 to {vocabulary_size - 1})"
        )
