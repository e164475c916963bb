"""Texts, token ids and pairs of texts into items that a model can run, each of them checked.

What is too long is refused and never cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llmctl.core.errors import ContextOverflowError, UsageError
from llmctl.loading.pooled import LoadedPooled

Input = str | Sequence[int]
"""A text, or the token ids of one, special ones included."""
Pair = str | tuple[str, str]
"""A text to classify, or a question and a document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What a model is given for one input."""

    ids: tuple[int, ...]
    """At least one."""
    type_ids: tuple[int, ...] | None = None
    """Which text of a pair each token is of; None for all items of a model whose tokenizer does not say."""
    num_prompt: int = 0
    """Leading tokens that pooling leaves out; fewer than all."""

    def __len__(self) -> int:
        return len(self.ids)


class Inputs:
    """Makes items for one model. One thread at a time: tokenizers keep state."""

    def __init__(self, loaded: LoadedPooled) -> None:
        self._loaded = loaded

    def items(self, inputs: Sequence[Input], *, prompt: str | None = None) -> list[Item]:
        """One item for each input; `prompt` is the name of a text to put before texts, None the usual one.

        Raises `UsageError` for no or empty inputs, unknown tokens and prompts, `ContextOverflowError`.
        """
        before = self._prompt(prompt)
        is_left_out = bool(before) and not self._loaded.recipe.pools_prompt
        num_prompt = self._num_prompt(before) if is_left_out else 0
        _refuse_none(inputs)
        found = []
        for index, given in enumerate(inputs):
            if isinstance(given, str):
                _refuse_empty(given, index)
                item = self._wordy(self._item(before + given, None, index), index)
                item = replace(item, num_prompt=min(num_prompt, len(item) - 1))
            else:
                item = self._of_ids(self.ids(given, index))
            found.append(self.fitting(item, index))
        return found

    def pairs(self, pairs: Sequence[Pair]) -> list[Item]:
        """One item for each text or pair; raises as `items` does."""
        _refuse_none(pairs)
        found = []
        for index, given in enumerate(pairs):
            first, second = (given, None) if isinstance(given, str) else given
            _refuse_empty(first + (second or ""), index)
            item = self._wordy(self._item(first, second, index), index)
            found.append(self.fitting(item, index))
        return found

    def ids(self, given: Input, index: int, *, special: bool = True) -> tuple[int, ...]:
        """Token ids of input number `index`, `special` ones around a text included; raises `UsageError`."""
        if isinstance(given, str):
            return self._item(given, None, index, special=special).ids
        return self._known(tuple(given), index)

    def fitting(self, item: Item, index: int) -> Item:
        """The item, unless it is too long: `ContextOverflowError`."""
        limit = self._loaded.max_tokens
        if len(item) > limit:
            raise ContextOverflowError(
                f"input {index} has {len(item)} tokens, {self._loaded.name} takes at most {limit}",
                hint="cut the text in parts, or take a model with a longer context",
                prompt_tokens=len(item),
                context_length=limit,
            )
        return item

    def _item(self, first: str, second: str | None, index: int, *, special: bool = True) -> Item:
        """An item of a text or a pair, whatever its length."""
        if self._loaded.recipe.lowers:
            first, second = first.lower(), None if second is None else second.lower()
        for text in (first, second or ""):
            _refuse_half_characters(text, index)
        # Long texts are refused by us, with the limit; the tokenizer would only warn.
        found = self._loaded.tokenizer(
            first, second, add_special_tokens=special, truncation=False, padding=False, verbose=False
        )
        ids, type_ids = tuple(found["input_ids"]), found.get("token_type_ids")
        return Item(ids=self._known(ids, index), type_ids=None if type_ids is None else tuple(type_ids))

    def _of_ids(self, ids: tuple[int, ...]) -> Item:
        has_types = "token_type_ids" in self._loaded.tokenizer.model_input_names
        return Item(ids=ids, type_ids=(0,) * len(ids) if has_types else None)

    def _wordy(self, item: Item, index: int) -> Item:
        """The item, unless its text was nothing but space that the tokenizer drops."""
        special = self._loaded.tokenizer.all_special_ids
        _refuse_empty([each for each in item.ids if each not in special], index)
        return item

    def _known(self, ids: tuple[int, ...], index: int) -> tuple[int, ...]:
        _refuse_empty(ids, index)
        size = self._loaded.vocabulary_size
        if bad := [each for each in ids if not 0 <= each < size]:
            raise UsageError(
                f"token id {bad[0]} of input {index} is outside the vocabulary of {self._loaded.name} "
                f"(0 to {size - 1})"
            )
        return ids

    def _prompt(self, name: str | None) -> str:
        recipe = self._loaded.recipe
        name = recipe.default_prompt if name is None else name
        if name is None:
            return ""
        if name not in recipe.prompts:
            known = ", ".join(sorted(recipe.prompts)) or "none"
            raise UsageError(f"{self._loaded.name} has no prompt {name!r}", hint=f"it has {known}")
        return recipe.prompts[name]

    def _num_prompt(self, text: str) -> int:
        """Tokens of the prompt alone, without one that ends a text."""
        ids = self._item(text, None, 0).ids
        return len(ids) - (ids[-1] in self._loaded.tokenizer.all_special_ids)


def _refuse_none(inputs: Sequence[object]) -> None:
    if isinstance(inputs, str):
        raise TypeError("a sequence of texts is wanted, not one text")
    if not len(inputs):
        raise UsageError("there is no input", hint="give at least one text")


def _refuse_empty(given: Sequence[object], index: int) -> None:
    if not len(given):
        raise UsageError(f"input {index} is empty", hint="leave it out, or give at least one word")


def _refuse_half_characters(text: str, index: int) -> None:
    """Lone surrogates, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"input {index} is not valid Unicode: {text[error.start]!a} at character {error.start}",
            hint="give text in UTF-8",
        ) from error
